package compass

import (
	"regexp"
	"strings"

	"github.com/google/uuid"
)

// Labels that Director gives a meaning.
const (
	labelName              = "name"
	labelManaged           = "managed"
	labelScenarios         = "scenarios"
	labelRuntimeType       = "runtimeType"
	labelIsNormalized      = "isNormalized"
	labelUseBundles        = "useBundles"
	labelEventServiceURL   = "runtime_eventServiceUrl"
	labelSubaccount        = "global_subaccount_id"
	namePrefix             = "mp-"
	maxLabelKeyLength      = 256
	labelKeyFormat         = `^[a-zA-Z0-9_]*$`
	unmodifiableLabelsExpr = `^(runtimeType|xsappnameCMPClone|CMPSaaSAppName|.*_defaultEventing)$`
)

var (
	labelKey           = regexp.MustCompile(labelKeyFormat)
	unmodifiableLabels = regexp.MustCompile(unmodifiableLabelsExpr)
	notInNames         = regexp.MustCompile(`[^-a-z0-9]+`)
	dashes             = regexp.MustCompile(`-+`)
)

// normalizeName is the name under which Runtimes see an Application.
func normalizeName(name string) string {
	name = strings.ToLower(name)
	if !strings.HasPrefix(name, namePrefix) {
		name = namePrefix + name
	}
	name = notInNames.ReplaceAllString(name, "-")
	name = dashes.ReplaceAllString(name, "-")
	return strings.TrimSuffix(name, "-")
}

// applicationKey is what must be unique among the Applications of a tenant.
// The names that Runtimes see can still be equal: "a 1", and "a" of system
// number 1.
type applicationKey struct{ normalized, systemNumber string }

func (a Application) key() applicationKey {
	return applicationKey{normalizeName(a.Name), a.SystemNumber}
}

// shown is the name that Runtimes see.
func (k applicationKey) shown() string {
	if k.systemNumber == "" {
		return k.normalized
	}
	return k.normalized + "-" + k.systemNumber
}

// checkLabelKey returns what is wrong with key in Director's words, or "".
func checkLabelKey(key string) string {
	switch {
	case key == "":
		return "cannot be blank"
	case len(key) > maxLabelKeyLength:
		return "the length must be no more than 256"
	case !labelKey.MatchString(key):
		return "must be in a valid format"
	}
	return ""
}

// isBlankLabel says whether Director takes the value of a label for none. A
// zero written in the document arrives as an integer and is blank; a zero in a
// variable arrives as a json.Number and is not.
func isBlankLabel(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return strings.TrimSpace(v) == ""
	case int64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

var idSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("application-connector/simulator/compass"))

// deriveID makes an id from names, so that a seed without ids yields the same
// inventory at each start.
func deriveID(id, parent, kind, name string) string {
	if id != "" {
		return id
	}
	return uuid.NewSHA1(idSpace, []byte(parent+"\x00"+kind+"\x00"+name)).String()
}

func (s Seed) withIDs() Seed {
	s = deepCopy(s)
	for i := range s.Tenants {
		t := &s.Tenants[i]
		for j := range t.Runtimes {
			t.Runtimes[j] = t.Runtimes[j].withID(t.ID)
		}
		for j := range t.Applications {
			t.Applications[j] = t.Applications[j].withIDs(t.ID)
		}
	}
	return s
}

func (r Runtime) withID(tenant string) Runtime {
	r.ID = deriveID(r.ID, tenant, "runtime", r.Name)
	return r
}

// withIDs fills the ids of an Application and all in it. It writes to the
// slices of a: the caller owns them.
func (a Application) withIDs(tenant string) Application {
	a.ID = deriveID(a.ID, tenant, "application", a.Name)
	for i := range a.Bundles {
		b := &a.Bundles[i]
		b.ID = deriveID(b.ID, a.ID, "bundle", b.Name)
		for j := range b.APIs {
			api := &b.APIs[j]
			api.ID = deriveID(api.ID, b.ID, "api", api.Name)
			if api.Spec != nil {
				api.Spec.ID = deriveID(api.Spec.ID, api.ID, "spec", "")
			}
		}
		for j := range b.Events {
			event := &b.Events[j]
			event.ID = deriveID(event.ID, b.ID, "event", event.Name)
			if event.Spec != nil {
				event.Spec.ID = deriveID(event.Spec.ID, event.ID, "spec", "")
			}
		}
		for j := range b.Documents {
			b.Documents[j].ID = deriveID(b.Documents[j].ID, b.ID, "document", b.Documents[j].Title)
		}
	}
	return a
}
