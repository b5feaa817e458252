package connection

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/secret"
)

// Keys of the configuration Secret, which whoever registers the cluster with Compass writes.
const (
	keyConnectorURL = "CONNECTOR_URL"
	keyRuntimeID    = "RUNTIME_ID"
	keyTenant       = "TENANT"
	keyToken        = "TOKEN"
)

// Annotations of the client Secret: what belongs to the certificate and can be had from nowhere else when the
// CompassConnection is deleted.
const (
	annotationConnectorURL = issuer.AnnotationConnectorURL
	annotationDirectorURL  = "compass.kyma-project.io/director-url"
	annotationToken        = "compass.kyma-project.io/token-fingerprint"
	annotationEstablished  = "compass.kyma-project.io/established"
	annotationRenewed      = "compass.kyma-project.io/renewed"
	annotationRuntimeID    = "compass.kyma-project.io/runtime-id"
	annotationTenant       = "compass.kyma-project.io/tenant"
	annotationTokenURL     = "compass.kyma-project.io/token-connector-url"
	annotationApplied      = "compass.kyma-project.io/applied-runtime"
	annotationLeft         = "compass.kyma-project.io/left"
)

// Annotations lists the annotations of the client Secret that the agent writes.
func Annotations() []string {
	return []string{
		annotationConnectorURL, annotationDirectorURL, annotationToken, annotationEstablished, annotationRenewed,
		annotationRuntimeID, annotationTenant, annotationTokenURL, annotationApplied, annotationLeft,
	}
}

// Keys of the pending Secret beside those of the client Secret.
const (
	pendingToken        = issuer.KeyToken
	pendingTokenURL     = issuer.KeyTokenURL
	pendingFingerprint  = "tokenFingerprint"
	pendingSubject      = issuer.KeySubject
	pendingDirectorURL  = "directorURL"
	pendingConnectorURL = "connectorURL"
	pendingSince        = "since"
	pendingPairing      = "pairing"
	pendingRuntimeID    = "runtimeID"
	pendingTenant       = "tenant"
)

// tokenLife is how long a second token can be worth anything: as long as the first, by Compass's default.
const tokenLife = time.Hour

// Names of the Secrets.
type Names struct {
	Configuration, Client, CA types.NamespacedName
}

// Pending is the Secret that holds what must outlive a crash during pairing and renewal.
func (n Names) Pending() types.NamespacedName {
	return types.NamespacedName{Namespace: n.Client.Namespace, Name: n.Client.Name + "-pending"}
}

// configuration is the content of the configuration Secret.
type configuration struct {
	connectorURL, runtimeID, tenant string
	token                           secret.Value
	annotations                     map[string]string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (configuration) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// fingerprint is the SHA-256 of the token in hex; empty without a token.
func (c configuration) fingerprint() string {
	if c.token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(c.token.Reveal()))
	return hex.EncodeToString(sum[:])
}

// identity is who the cluster is for Compass.
type identity struct {
	runtimeID, tenant string
}

// contradicts: the two are not the same runtime. What one of them does not know contradicts nothing: the tenant may be
// left out, and agents before this one did not record either.
func (i identity) contradicts(other identity) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return differ(i.runtimeID, other.runtimeID) || differ(i.tenant, other.tenant)
}

// String names it for people, and in the annotation about the last applied snapshot. Without a runtime it is empty.
func (i identity) String() string {
	if i.runtimeID == "" || i.tenant == "" {
		return i.runtimeID
	}
	return i.tenant + "/" + i.runtimeID
}

func (c configuration) identity() identity { return identity{c.runtimeID, c.tenant} }

