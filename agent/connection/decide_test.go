package connection_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/application-connector/application-connector/agent/connection"
)

func TestEveryRowOfTheTableDecides(t *testing.T) {
	type s = connection.Situation
	paired := s{Token: true, TokenSpent: true, Certificate: true, Connection: true, Told: true, URLs: true, Due: true}
	with := func(base s, edits ...func(*s)) s {
		for _, edit := range edits {
			edit(&base)
		}
		return base
	}
	foreign := with(paired, func(s *s) { s.Foreign = true })
	bare := s{Connection: true, Due: true}
	reached := map[string]bool{}
	for _, test := range []struct {
		name      string
		situation s
		want      connection.Action
	}{
		{"first start with a token", s{Token: true, TokenNew: true, Asked: true, Due: true}, connection.Pair},
		{"first start without anything", s{ConfigurationMissing: "x", Asked: true, Due: true}, connection.Stall},
		{"a token that was tried, and the time has come", with(bare, func(s *s) { s.Token = true }), connection.Pair},
		{"a token that was tried, and the time has not come", s{Token: true, Connection: true}, connection.Wait},
		{"a new token does not wait", s{Token: true, TokenNew: true, Connection: true, Asked: true}, connection.Pair},
		{"no certificate, and the token that gave the last one", with(bare, func(s *s) { s.Token, s.TokenSpent = true, true }), connection.Stall},
		{"no certificate and no token", bare, connection.Stall},
		{"a pairing that was begun", with(bare, func(s *s) { s.Token, s.PendingToken = true, true }), connection.Sign},
		{"a pairing that was begun, and a newer token", with(bare, func(s *s) { s.Token, s.TokenNew, s.PendingToken = true, true, true }), connection.Pair},
		{"a pairing that was begun, and no token any more", with(bare, func(s *s) { s.PendingToken = true }), connection.Sign},
		{"an issued certificate waits", with(paired, func(s *s) { s.PendingIssued = true }), connection.Promote},
		{"an issued certificate waits, and there is no other", with(bare, func(s *s) { s.PendingIssued = true }), connection.Promote},
		{"an issued certificate is current, and a crash came before the end", with(paired, func(s *s) { s.PendingIssued, s.PendingCurrent, s.Due = true, true, false }), connection.Finish},
		{"all is well and due", paired, connection.Sync},
		{"all is well and not due", with(paired, func(s *s) { s.Due = false }), connection.Wait},
		{"all is well, and a sync was asked for", with(paired, func(s *s) { s.Due, s.Asked = false, true }), connection.Sync},
		{"renewal is due", with(paired, func(s *s) { s.RenewalDue = true }), connection.Renew},
		{"renewal is due, but nothing may be tried yet", with(paired, func(s *s) { s.RenewalDue, s.Due = true, false }), connection.Wait},
		{"renewal was asked for", with(paired, func(s *s) { s.RenewalAsked, s.Asked, s.Due = true, true, false }), connection.Renew},
		{"renewal needs no configuration Secret", with(paired, func(s *s) { s.RenewalDue, s.ConfigurationMissing = true, "x" }), connection.Renew},
		{"a sync does", with(paired, func(s *s) { s.ConfigurationMissing = "x" }), connection.Stall},
		{"the CompassConnection was deleted", with(paired, func(s *s) { s.Connection = false }), connection.Adopt},
		{"deleted, and a token that was never tried", with(paired, func(s *s) { s.Connection, s.Told, s.TokenSpent, s.TokenNew, s.Asked = false, false, false, true, true }), connection.Pair},
		{"deleted, and a token that was never tried, and the process died in between", with(paired, func(s *s) { s.Told, s.TokenSpent, s.TokenNew = false, false, true }), connection.Pair},
		{"deleted, and a token that was tried", with(paired, func(s *s) { s.Connection, s.TokenSpent = false, false }), connection.Adopt},
		{"deleted, and nothing says where Compass is", with(paired, func(s *s) { s.Connection, s.Told, s.URLs, s.TokenSpent, s.TokenNew = false, false, false, false, true }), connection.Pair},
		{"nothing says where Compass is, and a token", with(paired, func(s *s) { s.URLs, s.TokenSpent = false, false }), connection.Pair},
		{"of another runtime, and a new token", with(foreign, func(s *s) { s.TokenSpent, s.TokenNew, s.Asked, s.Due = false, true, true, false }), connection.Pair},
		{"of another runtime, and a token that was tried without an answer", with(foreign, func(s *s) { s.TokenSpent = false }), connection.Pair},
		{"of another runtime, and that token is not due", with(foreign, func(s *s) { s.TokenSpent, s.Due = false, false }), connection.Wait},
		{"of another runtime, and the old token", foreign, connection.Stall},
		{"of another runtime, and no token", with(foreign, func(s *s) { s.Token, s.TokenSpent = false, false }), connection.Stall},
		{"of another runtime, not due", with(foreign, func(s *s) { s.Due = false }), connection.Stall},
		{"of another runtime, and the CompassConnection was deleted", with(foreign, func(s *s) { s.Connection = false }), connection.Stall},
		{"of another runtime, and a pairing was begun", with(foreign, func(s *s) { s.PendingToken, s.TokenSpent = true, false }), connection.Sign},
		{"of another runtime, and the certificate of this one waits", with(foreign, func(s *s) { s.PendingIssued, s.TokenSpent = true, false }), connection.Promote},
		{"of another runtime, and it is to be renewed", with(foreign, func(s *s) { s.RenewalDue = true }), connection.Renew},
		{"of another runtime, and it was not renewed a moment ago", with(foreign, func(s *s) { s.RenewalDue, s.Due = true, false }), connection.Wait},
		{"of another runtime, and it has ended", with(foreign, func(s *s) { s.Certificate = false }), connection.Stall},
		{"nothing says where Compass is, and no token helps", with(paired, func(s *s) { s.URLs = false }), connection.Stall},
		{"refused, and no new token", with(paired, func(s *s) { s.Rejected = true }), connection.Sync},
		{"refused, and a pairing by a new token was begun", with(paired, func(s *s) { s.Rejected, s.TokenSpent, s.PendingToken = true, false, true }), connection.Sign},
		{"a pairing by a new token was begun, and the process died since", with(paired, func(s *s) { s.TokenSpent, s.PendingToken = false, true }), connection.Sign},
		{"a pairing by a new token was begun, and the process died before it was answered", with(paired, func(s *s) { s.TokenSpent, s.PendingBegun = false, true }), connection.Pair},
		{"the same, and the time has not come", with(paired, func(s *s) { s.TokenSpent, s.PendingBegun, s.Due = false, true, false }), connection.Wait},
		{"refused, and a new token", with(paired, func(s *s) { s.Rejected, s.TokenSpent, s.TokenNew = true, false, true }), connection.Pair},
		{"a new token alone costs nothing", with(paired, func(s *s) { s.TokenSpent, s.TokenNew = false, true }), connection.Sync},
		{"ended, and a new token", with(paired, func(s *s) { s.Certificate, s.TokenSpent, s.TokenNew = false, false, true }), connection.Pair},
		{"deleted, and to be revoked", with(paired, func(s *s) { s.Leaving, s.Due, s.Asked = true, false, true }), connection.Leave},
		{"deleted, and to be revoked, and that failed", with(paired, func(s *s) { s.Leaving, s.Due = true, false }), connection.Wait},
		{"deleted, and to be revoked, and the time has come again", with(paired, func(s *s) { s.Leaving = true }), connection.Leave},
		{"deleted, and to be revoked, and no certificate any more", with(bare, func(s *s) { s.Leaving = true }), connection.Leave},
		{"left, and the token of that time", s{Left: true, Token: true, TokenSpent: true, Due: true, Asked: true}, connection.Rest},
		{"left, and no configuration any more", s{Left: true, ConfigurationMissing: "x", Due: true, Asked: true}, connection.Rest},
		{"left, and a new token", s{Left: true, Token: true, TokenNew: true, Due: true, Asked: true}, connection.Pair},
		{"left, and somebody made a CompassConnection", with(bare, func(s *s) { s.Left, s.Token, s.TokenSpent = true, true, true }), connection.Stall},
		{"ended, and the old token", with(paired, func(s *s) { s.Certificate = false }), connection.Stall},
	} {
		row := connection.Decide(test.situation)
		reached[row.Name] = true
		if row.Do != test.want {
			t.Errorf("%s: %s (%s), want %s", test.name, row.Do, row.Name, test.want)
		}
	}
	for _, row := range connection.Table {
		if !reached[row.Name] {
			t.Errorf("no test reaches the row %q", row.Name)
		}
		if (row.Why != "") != (row.Do == connection.Stall) {
			t.Errorf("row %q: whoever stalls says why, and nobody else", row.Name)
		}
	}
}

