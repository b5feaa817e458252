package plan

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/secret"
)

// past is what the cluster holds for a system. The zero value is nothing.
type past struct {
	// application as it is, or as a former plan meant it to be; may be nil.
	application *v1alpha1.Application
	// owned gives the Application's Secret of that name, or nil.
	owned func(name string) *corev1.Secret
	// withheld are the ids of bundles of whose credentials Director's word is not believed.
	withheld []string
}

func (w past) secret(name string) *corev1.Secret {
	if w.owned == nil {
		return nil
	}
	return w.owned(name)
}

// meant is what the entries of a bundle are to say beside the names of their Secrets. It stands on the Secrets themselves, so
// that credentials which Director does not tell again are used as it last told, whatever became of the entries.
type meant struct {
	Type              string             `json:"type"`
	AuthenticationURL string             `json:"authenticationUrl,omitempty"`
	CSRFInfo          *v1alpha1.CSRFInfo `json:"csrfInfo,omitempty"`
	// Parameters says that there is a Secret of headers and query fields.
	Parameters bool `json:"parameters,omitempty"`
}

// record writes down for later plans what the entries say.
func (a *access) record() {
	text, err := json.Marshal(meant{a.entry.Type, a.entry.AuthenticationURL, a.entry.CSRFInfo, a.parameters != nil})
	if err != nil {
		panic(err) // text can always be encoded
	}
	a.meant = string(text)
}

// needed are the keys that a Secret of that type must have.
var needed = map[string][]string{
	v1alpha1.CredentialsTypeBasic:         {keyUsername, keyPassword},
	v1alpha1.CredentialsTypeOAuth:         {keyClientID, keyClientSecret},
	v1alpha1.CredentialsTypeOAuthWithCert: {keyClientID, keyCertificate, keyPrivateKey},
}

const (
	formerStay     = "the former credentials stay until Compass has issued the new ones"
	notIssued      = "Compass has not issued the credentials yet"
	formerUseless  = notIssued + ", and the former ones lack a part"
	removalPending = "Compass names no credentials any more, or less of them; the former ones are kept until that is confirmed: by further answers, or by the annotation " +
		v1alpha1.ConfirmDeletionAnnotation + "=" + v1alpha1.DeletionConfirmed
)

// formerAccess keeps the credentials that the bundle had before, if they are there: those that a former sync stored, and as it
// meant them to be used. What somebody else wrote into the entries is not made to last.
func formerAccess(application, bundleID string, was past) access {
	credentials, parameters := was.secret(credentialsSecretName(application, bundleID)), was.secret(parametersSecretName(application, bundleID))
	before, known := recorded(credentials, parameters)
	if !known {
		before, known = entered(application, bundleID, was.application, parameters != nil)
	}
	keys, usable := needed[before.Type]
	open := before.Type == ""
	if !known || !usable && !open || (credentials == nil) != open || open && parameters == nil {
		return access{entry: v1alpha1.Credentials{Type: typePending}, kept: true}.unfit(ReasonPending, notIssued)
	}
	a := access{entry: v1alpha1.Credentials{Type: before.Type, AuthenticationURL: before.AuthenticationURL, CSRFInfo: before.CSRFInfo}, kept: true, message: formerStay}
	if !open {
		a.entry.SecretName = credentials.Name
		if slices.ContainsFunc(keys, func(key string) bool { return len(credentials.Data[key]) == 0 }) {
			a = a.unfit(ReasonPending, formerUseless)
		}
	}
	if before.Parameters {
		a.parameters = map[string]secret.Value{}
		if parameters == nil { // the entries go on naming it, so that nothing is called without
			a = a.unfit(ReasonPending, formerUseless)
		}
	}
	return a
}

// recorded is what the first of the Secrets says that says something.
func recorded(secrets ...*corev1.Secret) (out meant, known bool) {
	for _, s := range secrets {
		if s == nil || s.Annotations[v1alpha1.MeantAnnotation] == "" {
			continue
		}
		var m meant
		if json.Unmarshal([]byte(s.Annotations[v1alpha1.MeantAnnotation]), &m) == nil {
			return m, true
		}
	}
	return out, false
}

// entered is for Secrets of agents that recorded nothing: what the first entry says that names them.
func entered(application, bundleID string, former *v1alpha1.Application, parameters bool) (out meant, known bool) {
	service := formerService(former, bundleID)
	if service == nil {
		return out, false
	}
	for _, entry := range service.Entries {
		c := entry.Credentials
		out = meant{c.Type, c.AuthenticationURL, c.CSRFInfo.DeepCopy(), parameters && entry.RequestParametersSecretName == parametersSecretName(application, bundleID)}
		stored := c.Type != "" && c.SecretName == credentialsSecretName(application, bundleID)
		alone := c.Type == "" && c.SecretName == "" && out.Parameters
		if entry.Type == v1alpha1.EntryTypeAPI && (stored || alone) {
			return out, true
		}
	}
	return meant{}, false
}
