package status_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/cli/status"
	"github.com/application-connector/application-connector/e2e/kubetest"
)

func TestWhatCannotBeReadSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig := func(change func(*rest.Config)) string {
		c := rest.CopyConfig(&cfg)
		change(c)
		path, err := kubetest.Kubeconfig(c, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	const advice = "; name a file by --kubeconfig or KUBECONFIG, and a context in it by --context"
	for _, tc := range []struct {
		name string
		args []string
		says []string
	}{
		{"no such file", []string{"--kubeconfig", filepath.Join(dir, "none")}, []string{"the kubeconfig cannot be used: ", "no such file", advice}},
		{"not a kubeconfig", []string{"--kubeconfig", file("broken", "a: [\n")}, []string{"the kubeconfig cannot be used: ", "broken", advice}},
		{"empty", []string{"--kubeconfig", file("empty", "")}, []string{"the kubeconfig cannot be used: it names no cluster", advice}},
		{"no such context", []string{"--kubeconfig", kubeconfig(func(*rest.Config) {}), "--context", "other"}, []string{"the kubeconfig cannot be used: ", `"other"`, advice}},
		{"no such server", []string{"--kubeconfig", kubeconfig(func(c *rest.Config) { c.Host = "https://" + closed })}, []string{"the cluster cannot be read: ", "connection refused", "; is it the right --context, and does the server run?"}},
		{"wrong token", []string{"--kubeconfig", kubeconfig(func(c *rest.Config) { c.BearerToken = "wrong" })}, []string{"the cluster cannot be read: ", "; the cluster does not know who you are"}},
		{"not allowed", []string{"--kubeconfig", kubeconfig(func(*rest.Config) {}), "--as", "somebody"}, []string{"the cluster cannot be read: ", "forbidden", "; get, list and watch on compassconnections and applications are needed"}},
		{"unknown format", []string{"-o", "xml"}, []string{`--output "xml": one of table, wide, json, yaml is needed`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, _, err := run(t, tc.args...)
			if code := exitCode(t, err); code != 2 {
				t.Fatalf("exit code %d (%v), want 2", code, err)
			}
			if out != "" {
				t.Errorf("stdout %q, want nothing", out)
			}
			for _, want := range tc.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestEveryFlagStandsInTheReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/appconn-status.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, flags []string
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	fs := pflag.NewFlagSet("status", pflag.ContinueOnError)
	status.NewOptions(genericiooptions.NewTestIOStreamsDiscard()).BindFlags(fs)
	fs.VisitAll(func(f *pflag.Flag) { flags = append(flags, f.Name) })
	if diff := cmp.Diff(flags, documented); diff != "" {
		t.Errorf("flags in docs/reference/appconn-status.md (-code +docs):\n%s", diff)
	}
}