func TestNothingIsTriedBeforeItIsDueUnlessAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := func(name string) bool { return rapid.Bool().Draw(t, name) }
		s := connection.Situation{
			Token: b("token"), TokenNew: b("new"), TokenSpent: b("spent"), PendingToken: b("pending token"), PendingIssued: b("pending issued"),
			Certificate: b("certificate"), Rejected: b("rejected"), Connection: true, Told: b("told"), URLs: b("urls"), RenewalDue: b("due"), RenewalAsked: b("asked"),
			Foreign: b("foreign"), Leaving: b("leaving"), Left: b("left"),
		}
		if got := connection.Decide(s).Do; got != connection.Wait && !(s.Foreign && !s.Leaving && got == connection.Stall) {
			t.Fatalf("%+v: %s", s, got)
		}
	})
}

func TestTheCertificateOfAnotherRuntimeIsNeverSyncedWith(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := func(name string) bool { return rapid.Bool().Draw(t, name) }
		s := connection.Situation{
			Token: b("token"), TokenNew: b("new"), TokenSpent: b("spent"), PendingToken: b("pending token"), PendingIssued: b("pending issued"),
			Certificate: b("certificate"), Rejected: b("rejected"), Connection: b("connection"), Told: b("told"), URLs: b("urls"), RenewalDue: b("due"), RenewalAsked: b("asked"),
			Due: b("the time has come"), Asked: b("asked for"), Foreign: true,
		}
		if got := connection.Decide(s).Do; got == connection.Sync || got == connection.Adopt {
			t.Fatalf("%+v: %s", s, got)
		}
	})
}

