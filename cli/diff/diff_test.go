package diff_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/agent/sync/plan"
	"github.com/application-connector/application-connector/cli/diff"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/secret"
)

const kubeconfig = `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
 "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}]}`

const hush = "a-password-of-the-plan"

var changed = plan.Plan{
	Total: 3,
	Steps: []plan.Step{
		{Action: plan.Keep, Name: "mp-quiet", ID: "0", System: "Quiet"},
		{Action: plan.Update, Name: "mp-shop", ID: "1", System: "Shop", Changes: []string{"spec.description"}, Secrets: []plan.SecretStep{
			{Action: plan.Create, Name: "mp-shop-b", Data: map[string]secret.Value{"password": hush}},
		}},
	},
	Failures: []plan.Failure{{ID: "2", System: "B\x1b[31mad", Reason: "InvalidName", Message: "cannot be"}},
}

func run(t *testing.T, p plan.Plan, err error, env map[string]string, args ...string) (seen agent.Options, out string, failure error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	o := diff.NewOptions(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &stdout, ErrOut: &stdout})
	o.Getenv = func(name string) string { return env[name] }
	o.Preview = func(_ context.Context, options agent.Options) (plan.Plan, error) {
		seen = options
		return p, err
	}
	cmd := o.Command()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(append([]string{"--kubeconfig", path}, args...))
	failure = cmd.ExecuteContext(t.Context())
	watch := leaktest.Of(t)
	watch.Add("a password", hush)
	watch.Told("output of appconn diff", stdout.String())
	watch.Told("error of appconn diff", fmt.Sprint(failure))
	return seen, stdout.String(), failure
}

func code(err error) int {
	var coded interface{ ExitCode() int }
	if err == nil {
		return 0
	}
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return -1
}

func TestTheExitCodeSaysWhetherTheNextSyncChangesAnything(t *testing.T) {
	for name, test := range map[string]struct {
		plan plan.Plan
		err  error
		env  map[string]string
		args []string
		code int
		says string
	}{
		"nothing to do":          {plan: plan.Plan{Total: 2}, code: 0, says: "nothing to do: 2 systems are in the cluster as Compass says\n"},
		"something to do":        {plan: changed, code: 1, says: "update application mp-shop (spec.description)\n  create secret mp-shop-b\nfail B"},
		"only a failure":         {plan: plan.Plan{Failures: changed.Failures}, code: 1, says: "InvalidName"},
		"only what is kept":      {plan: plan.Plan{Kept: 1, PruneBlocked: "too many"}, code: 1, says: "keep 1 applications: too many\n"},
		"an incomplete answer":   {plan: plan.Plan{Total: 2, Incomplete: "page 2"}, code: 1, says: "incomplete: the answer of Compass was not whole, so nothing would be deleted; Compass: page 2\n"},
		"Compass cannot be read": {err: errors.New("no answer"), code: 2},
		"a wrong variable":       {env: map[string]string{"APP_PRUNE_GUARD_COUNT": "x"}, code: 2},
		"a wrong format":         {args: []string{"-o", "yaml"}, code: 2},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := run(t, test.plan, test.err, test.env, test.args...)
			if code(err) != test.code || !strings.HasPrefix(out, test.says) && !strings.Contains(out, test.says) {
				t.Errorf("exit code %d, error %v, output %q", code(err), err, out)
			}
			if strings.Contains(out, hush) || strings.Contains(out, "\x1b") {
				t.Errorf("output %q", out)
			}
		})
	}
}

func TestJSONHoldsWhatAndWhyAndNoSecret(t *testing.T) {
	_, out, err := run(t, changed, nil, nil, "-o", "json")
	if code(err) != 1 || strings.Contains(out, hush) || strings.Contains(out, "mp-quiet") {
		t.Errorf("error %v, output %s", err, out)
	}
	var got struct {
		Total   int
		Changes []struct {
			Action, Application, ID, System string
			Why                             []string
			Secrets                         []struct{ Action, Name string }
		}
		Failures []struct{ ID, System, Reason, Message string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Changes) != 1 || got.Changes[0].Application != "mp-shop" || got.Changes[0].Why[0] != "spec.description" ||
		got.Changes[0].Secrets[0].Name != "mp-shop-b" || len(got.Failures) != 1 || got.Failures[0].Reason != "InvalidName" || got.Total != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestTheAgentsVariablesCount(t *testing.T) {
	seen, _, _ := run(t, plan.Plan{}, nil, map[string]string{"APP_INTEGRATION_NAMESPACE": "other"})
	if seen.IntegrationNamespace != "other" || seen.Guard.Count != plan.DefaultGuardCount || seen.Kubernetes == nil || seen.Kubernetes.Host != "https://127.0.0.1:1" {
		t.Errorf("options %+v", seen)
	}
}

func TestTheReferenceListsEveryFlagAndExitCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/appconn-diff.md")
	if err != nil {
		t.Fatal(err)
	}
	diff.NewCommand(genericiooptions.NewTestIOStreamsDiscard()).Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(string(page), "`--"+f.Name+"`") {
			t.Errorf("the page does not have --%s", f.Name)
		}
	})
	for _, row := range []string{"| 0 |", "| 1 |", "| 2 |"} {
		if !strings.Contains(string(page), row) {
			t.Errorf("the page does not have %q", row)
		}
	}
}