// clientSecret is the content of the client Secret.
type clientSecret struct {
	identity                  // that the certificate was issued for; empty if unknown
	credential                certs.Credential
	data                      map[string][]byte // as stored; nil if there is none
	stored                    map[string][]byte // the same, also if none of it is the agent's
	damaged                   string            // why it cannot be used; empty if it can
	connectorURL, directorURL string
	token                     string
	tokenURL                  string
	applied                   string // runtime whose snapshot Applications were last pruned by, as identity.String
	established, renewed      time.Time
	left                      bool     // the certificate was revoked and deleted, when the cluster left Compass
	unchanged                 bool     // the data is what it was when this process last looked
	ours                      []string // keys of the Delegate that the agent still owns, from before it had one
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (clientSecret) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// pending is the content of the pending Secret.
type pending struct {
	identity                                   // of the configuration that a pairing was begun with
	credential                certs.Credential // Chain and CA only once issued
	issued                    bool
	stored                    bool // the Secret holds the issued certificate
	keyed                     bool
	pairing                   bool
	token                     secret.Value
	tokenURL, fingerprint     string
	subject                   string
	directorURL, connectorURL string
	since                     time.Time
	signed                    string // fingerprint of the certificate that the issuer for cert-manager got by the token
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (pending) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// store reads and writes the Secrets. Reads go to the API server: deciding about a one-time token on what a cache
// remembers could spend it twice.
type store struct {
	reader client.Reader
	writer client.Client
	names  Names
	// delegated: the keys of cert-manager in the client Secret are not written, unless they still are the agent's.
	delegated bool
}

// encode gives the data of the client Secret that the agent writes. Authorities that are trusted while one set takes the place
// of another stand in a key of their own where that of cert-manager holds only those of now.
func (s store) encode(c clientSecret) (map[string][]byte, error) {
	data, err := certs.EncodeClient(c.credential)
	if err != nil || !s.delegated {
		return data, err
	}
	for _, key := range delegated {
		if slices.Contains(c.ours, key) {
			continue
		}
		if key == certs.ClientCA {
			data[certs.CACert] = data[key]
		}
		delete(data, key)
	}
	return data, nil
}

// decode reads what encode wrote, in either mode.
func decode(data map[string][]byte) (certs.Credential, error) {
	if authorities := data[certs.CACert]; len(authorities) > 0 {
		data = maps.Clone(data)
		data[certs.ClientCA] = authorities
	}
	return certs.DecodeClient(data)
}

// ownedKeys are the keys of a Secret's data that the agent owns by server-side apply.
func ownedKeys(s *corev1.Secret) map[string]bool {
	owned := map[string]bool{}
	for _, entry := range s.ManagedFields {
		if entry.Manager != FieldOwner || entry.Operation != metav1.ManagedFieldsOperationApply || entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Data map[string]json.RawMessage `json:"f:data"`
		}
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		for field := range fields.Data {
			owned[strings.TrimPrefix(field, "f:")] = true
		}
	}
	return owned
}

func (s store) get(ctx context.Context, name types.NamespacedName) (*corev1.Secret, error) {
	var found corev1.Secret
	if err := s.reader.Get(ctx, name, &found); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return &found, nil
}

func (s store) apply(ctx context.Context, name types.NamespacedName, data map[string][]byte, annotations map[string]string) error {
	// What is to be written may be a second token that Compass gives once: a moment's trouble must not lose it.
	err := retry.OnError(issuer.Writing, issuer.Momentary, func() error {
		object := corev1ac.Secret(name.Name, name.Namespace).WithData(data).WithAnnotations(annotations)
		return s.writer.Apply(ctx, object, client.FieldOwner(FieldOwner), client.ForceOwnership)
	})
	if err != nil {
		return &StoreError{Secret: name, Verb: "writing", err: err}
	}
	return nil
}

// StoreError says that the API server did not take a write of one of the agent's own Secrets. It says nothing about
// Compass and nothing about what was to be written, which therefore stays worth keeping.
type StoreError struct {
	// Secret that was to be written, and Verb, what was to be done with it: writing or deleting.
	Secret types.NamespacedName
	Verb   string
	err    error
}

// Error leaves the API server's message out: it may repeat what it was sent.
func (e *StoreError) Error() string {
	why := "the API server does not answer"
	switch reason := apierrors.ReasonForError(e.err); {
	case reason != metav1.StatusReasonUnknown:
		why = "the API server answers " + string(reason)
	case errors.Is(e.err, context.Canceled):
		why = context.Canceled.Error()
	case errors.Is(e.err, context.DeadlineExceeded):
		why = context.DeadlineExceeded.Error()
	}
	return fmt.Sprintf("%s Secret %s: %s", e.Verb, e.Secret, why)
}

// Unwrap gives what the API client said, for deciding, not for telling.
func (e *StoreError) Unwrap() error { return e.err }

func (s store) configuration(ctx context.Context) (configuration, bool, error) {
	found, err := s.get(ctx, s.names.Configuration)
	if err != nil || found == nil {
		return configuration{}, false, err
	}
	text := func(key string) string { return string(bytes.TrimSpace(found.Data[key])) } // a file ends with a newline
	return configuration{
		connectorURL: text(keyConnectorURL), runtimeID: text(keyRuntimeID), tenant: text(keyTenant),
		token: secret.Value(text(keyToken)), annotations: found.Annotations,
	}, true, nil
}

// client reads the client Secret. What it holds is decoded only if it differs from what is known.
func (s store) client(ctx context.Context, known *clientSecret) (clientSecret, error) {
	found, err := s.get(ctx, s.names.Client)
	if err != nil || found == nil {
		return clientSecret{}, err
	}
	if left := found.Annotations[annotationLeft]; left != "" && len(found.Data[certs.ClientKey]) == 0 {
		return clientSecret{left: true, token: found.Annotations[annotationToken], stored: found.Data}, nil
	}
	if len(found.Data) == 0 {
		return clientSecret{}, nil
	}
	c := clientSecret{
		data: found.Data, stored: found.Data, connectorURL: found.Annotations[annotationConnectorURL], directorURL: found.Annotations[annotationDirectorURL],
		token: found.Annotations[annotationToken], established: parseTime(found.Annotations[annotationEstablished]),
		renewed:  parseTime(found.Annotations[annotationRenewed]),
		identity: identity{found.Annotations[annotationRuntimeID], found.Annotations[annotationTenant]},
		tokenURL: found.Annotations[annotationTokenURL], applied: found.Annotations[annotationApplied],
		ours: ours(ownedKeys(found)),
	}
	if known != nil && maps.EqualFunc(known.data, found.Data, bytes.Equal) {
		c.credential, c.unchanged = known.credential, true
	} else if c.credential, err = decode(found.Data); err != nil {
		c.damaged = err.Error()
	}
	return c, nil
}

// saveClient writes the client Secret with one request: key, certificate and chain change together or not at all.
func (s store) saveClient(ctx context.Context, c clientSecret) error {
	data, err := s.encode(c)
	if err != nil {
		return err
	}
	annotations := map[string]string{}
	for key, value := range map[string]string{
		annotationConnectorURL: c.connectorURL, annotationDirectorURL: c.directorURL, annotationToken: c.token,
		annotationEstablished: formatTime(c.established), annotationRenewed: formatTime(c.renewed),
		annotationRuntimeID: c.runtimeID, annotationTenant: c.tenant, annotationTokenURL: c.tokenURL, annotationApplied: c.applied,
	} {
		if value != "" {
			annotations[key] = value
		}
	}
	return s.apply(ctx, s.names.Client, data, annotations)
}

// strip deletes the given keys of a Secret, whoever wrote them. A Secret that is missing lacks them already.
func (s store) strip(ctx context.Context, name types.NamespacedName, keys ...string) error {
	data := map[string]any{}
	for _, key := range keys {
		data[key] = nil
	}
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return err
	}
	object := &corev1.Secret{}
	object.Name, object.Namespace = name.Name, name.Namespace
	if err := s.writer.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner)); client.IgnoreNotFound(err) != nil {
		return &StoreError{Secret: name, Verb: "writing", err: err}
	}
	return nil
}

