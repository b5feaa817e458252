package compass

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

// directorMutations answer the root fields of the Director's mutations.
type directorMutations struct{ server *Server }

// change lets the nested fields of a mutation see what it did.
func (r directorMutations) change(ctx context.Context, f func(*inventory) error) error {
	if err := r.server.change(f); err != nil {
		return err
	}
	callOf(ctx).inv.Store(r.server.inventory.Load())
	return nil
}

func (r directorMutations) RegisterApplication(ctx context.Context, in directorapi.ApplicationRegisterInput) (*directorapi.Application, error) {
	tenant, err := callOf(ctx).tenant()
	if err != nil {
		return nil, err
	}
	a := Application{ID: uuid.NewString(), Name: in.Name, Description: value(in.Description), ProviderName: value(in.ProviderName), Labels: in.Labels}
	if err := inputError("ApplicationRegisterInput", func(p *problems) { a.check(p, "in", p.uuid) }); err != nil {
		return nil, err
	}
	if err := r.change(ctx, func(draft *inventory) error { return r.server.putApplication(draft, tenant, a) }); err != nil {
		return nil, err
	}
	return applicationNode(callOf(ctx).inv.Load().applications[a.ID], nil), nil
}

// inputError turns problems with fields into Director's error.
func inputError(input string, check func(*problems)) error {
	var p problems
	check(&p)
	if len(p.errs) == 0 {
		return nil
	}
	return errInvalidInput(input, mapped(p.errs, error.Error)...)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (r directorMutations) UnregisterApplication(ctx context.Context, id string) (*directorapi.Application, error) {
	c := callOf(ctx)
	a := c.inv.Load().applications[id]
	if a == nil || a.Tenant != c.consumer.tenant {
		return nil, errNotFound("application")
	}
	return applicationNode(a, nil), r.server.deleteApplication(id)
}

func (r directorMutations) RegisterRuntime(ctx context.Context, in directorapi.RuntimeRegisterInput) (*directorapi.Runtime, error) {
	tenant, err := callOf(ctx).tenant()
	if err != nil {
		return nil, err
	}
	rt := Runtime{ID: uuid.NewString(), Name: in.Name, Description: value(in.Description), Labels: in.Labels}
	if err := inputError("RuntimeRegisterInput", func(p *problems) { rt.check(p, "in", p.uuid) }); err != nil {
		return nil, err
	}
	if err := r.change(ctx, func(draft *inventory) error { return r.server.putRuntime(draft, tenant, rt) }); err != nil {
		return nil, err
	}
	return runtimeNode(callOf(ctx).inv.Load().runtimes[rt.ID]), nil
}

func (r directorMutations) UnregisterRuntime(ctx context.Context, id string) (*directorapi.Runtime, error) {
	rt, err := r.ownRuntime(ctx, id)
	if err != nil {
		return nil, err
	}
	return runtimeNode(rt), r.server.deleteRuntime(id)
}

// ownRuntime is a Runtime of the caller's tenant.
func (r directorMutations) ownRuntime(ctx context.Context, id string) (*runtimeState, error) {
	c := callOf(ctx)
	tenant, err := c.tenant()
	if err != nil {
		return nil, err
	}
	rt := c.inv.Load().runtimes[id]
	if rt == nil || rt.Tenant != tenant {
		return nil, errInternal("while checking if Runtime exists: Runtime with ID %s doesn't exist", id)
	}
	return rt, nil
}

func withLabel(labels map[string]any, key string, value any) map[string]any {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]any{}
	}
	labels[key] = value
	return labels
}

