package plan

import (
	"crypto/sha1" //nolint:gosec // part of a naming scheme that clusters already hold, no protection
	"encoding/hex"
	"regexp"
	"strings"
)

// normalizedLabel is the label of a runtime by which Director says that it normalizes names itself. Its only value
// with that meaning is the text "true".
const normalizedLabel = "isNormalized"

const (
	applicationPrefix = "mp-"
	// maxSegment is the length in bytes to which the gateway cuts names in its URLs.
	maxSegment = 57
	// secretPrefixLength leaves room in 63 bytes for "-" and an id of 36 bytes.
	secretPrefixLength = 63 - 36 - 1
	parametersPrefix   = "params-"
	// maxLabel is the longest value of a Kubernetes label.
	maxLabel = 63
)

var (
	notInName    = regexp.MustCompile(`[^-a-z0-9]`)
	dashes       = regexp.MustCompile(`-+`)
	notInSegment = regexp.MustCompile(`[^A-Za-z0-9]+`)
	notAtEnd     = regexp.MustCompile(`[^A-Za-z0-9]+$`)
)

// ApplicationName is the name under which a system stands in the cluster. Director derives the URL for the system's
// events by the same algorithm, so another name would cut the system off.
func ApplicationName(name string, runtimeLabels map[string]any) string {
	if runtimeLabels[normalizedLabel] == "true" {
		return name
	}
	return normalizeApplicationName(name)
}

func normalizeApplicationName(name string) string {
	if strings.HasPrefix(name, applicationPrefix) && canonical(name) == name {
		return name
	}
	return canonical(applicationPrefix + name)
}

func canonical(name string) string {
	name = notInName.ReplaceAllString(strings.ToLower(name), "-")
	return strings.TrimSuffix(dashes.ReplaceAllString(name, "-"), "-")
}

// segment is how a bundle or an API is written in a URL of the gateway. It is cut after the trailing dash is stripped,
// so that a name of 57 bytes may end in one: the gateway does the same.
func segment(name string) string {
	name = strings.TrimSuffix(strings.ToLower(notInSegment.ReplaceAllString(name, "-")), "-")
	if len(name) > maxSegment {
		name = name[:maxSegment]
	}
	return strings.TrimPrefix(name, "-")
}

// serviceName is unique even if two bundles have the same name.
func serviceName(name, id string) string {
	sum := sha1.Sum([]byte(id)) //nolint:gosec // see the import
	return strings.TrimPrefix(segment(name)+"-"+hex.EncodeToString(sum[:])[:5], "-")
}

func gatewayURL(gateway, application, bundle, api string) string {
	return gateway + "/" + application + "/" + segment(bundle) + "/" + segment(api)
}

func credentialsSecretName(application, bundleID string) string {
	return cut(application, secretPrefixLength) + "-" + bundleID
}

func parametersSecretName(application, bundleID string) string {
	return cut(parametersPrefix+application, secretPrefixLength) + "-" + bundleID
}

// SecretNames are the names of the Secrets that a bundle of an Application may have.
func SecretNames(application, bundleID string) []string {
	return []string{credentialsSecretName(application, bundleID), parametersSecretName(application, bundleID)}
}

// labelValue cuts an Application's name, which may have 253 bytes, to what a label may hold.
func labelValue(name string) string {
	return notAtEnd.ReplaceAllString(cut(name, maxLabel), "")
}

func cut(s string, length int) string {
	if len(s) > length {
		return s[:length]
	}
	return s
}