// clearClient takes the credential out of the client Secret, and leaves a note there that the cluster left, so that no
// agent pairs again with the token of that time.
func (s store) clearClient(ctx context.Context, token string, now time.Time) error {
	annotations := map[string]string{annotationLeft: formatTime(now)}
	if token != "" {
		annotations[annotationToken] = token
	}
	if err := s.apply(ctx, s.names.Client, nil, annotations); err != nil {
		return err
	}
	// By server-side apply only those keys are gone that nobody else wrote, too.
	return s.strip(ctx, s.names.Client, certs.ClientKey, certs.ClientCertificate, certs.ClientChain, certs.TLSKey, certs.TLSCertificate, certs.ClientCA, certs.CACert)
}

// authorities reads the CA Secret; none if it is missing or cannot be read as certificates.
func (s store) authorities(ctx context.Context) ([]*x509.Certificate, error) {
	found, err := s.get(ctx, s.names.CA)
	if err != nil || found == nil {
		return nil, err
	}
	authorities, err := certs.DecodeCA(found.Data)
	if err != nil {
		return nil, nil //nolint:nilerr // a damaged Secret is written anew, like a missing one
	}
	return authorities, nil
}

func (s store) saveAuthorities(ctx context.Context, authorities []*x509.Certificate) error {
	data, err := certs.EncodeCA(authorities)
	if err != nil {
		return err
	}
	return s.apply(ctx, s.names.CA, data, nil)
}