func (r directorMutations) SetRuntimeLabel(ctx context.Context, runtimeID string, key string, value any) (*directorapi.Label, error) {
	var wrong []string
	if problem := checkLabelKey(key); problem != "" {
		wrong = append(wrong, "key="+problem)
	}
	if isBlankLabel(value) {
		wrong = append(wrong, "value=cannot be blank")
	}
	if len(wrong) > 0 {
		return nil, errInvalidInput("LabelInput", wrong...)
	}
	if unmodifiableLabels.MatchString(key) || key == labelScenarios {
		return nil, errInvalidData("could not set unmodifiable label with key %s", key)
	}
	if _, err := r.ownRuntime(ctx, runtimeID); err != nil {
		return nil, err
	}
	err := r.change(ctx, func(draft *inventory) error {
		old := draft.runtimes[runtimeID]
		if old == nil {
			return errInternal("Runtime with ID %s doesn't exist", runtimeID)
		}
		next := *old
		next.Labels = withLabel(old.Labels, key, value)
		draft.putRuntime(&next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &directorapi.Label{Key: key, Value: value}, nil
}

func (r directorMutations) DeleteRuntimeLabel(ctx context.Context, runtimeID string, key string) (*directorapi.Label, error) {
	if unmodifiableLabels.MatchString(key) || key == labelScenarios {
		return nil, errInvalidData("could not delete unmodifiable label with key %s", key)
	}
	rt, err := r.ownRuntime(ctx, runtimeID)
	if err != nil {
		return nil, err
	}
	old, ok := rt.Labels[key]
	if !ok {
		return nil, errNotFound("runtimeLabel")
	}
	err = r.change(ctx, func(draft *inventory) error {
		if current := draft.runtimes[runtimeID]; current != nil {
			next := *current
			next.Labels = maps.Clone(current.Labels)
			delete(next.Labels, key)
			draft.putRuntime(&next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &directorapi.Label{Key: key, Value: old}, nil
}

// rawToken is the JSON in OneTimeToken.raw.
type rawToken struct {
	Token          string    `json:"token"`
	ConnectorURL   string    `json:"connectorURL"`
	Used           bool      `json:"used"`
	ExpiresAt      time.Time `json:"expiresAt"`
	CreatedAt      time.Time `json:"createdAt"`
	UsedAt         time.Time `json:"usedAt"`
	Type           ownerKind `json:"type"`
	ScenarioGroups []string  `json:"scenario_groups"`
}

// issue makes a one-time token: each time with a new system auth, unless one
// is named. It does not look at tenants, as the real one does not.
func (s *Server) issue(kind ownerKind, owner, tenant string, authID *string) (rawToken, error) {
	now := s.now()
	id := value(authID)
	if id == "" {
		id = s.identities.newAuth(kind, owner, tenant, now).ID
	}
	token, ok := s.identities.newToken(id, now, s.tokenValidity())
	if !ok {
		return rawToken{}, errNotFound("systemAuth")
	}
	if err := s.saveIdentities(); err != nil {
		return rawToken{}, err
	}
	return rawToken{Token: token, ConnectorURL: s.TokenURL(), ExpiresAt: now.Add(s.tokenValidity()).UTC(), CreatedAt: now.UTC(), Type: kind}, nil
}

// encoded gives the forms that raw and rawEncoded have.
func (t rawToken) encoded() (raw, rawEncoded *string, err error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, nil, err
	}
	plain, encoded := string(b), base64.StdEncoding.EncodeToString(b)
	return &plain, &encoded, nil
}

func (r directorMutations) RequestOneTimeTokenForRuntime(ctx context.Context, id string, systemAuthID *string) (*directorapi.OneTimeTokenForRuntime, error) {
	rt := callOf(ctx).inv.Load().runtimes[id]
	if rt == nil {
		return nil, errInvalidOperation("object=systemAuth; reason=The referenced entity does not exists")
	}
	t, err := r.server.issue(ownerRuntime, id, rt.Tenant, systemAuthID)
	if err != nil {
		return nil, err
	}
	raw, rawEncoded, err := t.encoded()
	if err != nil {
		return nil, err
	}
	kind := directorapi.OneTimeTokenTypeRuntime
	return &directorapi.OneTimeTokenForRuntime{Token: t.Token, ConnectorURL: t.ConnectorURL, ExpiresAt: t.ExpiresAt,
		CreatedAt: &t.CreatedAt, UsedAt: &t.UsedAt, Raw: raw, RawEncoded: rawEncoded, Type: &kind}, nil
}

func (r directorMutations) RequestOneTimeTokenForApplication(ctx context.Context, id string, systemAuthID *string) (*directorapi.OneTimeTokenForApplication, error) {
	a := callOf(ctx).inv.Load().applications[id]
	if a == nil {
		return nil, errInvalidOperation("object=systemAuth; reason=The referenced entity does not exists")
	}
	t, err := r.server.issue(ownerApplication, id, a.Tenant, systemAuthID)
	if err != nil {
		return nil, err
	}
	raw, rawEncoded, err := t.encoded()
	if err != nil {
		return nil, err
	}
	kind := directorapi.OneTimeTokenTypeApplication
	return &directorapi.OneTimeTokenForApplication{Token: t.Token, ConnectorURL: t.ConnectorURL,
		LegacyConnectorURL: t.ConnectorURL + "?token=" + t.Token, ExpiresAt: t.ExpiresAt,
		CreatedAt: &t.CreatedAt, UsedAt: &t.UsedAt, Raw: raw, RawEncoded: rawEncoded, Type: &kind}, nil
}

func (r directorMutations) DeleteSystemAuthForRuntime(ctx context.Context, authID string) (*directorapi.RuntimeSystemAuth, error) {
	auth, ok := r.server.identities.auth(authID)
	if !ok || auth.Kind != ownerRuntime || auth.Tenant != callOf(ctx).consumer.tenant {
		return nil, errNotFound("systemAuth")
	}
	return &directorapi.RuntimeSystemAuth{ID: authID}, r.server.deleteSystemAuth(authID)
}

func (r directorMutations) RequestBundleInstanceAuthCreation(ctx context.Context, bundleID string, in directorapi.BundleInstanceAuthRequestInput) (*directorapi.BundleInstanceAuth, error) {
	c := callOf(ctx)
	owner := c.inv.Load().bundleOwner[bundleID]
	if owner == nil || owner.Tenant != c.consumer.tenant {
		return nil, errNotFound("bundle")
	}
	for field, text := range map[string]*string{"context": in.Context, "inputParams": in.InputParams} {
		if text != nil && !json.Valid([]byte(*text)) {
			return nil, errInvalidInput("BundleInstanceAuthRequestInput", field+"=must be valid JSON")
		}
	}
	b, _ := owner.bundle(bundleID)
	if b.InstanceAuthRequestInputSchema != "" && in.InputParams == nil {
		return nil, errInvalidData("json schema for input parameters was defined for the bundle but no input parameters were provided")
	}
	auth := &instanceAuth{ID: uuid.NewString(), BundleID: bundleID, Context: value(in.Context), InputParams: value(in.InputParams),
		Condition: string(directorapi.BundleInstanceAuthStatusConditionPending), At: r.server.now()}
	if c.consumer.kind == runtimeConsumer {
		auth.RuntimeID = c.consumer.id
	}
	if b.Auth != nil {
		auth.Condition, auth.Auth = string(directorapi.BundleInstanceAuthStatusConditionSucceeded), b.Auth
	}
	if err := r.change(ctx, func(draft *inventory) error { draft.instanceAuths[auth.ID] = auth; return nil }); err != nil {
		return nil, err
	}
	return instanceAuthNode(auth), nil
}

// RequestBundleInstanceAuthDeletion leaves the credentials, UNUSED, for the
// Application to delete; those that the bundle itself gave go at once.
func (r directorMutations) RequestBundleInstanceAuthDeletion(ctx context.Context, authID string) (*directorapi.BundleInstanceAuth, error) {
	c := callOf(ctx)
	old := c.inv.Load().instanceAuths[authID]
	if old == nil || c.inv.Load().bundleOwner[old.BundleID].Tenant != c.consumer.tenant {
		return nil, errNotFound("bundleInstanceAuth")
	}
	b, _ := c.inv.Load().bundleOwner[old.BundleID].bundle(old.BundleID)
	next := *old
	err := r.change(ctx, func(draft *inventory) error {
		if b.Auth != nil {
			delete(draft.instanceAuths, authID)
			return nil
		}
		next.Condition, next.At = string(directorapi.BundleInstanceAuthStatusConditionUnused), r.server.now()
		draft.instanceAuths[authID] = &next
		return nil
	})
	if err != nil {
		return nil, err
	}
	return instanceAuthNode(&next), nil
}

func (r directorMutations) AssignFormation(ctx context.Context, objectID string, objectType directorapi.FormationObjectType, formation directorapi.FormationInput) (*directorapi.Formation, error) {
	return r.moveFormation(ctx, objectID, objectType, formation.Name, func(names []string) []string {
		if slices.Contains(names, formation.Name) {
			return names
		}
		return append(slices.Clone(names), formation.Name)
	})
}

func (r directorMutations) UnassignFormation(ctx context.Context, objectID string, objectType directorapi.FormationObjectType, formation directorapi.FormationInput) (*directorapi.Formation, error) {
	return r.moveFormation(ctx, objectID, objectType, formation.Name, func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == formation.Name })
	})
}

func (r directorMutations) moveFormation(ctx context.Context, id string, kind directorapi.FormationObjectType, name string, move func([]string) []string) (*directorapi.Formation, error) {
	tenant, err := callOf(ctx).tenant()
	if err != nil {
		return nil, err
	}
	err = r.change(ctx, func(draft *inventory) error {
		switch kind {
		case directorapi.FormationObjectTypeRuntime:
			old := draft.runtimes[id]
			if old == nil || old.Tenant != tenant {
				return errNotFound("runtime")
			}
			next := *old
			next.Formations = move(old.Formations)
			draft.putRuntime(&next)
		case directorapi.FormationObjectTypeApplication:
			old := draft.applications[id]
			if old == nil || old.Tenant != tenant {
				return errNotFound("application")
			}
			next := *old
			next.Formations = move(old.Formations)
			draft.putApplication(&next)
		default:
			return fmt.Errorf("formation object type %s", kind)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &directorapi.Formation{ID: deriveID("", tenant, "formation", name), Name: name}, nil
}
