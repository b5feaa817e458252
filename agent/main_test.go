package agent_test

import (
	"testing"

	"github.com/application-connector/application-connector/e2e/agenttest"
)

func TestMain(m *testing.M) { agenttest.Run(m) }
