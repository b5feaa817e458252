package connection

// Action is what one reconcile does about Compass.
type Action string

// Actions.
const (
	// Wait calls nobody before the next attempt is due.
	Wait Action = "Wait"
	// Stall calls nobody until somebody changes something; the row says what.
	Stall Action = "Stall"
	// Adopt makes a CompassConnection for the certificate that the cluster has.
	Adopt Action = "Adopt"
	// Finish ends a pairing or a renewal whose certificate is current already.
	Finish Action = "Finish"
	// Promote makes an issued certificate current that waits in the pending Secret.
	Promote Action = "Promote"
	// Sign continues a pairing with the second token of the pending Secret.
	Sign Action = "Sign"
	// Pair begins a pairing with the token of the configuration Secret.
	Pair Action = "Pair"
	// Renew gets a new certificate by the current one.
	Renew Action = "Renew"
	// Leave has the certificate revoked and deletes what came from Compass.
	Leave Action = "Leave"
	// Rest does nothing, and makes no CompassConnection.
	Rest Action = "Rest"
	// Sync reads a snapshot and brings it into place.
	Sync Action = "Sync"
)

// calls: the action is an attempt at Compass.
func (a Action) calls() bool {
	switch a {
	case Wait, Stall, Adopt, Finish, Rest:
		return false
	}
	return true
}

// Situation is everything that the decision depends on.
type Situation struct {
	// ConfigurationMissing says what the configuration Secret lacks for a sync; empty if it has all.
	ConfigurationMissing string
	// Token: there is a one-time token. TokenNew: it was never tried. TokenSpent: it is the one that the current, or the
	// last, certificate was had by.
	Token, TokenNew, TokenSpent bool
	// PendingToken: the pending Secret holds a key and a second token. PendingIssued: it holds an issued certificate.
	// PendingBegun: a pairing by this token was begun, and the process ended before it told what became of it.
	PendingToken, PendingIssued, PendingBegun bool
	// PendingCurrent: the certificate that the pending Secret holds is the one in the client Secret.
	PendingCurrent bool
	// Certificate: there is a client certificate that is valid by its dates. Rejected: Compass refuses it, beyond doubt.
	// Foreign: it was issued for another runtime or tenant than the configuration Secret names.
	Certificate, Rejected, Foreign bool
	// Connection: the CompassConnection exists. Told: it says what became of an attempt. URLs: it is known where Compass is
	// reached with the certificate.
	Connection, Told, URLs bool
	// Due: the next attempt is due. Asked: something was asked for, or a new token came, since the last attempt: that
	// passes the waiting time, once.
	Due, Asked bool
	// Leaving: the CompassConnection is being deleted, and its farewell is to revoke. Left: that was done before, and no
	// pairing followed.
	Leaving, Left bool
	// RenewalDue and RenewalAsked: a new certificate is wanted by its dates, or by a person.
	RenewalDue, RenewalAsked bool
}

// usable: the certificate is worth a call. One that Compass refuses is tried again as long as nothing better is there:
// the refusal may be an outage that looks like one. With the certificate of another runtime Compass answers as if all were
// well, only that what it names is not this cluster's: such a certificate is never used. Whoever deletes the
// CompassConnection and has written a token wants to pair, also if the process died when it had made it again. A pairing that was begun for one of these reasons is ended first:
// its second token is good for an hour, and the certificate of before stays until the new one works.
func (s Situation) usable() bool {
	return s.Certificate && !s.Foreign && !s.PendingToken && !s.PendingBegun && !(s.TokenNew && (s.Rejected || !s.Told))
}

// stranded: the certificate is that of another runtime, and nothing is there that could give one for this.
func (s Situation) stranded() bool {
	return s.Certificate && s.Foreign && !s.PendingToken && !s.PendingIssued && (!s.Token || s.TokenSpent)
}

func (s Situation) renewal() bool { return s.URLs && (s.RenewalAsked || s.RenewalDue) }

