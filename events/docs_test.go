package events_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
)

const reference = "../docs/reference/validator.md"

// table returns the cells of the table under a heading, row by row, without back quotes; alternatives in a cell's first
// column separated by commas become rows of their own.
func table(t *testing.T, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var rows [][]string
	for _, line := range strings.Split(section, "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		for _, first := range strings.Split(cells[0], ", ") {
			rows = append(rows, append([]string{first}, cells[1:]...))
		}
	}
	return rows
}

// columns gives the cell of one column by that of the first.
func columns(rows [][]string, value int) map[string]string {
	m := map[string]string{}
	for _, row := range rows {
		m[row[0]] = row[value]
	}
	return m
}

func TestReferenceHoldsEveryFlag(t *testing.T) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	events.NewOptions().BindFlags(fs)
	want := map[string]string{"--version": "false"}
	fs.VisitAll(func(f *flag.Flag) { want["--"+f.Name] = f.DefValue })
	if d := cmp.Diff(want, columns(table(t, "Flags"), 1)); d != "" {
		t.Errorf("(-code +reference)\n%s", d)
	}
}

func TestReferenceHoldsTheEnvironment(t *testing.T) {
	o := events.NewOptions()
	want := map[string]string{events.EnvLogFormat: o.LogFormat, events.EnvLogLevel: o.LogLevel}
	if d := cmp.Diff(want, columns(table(t, "Environment"), 1)); d != "" {
		t.Errorf("(-code +reference)\n%s", d)
	}
	for _, row := range table(t, "Environment") {
		for _, value := range strings.Split(row[2], ", ") {
			o := events.NewOptions()
			o.Complete(func(k string) (string, bool) { return value, k == row[0] })
			if err := o.Validate(); err != nil {
				t.Errorf("%s=%s: %v", row[0], value, err)
			}
		}
	}
}

func TestReferenceHoldsEverySourcePolicy(t *testing.T) {
	for policy := range columns(table(t, "Source"), 1) {
		o := events.NewOptions()
		o.SourcePolicy = policy
		if err := o.Validate(); err != nil {
			t.Error(err)
		}
	}
	if n := len(table(t, "Source")); n != 4 {
		t.Errorf("%d policies", n)
	}
}

// TestReferenceHoldsEveryReason reads the constants of type Reason out of the source.
func TestReferenceHoldsEveryReason(t *testing.T) {
	var want []string
	for _, dir := range []string{"proxy", "identity", "binding", "denial"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok {
					return true
				}
				if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Reason" {
					for _, v := range spec.Values {
						text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
						if err != nil {
							t.Fatal(err)
						}
						want = append(want, text)
					}
				}
				return true
			})
		}
	}
	slices.Sort(want)
	if d := cmp.Diff(want, slices.Sorted(maps.Keys(columns(table(t, "Answers"), 1)))); d != "" {
		t.Errorf("(-code +reference)\n%s", d)
	}
}

// withCertificate is X-Forwarded-Client-Cert of a client whose certificate the edge forwards.
func withCertificate(t *testing.T, cn string) string {
	t.Helper()
	c := certificate(t, newAuthority(t, "clients"), authority.Request{Subject: pkix.Name{CommonName: cn}})
	element, err := envoy.Element(&x509.Certificate{}, c.Leaf, true)
	if err != nil {
		t.Fatal(err)
	}
	return element + gateway
}

// TestReferenceHoldsEveryMetricAndAuditField makes a validator use all of them and compares.
func TestReferenceHoldsEveryMetricAndAuditField(t *testing.T) {
	noLeaks(t)
	log := &leaktest.Log{}
	c := kube(t)
	create(t, c, application("documented-shop", func(a *v1alpha1.Application) { a.Labels = map[string]string{"application-type": "other"} }))
	s := running(t, options(t, publisher(t).URL), log)
	eventually(t, "known", func() bool { return send(t, s, "documented-shop", "documented-shop") == 204 })
	for _, change := range []func(http.Header){
		func(h http.Header) { h.Set("Ce-Source", "foreign") },
		func(h http.Header) { h.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") },
		func(h http.Header) { h.Set("X-Forwarded-Client-Cert", "broken") },
		func(h http.Header) { h.Set("X-Forwarded-Client-Cert", withCertificate(t, "documented-shop")) },
	} {
		r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/documented-shop/events", s.ProxyAddr()), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{
			"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"documented-shop"}, "Ce-Type": {"t"}, "Content-Type": {"application/json"},
			"X-Forwarded-Client-Cert": {`Subject="CN=documented-shop"` + gateway},
		}
		change(r.Header)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}

	got, err := http.Get(fmt.Sprintf("http://%s/metrics", s.AdminAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	types := regexp.MustCompile(`(?m)^# TYPE (validator_\S+) (\S+)$`)
	series := regexp.MustCompile(`(?m)^(validator_[a-z_]+?)(_bucket|_sum|_count)?(\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z]+)="`)
	want := map[string]string{}
	for _, m := range types.FindAllStringSubmatch(string(text), -1) {
		want[m[1]] = m[2] + ": "
	}
	for _, m := range series.FindAllStringSubmatch(string(text), -1) {
		name := m[1]
		if _, ok := want[name]; !ok {
			t.Fatalf("a series without a type: %s", m[0])
		}
		kind, _, _ := strings.Cut(want[name], ": ")
		var labels []string
		for _, l := range label.FindAllStringSubmatch(m[4], -1) {
			if l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		slices.Sort(labels)
		want[name] = kind + ": " + strings.Join(labels, ", ")
	}
	documented := map[string]string{}
	for _, row := range table(t, "Metrics") {
		labels := strings.Split(row[2], ", ")
		slices.Sort(labels)
		documented[row[0]] = row[1] + ": " + strings.Join(labels, ", ")
	}
	if d := cmp.Diff(want, documented); d != "" {
		t.Errorf("metrics (-code +reference)\n%s", d)
	}

	fields := map[string]bool{}
	for _, line := range strings.Split(log.String(), "\n") {
		if strings.Contains(line, `"event request"`) {
			for _, m := range regexp.MustCompile(`"([A-Za-z]+)":`).FindAllStringSubmatch(line, -1) {
				fields[m[1]] = true
			}
		}
	}
	for _, common := range []string{"time", "level", "msg"} {
		delete(fields, common)
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(columns(table(t, "Audit"), 1)))); d != "" {
		t.Errorf("audit (-code +reference)\n%s", d)
	}
}
