package agent_test

import (
	"strings"
	"testing"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// shows waits until a page has all of these texts.
func (s *stage) shows(page string, texts ...string) {
	s.t.Helper()
	var code int
	var body string
	s.eventually("the page to show "+strings.Join(texts, ", "), func() bool {
		code, body = s.fetch(page)
		for _, text := range texts {
			if !strings.Contains(body, text) {
				return false
			}
		}
		return code == 200
	}, func() any { return body })
}

func TestEachAgentServesTheStatusPageAndSaysWhetherItActs(t *testing.T) {
	s := newStage(t)
	s.env["APP_LEADER_ELECTION"] = "true"
	first := s.start()
	s.shows(first.page, "This agent acts.", "this cluster is not paired with Compass")
	s.configure()
	s.inState(compassv1alpha1.Synchronized)
	second := s.start()
	for page, says := range map[string]string{first.page: "This agent acts.", second.page: "This agent stands by"} {
		s.shows(page, says, "<title>Healthy · Application Connector</title>", "<bdi>Synchronized</bdi>", "<bdi>mp-shop</bdi>", "<b><bdi>Paired</bdi></b>", "of the validity are over")
		s.shows(page+"/status.json", `"health": "Healthy"`, `"name": "mp-shop"`)
	}
	// The canary is in a credential of the Application that the page shows: the end of the test looks for it.
}

func TestWithoutAnAddressThereIsNoStatusPage(t *testing.T) {
	s := newStage(t)
	s.env["APP_STATUS_PAGE_ADDRESS"] = "off"
	if r := s.start(); r.page != "" {
		t.Errorf("served at %s", r.page)
	}
}
