package up

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func options(t *testing.T, args ...string) (*Options, error) {
	t.Helper()
	o := &Options{}
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	o.BindFlags(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if err := o.Complete(); err != nil {
		return nil, err
	}
	return o, o.Validate()
}

func TestAWrongOptionIsNamedTogetherWithWhatWouldBeRight(t *testing.T) {
	unreadable := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(unreadable, []byte("not: [a kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"a flag that does not exist":                {[]string{"--onec"}, []string{"unknown flag: --onec"}},
		"a kubeconfig that does not exist":          {[]string{"--kubeconfig", "/nowhere"}, []string{"--kubeconfig /nowhere", "no such file", "leave the flag out"}},
		"a kubeconfig that is not one":              {[]string{"--kubeconfig", unreadable}, []string{"--kubeconfig " + unreadable, "name a file"}},
		"a level that is none":                      {[]string{"--log-level", "loud"}, []string{`--log-level is "loud"`, "debug, info, warn or error"}},
		"no time":                                   {[]string{"--timeout", "0s"}, []string{"--timeout is 0s", "more than 0"}},
		"a token without a Compass":                 {[]string{"--token", "t"}, []string{"--token needs --connector-url"}},
		"a Compass without a token":                 {[]string{"--connector-url", "https://c.example.com/x", "--runtime-id", "r", "--tenant", "t"}, []string{"needs --token too"}},
		"a Compass without TLS":                     {[]string{"--connector-url", "http://c.example.com/x"}, []string{"must be an https URL"}},
		"an authority of Compass that is not there": {[]string{"--connector-url", "https://c.example.com/x", "--token", "t", "--runtime-id", "r", "--tenant", "t", "--compass-ca", "/nowhere"}, []string{"--compass-ca", "no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := options(t, c.args...)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestAPortThatIsTakenIsNamedTogetherWithWhoWantsIt(t *testing.T) {
	l, err := net.Listen("tcp", address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	before := documentedPorts
	documentedPorts.Eventing = taken
	t.Cleanup(func() { documentedPorts = before })
	for _, p := range documentedPorts.named() { // the others need to be free for the test to be about this one
		if *p.port != taken {
			*p.port = 0
		}
	}
	_, err = choosePorts(false)
	want := "port " + strconv.Itoa(taken) + ", for Eventing, is taken: stop what listens there, or use --free-ports"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	chosen, err := choosePorts(true)
	if err != nil {
		t.Fatalf("with --free-ports: %v", err)
	}
	distinct := map[int]bool{}
	for _, p := range chosen.named() {
		distinct[*p.port] = true
	}
	if len(distinct) != len(chosen.named()) || len(distinct) > block {
		t.Errorf("with --free-ports: %+v", chosen)
	}
}

func TestAProgramThatEndsByItselfIsReportedWithItsLastWords(t *testing.T) {
	s := newSupervisor(t.TempDir())
	if _, err := s.start("agent", "/bin/sh", []string{"-c", "echo first; echo the reason >&2; exit 3"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-s.failed; err.Error() != "agent ended by itself: the reason" {
		t.Errorf("got %q", err)
	}
	if err := s.stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStoppingEndsProgramsInReverseOrderAndReportsNoneOfThem(t *testing.T) {
	dir := t.TempDir()
	s := newSupervisor(dir)
	order := filepath.Join(dir, "order")
	ready := filepath.Join(dir, "ready")
	for _, name := range []string{"first", "second"} {
		script := "trap 'echo " + name + " >> " + order + "; exit 0' TERM; touch " + ready + name + "; while :; do sleep 0.01; done"
		if _, err := s.start(name, "/bin/sh", []string{"-c", script}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := until(t.Context(), func() error { _, err := os.Stat(ready + name); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(order)
	if err != nil || string(got) != "second\nfirst\n" {
		t.Errorf("ended in the order %q (%v)", got, err)
	}
	select {
	case err := <-s.failed:
		t.Errorf("reported: %v", err)
	default:
	}
}

func TestASecondInterruptKillsAProgramThatDoesNotEnd(t *testing.T) {
	s := newSupervisor(t.TempDir())
	p, err := s.start("deaf", "/bin/sh", []string{"-c", "trap '' TERM; while :; do sleep 0.01; done"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, impatient := context.WithCancel(t.Context())
	impatient()
	if err := s.stop(ctx); err != nil {
		t.Error(err)
	}
	<-p.done
}

func TestTheTourStopsAtTheFirstStepThatDoesNotHoldAndNamesIt(t *testing.T) {
	for name, c := range map[string]struct {
		stop stop
		want string
	}{
		"a command that succeeds":                       {stop{title: "a", command: "echo $X", want: []string{"^from the preamble\n$"}}, ""},
		"a command that fails":                          {stop{title: "a", command: "echo no; exit 1"}, "a: exit status 1; it showed: no\n"},
		"an output that does not match":                 {stop{title: "a", command: "echo no", want: []string{"yes"}}, "a: the output does not match \"yes\": no\n"},
		"an output that holds what it must not":         {stop{title: "a", command: "echo secret", absent: []string{"secret"}}, "a: the output holds \"secret\": secret\n"},
		"a caller that is turned away, as it should be": {stop{title: "a", command: "echo 403; exit 1", want: []string{"403"}, refused: true}, ""},
		"a caller that is let in, but should not be":    {stop{title: "a", command: "echo 403", want: []string{"403"}, refused: true}, "a: it was let in, and showed: 403\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			after := stop{title: "b", command: "echo second"}
			err := runTour(t.Context(), newProgress(&out), []string{"X='from the preamble'"}, []chapter{{title: "One", stops: []stop{c.stop, after}}})
			if c.want == "" {
				if err != nil || !strings.Contains(out.String(), "second") {
					t.Errorf("got %v and %s", err, out.String())
				}
				return
			}
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if strings.Contains(out.String(), "second") {
				t.Errorf("went on after the failure: %s", out.String())
			}
		})
	}
}

func TestTrafficCountsEveryCallAndTellsOfTheFirstFailure(t *testing.T) {
	var n atomic.Int32
	enough := make(chan struct{})
	tr := startTraffic(t.Context(), []call{{name: "gateway", do: func(context.Context) error {
		switch n.Add(1) {
		case 2:
			return errors.New("second call")
		case 4:
			close(enough)
		}
		return nil
	}}})
	select {
	case <-enough:
	case <-time.After(time.Minute):
		t.Fatal("no traffic")
	}
	sent, err := tr.stop()
	if sent < 4 || err == nil || !strings.HasSuffix(err.Error(), "calls failed, the first: gateway: second call") {
		t.Errorf("got %d, %v", sent, err)
	}
}

func TestWaitingEndsAtOnceWhenWhatIsWaitedForWillNotCome(t *testing.T) {
	err := until(t.Context(), func() error { return finalError{errors.New("refused")} })
	if err == nil || err.Error() != "refused" {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err = until(ctx, func() error { return errors.New("not yet") })
	if err == nil || err.Error() != "gave up waiting: not yet" {
		t.Errorf("got %v", err)
	}
}

func TestASecretThatSomebodyElseWroteIsLeftAlone(t *testing.T) {
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: istioNamespace, Name: serverSecret}, Data: map[string][]byte{"tls.key": []byte("in use")}}
	c := fake.NewClientBuilder().WithObjects(foreign).Build()
	err := writeSecret(t.Context(), c, istioNamespace, serverSecret, corev1.SecretTypeTLS, map[string][]byte{"tls.key": []byte("ours")})
	want := "Secret istio-system/kyma-gateway-certs was not written by appconn up and is left alone: use a cluster that is not connected yet"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	kept := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(foreign), kept); err != nil || string(kept.Data["tls.key"]) != "in use" {
		t.Errorf("the Secret holds %q (%v)", kept.Data["tls.key"], err)
	}
	for _, value := range []string{"first", "second"} {
		if err := writeSecret(t.Context(), c, systemNamespace, configurationSecret, corev1.SecretTypeOpaque, map[string][]byte{"TOKEN": []byte(value)}); err != nil {
			t.Fatal(err)
		}
		ours := &corev1.Secret{}
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: configurationSecret}, ours); err != nil || string(ours.Data["TOKEN"]) != value {
			t.Errorf("our own Secret holds %q, want %q (%v)", ours.Data["TOKEN"], value, err)
		}
	}
}

func TestProgramsDoNotInheritSettingsThatWereMeantForOthers(t *testing.T) {
	got := inherited([]string{"PATH=/bin", "APPCONN_TOKEN=secret", "APP_SKIP_COMPASS_TLS_VERIFY=true", "HOME=/home/me"})
	if want := []string{"PATH=/bin", "HOME=/home/me"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAStateKeepsItsPorts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ports.json")
	first, err := keptPorts(file, true)
	if err != nil {
		t.Fatal(err)
	}
	second, err := keptPorts(file, false)
	if err != nil || second != first {
		t.Errorf("got %+v (%v), want %+v", second, err, first)
	}
	l, err := net.Listen("tcp", address(first.Edge))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := keptPorts(file, true); err == nil || !strings.Contains(err.Error(), "for the edge, is taken") || !strings.Contains(err.Error(), "needs the same ports again") {
		t.Errorf("with a port taken: %v", err)
	}
	if err := os.WriteFile(file, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keptPorts(file, true); err == nil || !strings.Contains(err.Error(), "name another folder by --state") {
		t.Errorf("with a broken file: %v", err)
	}
}
