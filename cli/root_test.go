package cli_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/cli"
	"github.com/application-connector/application-connector/e2e/leaktest"
)

// token is what somebody gives to a flag.
const token = "a-token-in-an-argument-17f3"

// run runs the command line and returns its exit code and what it wrote.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = cli.Run(args, strings.NewReader(""), &out, &errOut)
	watch := leaktest.Of(t)
	watch.Add("a token in an argument", token)
	watch.Told("standard output", out.String())
	watch.Told("standard error", errOut.String())
	return code, out.String(), errOut.String()
}

func TestMistakesAreOneLineThatSaysWhatToDo(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	for _, tc := range []struct {
		name string
		args []string
		says string
	}{
		{"unknown command", []string{"appconn", "stauts"}, `appconn: unknown command "stauts"; "appconn --help" says what there is`},
		{"unknown flag", []string{"appconn", "status", "--wach"}, `appconn: unknown flag: --wach; "appconn status --help" says what there is`},
		{"a secret in a flag with a typing error", []string{"appconn", "up", "--tokne=" + token}, `appconn: unknown flag: --tokne; "appconn up --help" says what there is`},
		{"argument too many", []string{"appconn", "status", "now"}, `appconn: unknown command "now" for "appconn status"; "appconn status --help" says what there is`},
		{"wrong value", []string{"appconn", "status", "-o", "xml"}, `appconn: --output "xml": one of table, wide, json, yaml is needed`},
		{"as a plugin", []string{"/usr/bin/kubectl-appconn", "status", "--wach"}, `appconn: unknown flag: --wach; "kubectl appconn status --help" says what there is`},
		{"unreadable kubeconfig", []string{"appconn", "status", "--kubeconfig", missing}, "appconn: the kubeconfig cannot be used: stat " + missing +
			": no such file or directory; name a file by --kubeconfig or KUBECONFIG, and a context in it by --context"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := run(t, tc.args...)
			if code != 2 || stdout != "" || stderr != tc.says+"\n" {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 2, nothing, %q", code, stdout, stderr, tc.says+"\n")
			}
		})
	}
}

func TestHelpAndVersionGoToStdout(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"no arguments", []string{"appconn"}, "Available Commands:"},
		{"help", []string{"appconn", "--help"}, "Available Commands:"},
		{"help of a command", []string{"appconn", "status", "--help"}, "The exit code is 0 when all is well"},
		{"version", []string{"appconn", "--version"}, "appconn "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := run(t, tc.args...)
			if code != 0 || stderr != "" || !strings.Contains(stdout, tc.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 0 and %q on stdout", code, stdout, stderr, tc.want)
			}
		})
	}
}
