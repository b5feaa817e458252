package credentials

import (
	"errors"
	"net/url"
)

// CheckURL says what is wrong with a URL to which calls shall go. It is not part of Parse: calls to a bad URL are refused
// when they are made, as they always were, and what it returns is for people who look before that.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("cannot be parsed as a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("is not an absolute URL with scheme http or https")
	case u.Host == "":
		return errors.New("names no host")
	}
	return nil
}

// PrintableURL is a URL without what may be secret in it: user information, query and fragment.
func PrintableURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(not a URL)"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}
