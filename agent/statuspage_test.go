package agent_test

import (
	"strings"
	"testing"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
)

// shows waits until a page has all of these texts.
func shows(s *agenttest.Stage, page string, texts ...string) {
	s.T.Helper()
	var code int
	var body string
	s.Eventually("the page to show "+strings.Join(texts, ", "), func() bool {
		code, body = s.Fetch(page)
		for _, text := range texts {
			if !strings.Contains(body, text) {
				return false
			}
		}
		return code == 200
	}, func() any { return body })
}

func TestEachAgentServesTheStatusPageAndSaysWhetherItActs(t *testing.T) {
	s := agenttest.New(t)
	s.Env["APP_LEADER_ELECTION"] = "true"
	first := s.Start()
	shows(s, first.Page, "This agent acts.", "this cluster is not paired with Compass")
	s.Configure()
	s.InState(compassv1alpha1.Synchronized)
	second := s.Start()
	for page, says := range map[string]string{first.Page: "This agent acts.", second.Page: "This agent stands by"} {
		shows(s, page, says, "<title>Healthy · Application Connector</title>", "<bdi>Synchronized</bdi>", "<bdi>mp-shop</bdi>", "<b><bdi>Paired</bdi></b>", "of the validity are over")
		shows(s, page+"/status.json", `"health": "Healthy"`, `"name": "mp-shop"`)
	}
	// The canary is in a credential of the Application that the page shows: the end of the test looks for it.
}

func TestWithoutAnAddressThereIsNoStatusPage(t *testing.T) {
	s := agenttest.New(t)
	s.Env["APP_STATUS_PAGE_ADDRESS"] = "off"
	if r := s.Start(); r.Page != "" {
		t.Errorf("served at %s", r.Page)
	}
}