// pending reads the pending Secret. One that cannot be used counts as none.
func (s store) pending(ctx context.Context, now time.Time) (*pending, error) {
	found, err := s.get(ctx, s.names.Pending())
	if err != nil || found == nil {
		return nil, err
	}
	text := func(key string) string { return string(found.Data[key]) }
	p := &pending{
		pairing: text(pendingPairing) == "true", token: secret.Value(found.Data[pendingToken]), tokenURL: text(pendingTokenURL),
		fingerprint: text(pendingFingerprint), subject: text(pendingSubject), directorURL: text(pendingDirectorURL),
		connectorURL: text(pendingConnectorURL), since: parseTime(text(pendingSince)),
		identity: identity{text(pendingRuntimeID), text(pendingTenant)},
	}
	if len(found.Data[certs.ClientCertificate]) > 0 {
		if p.credential, err = certs.DecodeClient(found.Data); err == nil && p.credential.ValidAt(now) && len(p.credential.CA) > 0 {
			p.issued, p.stored = true, true
			return p, nil
		}
		return p, nil
	}
	if key, err := certs.DecodeKey(found.Data[certs.ClientKey]); err == nil {
		p.credential.Key, p.keyed = key, true
	}
	if bought, err := certs.DecodeChain(found.Data[issuer.KeyIssuedCertificate]); err == nil {
		p.signed = certs.Fingerprint(bought[0])
	}
	p.age(now)
	return p, nil
}

// age drops a second token that is too old to be worth a call.
func (p *pending) age(now time.Time) {
	if now.Sub(p.since) > tokenLife {
		p.token = ""
	}
}

func (s store) savePending(ctx context.Context, p pending) error {
	data := map[string][]byte{}
	if p.credential.Key != nil || !s.delegated { // cert-manager makes the key
		key, err := certs.EncodeKey(p.credential.Key)
		if err != nil {
			return err
		}
		data[certs.ClientKey] = key
	}
	var err error
	if p.issued {
		if data, err = certs.EncodeClient(p.credential); err != nil {
			return err
		}
		p.token = "" // spent
	}
	pairing := ""
	if p.pairing {
		pairing = "true"
	}
	for key, value := range map[string]string{
		pendingToken: p.token.Reveal(), pendingTokenURL: p.tokenURL, pendingFingerprint: p.fingerprint, pendingSubject: p.subject,
		pendingDirectorURL: p.directorURL, pendingConnectorURL: p.connectorURL, pendingSince: formatTime(p.since), pendingPairing: pairing,
		pendingRuntimeID: p.runtimeID, pendingTenant: p.tenant,
	} {
		if value != "" {
			data[key] = []byte(value)
		}
	}
	return s.apply(ctx, s.names.Pending(), data, nil)
}

func (s store) dropPending(ctx context.Context) error {
	name := s.names.Pending()
	object := &corev1.Secret{}
	object.Name, object.Namespace = name.Name, name.Namespace
	if err := s.writer.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
		return &StoreError{Secret: name, Verb: "deleting", err: err}
	}
	return nil
}

func sameAuthorities(a, b []*x509.Certificate) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c *x509.Certificate) bool { return !slices.ContainsFunc(b, c.Equal) })
}

// missing says what the configuration lacks for a sync; empty if it has all. Without a tenant Director takes the one that
// the certificate was issued in.
func (c configuration) missing(found bool, name types.NamespacedName) string {
	switch {
	case !found:
		return fmt.Sprintf("Secret %s is missing; it must hold %s, %s, %s and %s", name, keyConnectorURL, keyRuntimeID, keyTenant, keyToken)
	case c.runtimeID == "":
		return fmt.Sprintf("Secret %s has no %s", name, keyRuntimeID)
	}
	return ""
}

func parseTime(text string) time.Time {
	t, _ := time.Parse(time.RFC3339, text) // the zero time for what is no time
	return t
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
