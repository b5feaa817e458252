package doctor

import (
	"errors"
	"fmt"
)

// State is what became of a step.
type State string

// States of a step.
const (
	// OK: all is well.
	OK State = "OK"
	// Wrong: what was found is wrong.
	Wrong State = "Wrong"
	// Skipped: it was not looked at, because of an earlier step, or because it was to be left out.
	Skipped State = "Skipped"
	// Unknown: it could not be found out.
	Unknown State = "Unknown"
)

// Health sums a report up.
type Health string

// What the whole can be. The exit codes of the command are 0, 1 and 2, in this order.
const (
	Healthy     Health = "Healthy"
	Unhealthy   Health = "Unhealthy"
	Undecidable Health = "Unknown"
)

// Names of steps, in the order in which they come.
const (
	StepCluster           = "Cluster"
	StepConfiguration     = "Configuration"
	StepClientSecret      = "ClientSecret"
	StepClientCertificate = "ClientCertificate"
	StepCompassDNS        = "CompassDNS"
	StepCompassTCP        = "CompassTCP"
	StepCompassTLS        = "CompassTLS"
	StepDirector          = "Director"
	StepConnector         = "Connector"
	StepSync              = "Sync"
	StepAuthorities       = "Authorities"
	StepEdge              = "Edge"
	StepServerCertificate = "ServerCertificate"
	StepApplications      = "Applications"
	StepApplication       = "Application"
	StepAPI               = "API"
	StepCredentials       = "Credentials"
	StepTargetDNS         = "TargetDNS"
	StepTargetTCP         = "TargetTCP"
	StepTargetTLS         = "TargetTLS"
	StepToken             = "Token"
	StepCSRF              = "CSRF"
	StepAnswer            = "Answer"
	StepGateway           = "Gateway"
)

// StepNames lists the names of steps, in the order in which they come.
func StepNames() []string {
	return []string{
		StepCluster, StepConfiguration, StepClientSecret, StepClientCertificate, StepCompassDNS, StepCompassTCP, StepCompassTLS, StepDirector, StepConnector, StepSync,
		StepAuthorities, StepEdge, StepServerCertificate,
		StepApplications, StepApplication, StepAPI, StepCredentials, StepTargetDNS, StepTargetTCP, StepTargetTLS, StepToken, StepCSRF, StepAnswer, StepGateway,
	}
}

// Step is one link of the chain.
type Step struct {
	// Name is one of StepNames.
	Name string `json:"name"`
	// About is the Application, or the API as application/service/entry, that it is about; empty for the cluster.
	About string `json:"about"`
	State State  `json:"state"`
	// Finding is what was found, in one line. It holds no secret.
	Finding string `json:"finding"`
	// Remedy is what to do about it; empty for a step that is OK.
	Remedy string `json:"remedy"`
}

// Where the command runs.
const (
	// FromMachine: outside of the cluster.
	FromMachine = "Machine"
	// FromCluster: in a Pod.
	FromCluster = "Cluster"
)

// Report is what "appconn doctor -o json" prints.
type Report struct {
	Health Health `json:"health"`
	// Finding and Remedy are those of the first step that is wrong or, if none is, of the first that is unknown, with its
	// name; empty if all is well.
	Finding string `json:"finding"`
	Remedy  string `json:"remedy"`
	// From is where the command ran: what it found out about names and connections holds for there.
	From  string `json:"from"`
	Steps []Step `json:"steps"`
}

// newReport sums steps up.
func newReport(from string, steps []Step) Report {
	r := Report{Health: Healthy, From: from, Steps: steps}
	for _, decisive := range []struct {
		state  State
		health Health
	}{{Wrong, Unhealthy}, {Unknown, Undecidable}} {
		count := 0
		for _, s := range steps {
			if s.State != decisive.state {
				continue
			}
			if count++; count == 1 {
				r.Health, r.Finding, r.Remedy = decisive.health, s.title()+": "+s.Finding, s.Remedy
			}
		}
		if count > 0 {
			return r
		}
	}
	return r
}

// title names a step for people.
func (s Step) title() string {
	if s.About == "" {
		return s.Name
	}
	return s.Name + " of " + s.About
}

// Error is why the exit code is not 0.
type Error struct {
	// Health is Unhealthy or Undecidable.
	Health Health
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is 1 for what is wrong and 2 for what could not be found out.
func (e *Error) ExitCode() int {
	if e.Health == Unhealthy {
		return 1
	}
	return 2
}

// err is nil for a healthy report.
func (r *Report) err() error {
	if r.Health == Healthy {
		return nil
	}
	return &Error{r.Health, errors.New(r.line())}
}

// line says in one line what is wrong and what to do.
func (r *Report) line() string {
	if r.Remedy == "" {
		return r.Finding
	}
	return fmt.Sprintf("%s; %s", r.Finding, r.Remedy)
}
