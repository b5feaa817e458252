package plan

import "encoding/json"

// printedPlan is a Plan as JSON. It holds names and reasons, and no data of any Secret.
type printedPlan struct {
	Total        int              `json:"total"`
	Changes      []printedStep    `json:"changes"`
	Failures     []printedFailure `json:"failures"`
	Kept         int              `json:"kept"`
	PruneBlocked string           `json:"pruneBlocked,omitempty"`
	Incomplete   string           `json:"incomplete,omitempty"`
}

type printedStep struct {
	Action      Action          `json:"action"`
	Application string          `json:"application"`
	ID          string          `json:"id"`
	System      string          `json:"system"`
	Why         []string        `json:"why,omitempty"`
	Secrets     []printedSecret `json:"secrets,omitempty"`
}

type printedSecret struct {
	Action Action   `json:"action"`
	Name   string   `json:"name"`
	Why    []string `json:"why,omitempty"`
}

type printedFailure struct {
	ID      string `json:"id"`
	System  string `json:"system"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// MarshalJSON implements json.Marshaler: what would be done, and why, without what is secret.
func (p Plan) MarshalJSON() ([]byte, error) {
	out := printedPlan{Total: p.Total, Kept: p.Kept, PruneBlocked: p.PruneBlocked, Incomplete: p.Incomplete, Changes: []printedStep{}, Failures: []printedFailure{}}
	for _, step := range p.Steps {
		if step.Idle() {
			continue
		}
		printed := printedStep{Action: step.Action, Application: step.Name, ID: step.ID, System: step.System, Why: step.Changes}
		for _, s := range step.Secrets {
			printed.Secrets = append(printed.Secrets, printedSecret{s.Action, s.Name, s.Changes})
		}
		out.Changes = append(out.Changes, printed)
	}
	for _, f := range p.Failures {
		out.Failures = append(out.Failures, printedFailure(f))
	}
	return json.Marshal(out)
}

// Idle says that the plan changes neither an Application nor a Secret. Conditions may change all the same.
func (p Plan) Idle() bool {
	for i := range p.Steps {
		if !p.Steps[i].Idle() {
			return false
		}
	}
	return true
}