// Row is one line of the decision table.
type Row struct {
	// Name says when the row applies, for people.
	Name string
	// When reports whether it applies.
	When func(Situation) bool
	// Do is what is done then.
	Do Action
	// Why is told as the reason of waiting when Do is Stall.
	Why string
}

// Table decides: the first row that applies counts. The last one always does. docs/connection.md has it for people.
var Table = []Row{
	{Name: "the issued certificate in the pending Secret is current already: a crash came before the end",
		When: func(s Situation) bool { return s.PendingCurrent }, Do: Finish},
	{Name: "the CompassConnection is being deleted with the farewell Revoke, and the next attempt is due or this is the first",
		When: func(s Situation) bool { return s.Leaving && (s.Due || s.Asked) }, Do: Leave},
	{Name: "the CompassConnection is being deleted with the farewell Revoke",
		When: func(s Situation) bool { return s.Leaving }, Do: Wait},
	{Name: "the CompassConnection was deleted with the farewell Revoke, and there is no token that was never tried",
		When: func(s Situation) bool { return s.Left && !s.Connection && !s.TokenNew && !s.usable() }, Do: Rest},
	{Name: "the CompassConnection is missing, there is a certificate with what belongs to it, and no token that was never tried",
		When: func(s Situation) bool { return !s.Connection && s.usable() && s.URLs }, Do: Adopt},
	{Name: "the certificate is of another runtime or tenant than the configuration Secret names, no unused token, and no renewal is due",
		When: func(s Situation) bool { return s.stranded() && !s.renewal() }, Do: Stall,
		Why: "the client certificate belongs to another runtime or tenant than the configuration Secret names"},
	{Name: "the next attempt is not due, and nothing was asked for",
		When: func(s Situation) bool { return !s.Due && !s.Asked }, Do: Wait},
	{Name: "an issued certificate waits to become current",
		When: func(s Situation) bool { return s.PendingIssued }, Do: Promote},
	{Name: "the certificate is of another runtime or tenant than the configuration Secret names, no unused token, and a renewal is due",
		When: func(s Situation) bool { return s.stranded() }, Do: Renew},
	{Name: "no usable certificate, a pairing was begun, and there is no newer token",
		When: func(s Situation) bool { return !s.usable() && s.PendingToken && !s.TokenNew }, Do: Sign},
	{Name: "no usable certificate, and a token that gave one before",
		When: func(s Situation) bool { return !s.usable() && s.Token && s.TokenSpent }, Do: Stall,
		Why: "there is no usable client certificate, and the one-time token in the configuration Secret is used up"},
	{Name: "no usable certificate, and a token",
		When: func(s Situation) bool { return !s.usable() && s.Token }, Do: Pair},
	{Name: "no usable certificate, and no token",
		When: func(s Situation) bool { return !s.usable() }, Do: Stall,
		Why: "there is no usable client certificate, and no one-time token in the configuration Secret"},
	{Name: "a certificate, but nothing says where Compass is, and a token",
		When: func(s Situation) bool { return !s.URLs && s.Token && !s.TokenSpent }, Do: Pair},
	{Name: "a certificate, but nothing says where Compass is",
		When: func(s Situation) bool { return !s.URLs }, Do: Stall,
		Why: "nothing says where Compass is reached with the client certificate"},
	{Name: "a renewal was asked for, or is due",
		When: func(s Situation) bool { return s.RenewalAsked || s.RenewalDue }, Do: Renew},
	{Name: "the configuration Secret lacks what a sync needs",
		When: func(s Situation) bool { return s.ConfigurationMissing != "" }, Do: Stall, Why: "the configuration Secret is not complete"},
	{Name: "otherwise", When: func(Situation) bool { return true }, Do: Sync},
}

// Decide gives the row of Table that applies.
func Decide(s Situation) Row {
	for _, row := range Table {
		if row.When(s) {
			return row
		}
	}
	panic("unreachable: the last row of the table always applies")
}