func TestNoFailureIsFollowedSoonerThanTheFloorOrLaterThanTheBound(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		s := connection.Schedule{Floor: time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "floor")), Period: 3 * time.Minute,
			Random: func() float64 { return rapid.Float64Range(0, 0.999).Draw(t, "random") }}
		failures := rapid.Int32Range(1, 1000).Draw(t, "failures")
		wants := time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "retry after"))
		got := s.AfterFailure(now, failures, wants).Sub(now)
		if got < max(s.Floor, time.Second) || got < min(wants, time.Hour) {
			t.Fatalf("after %s: too soon", got)
		}
		if most := max(max(s.Floor, time.Second)+max(10*time.Minute, s.Floor), min(wants, time.Hour)); got > most {
			t.Fatalf("after %s: too late, the most is %s", got, most)
		}
	})
}

func TestFailuresAreFollowedLaterAndLater(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := connection.Schedule{Floor: 15 * time.Second, Random: func() float64 { return 1 }}
	var got []time.Duration
	for failures := range int32(8) {
		got = append(got, s.AfterFailure(now, failures+1, 0).Sub(now))
	}
	for i, want := range []int{30, 45, 75, 135, 255, 495, 615, 615} {
		if want := time.Duration(want) * time.Second; got[i] != want {
			t.Errorf("after %d failures: %s, want %s", i+1, got[i], want)
		}
	}
}

func TestSyncsOfManyClustersSpreadOverThePeriodAndKeepTheirPhase(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := connection.Schedule{Floor: 15 * time.Second, Period: 3 * time.Minute}
	rapid.Check(t, func(t *rapid.T) {
		identity := rapid.String().Draw(t, "identity")
		at := now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "now")))
		next := s.AfterSuccess(at, identity)
		if wait := next.Sub(at); wait < s.Period/2 || wait > s.Period*3/2 {
			t.Fatalf("next sync in %s", wait)
		}
		if again := s.AfterSuccess(next, identity).Sub(next); again != s.Period {
			t.Fatalf("the phase moves: %s", again)
		}
	})
	buckets := make([]int, 18)
	for i := range 1800 {
		next := s.AfterSuccess(now, time.Duration(i).String())
		buckets[int(next.Sub(now).Seconds()/10)%18]++
	}
	for i, n := range buckets {
		if n < 60 || n > 150 {
			t.Errorf("%d of 1800 clusters sync in ten seconds number %d of 18: not even", n, i)
		}
	}
}
