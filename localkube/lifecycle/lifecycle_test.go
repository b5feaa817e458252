package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAServerBehavesLikeACluster(t *testing.T) {
	t.Parallel()
	s := start(t)
	client, ctx := s.client(t), t.Context()
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "one"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "default ServiceAccount", func() bool {
		_, err := client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	eventually(t, "root CA ConfigMap", func() bool {
		_, err := client.CoreV1().ConfigMaps(ns.Name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil
	})
	eventually(t, "rules of the aggregated ClusterRole view", func() bool {
		view, err := client.RbacV1().ClusterRoles().Get(ctx, "view", metav1.GetOptions{})
		return err == nil && len(view.Rules) > 0
	})

	secrets := client.CoreV1().Secrets(ns.Name)
	owner, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: owner.Name, UID: owner.UID}}}
	if _, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: owned}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Delete(ctx, owner.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "collection of what a deleted object owned", func() bool {
		_, err := secrets.Get(ctx, "owned", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})

	if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "deletion of a namespace with things in it", func() bool {
		_, err := client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	s.stop(t)
}

func TestARestartOnTheSameDirectoryKeepsTheData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first := start(t, "-dir", dir)
	_, err := first.client(t).CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if code, said := refused(t, "-dir", dir); code != 1 || said != fmt.Sprintf("localkube: -dir %s: another localkube is using this directory; stop it or choose another\n", dir) {
		t.Errorf("a second instance on the directory: exit code %d, %q", code, said)
	}
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.wait(t); err != nil {
		t.Fatalf("after SIGTERM localkube ended with %v\n%s", err, first.stderr.String())
	}
	if _, err := os.Stat(first.kubeconfig); !os.IsNotExist(err) {
		t.Errorf("the kubeconfig of a server that stopped: %v, want it gone", err)
	}

	kubeconfig := filepath.Join(t.TempDir(), "mine")
	second := start(t, "-dir", dir, "-kubeconfig", kubeconfig)
	if second.kubeconfig != kubeconfig {
		t.Errorf("kubeconfig at %s, want %s", second.kubeconfig, kubeconfig)
	}
	kept, err := second.client(t).CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if kept.Data["a"] != "b" {
		t.Errorf("data after the restart = %v", kept.Data)
	}
	second.stop(t)
}

func TestTheAuditLogTellsWhoDidWhatAndNoSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit")
	s := start(t, "-audit", file)
	secrets := s.client(t).CoreV1().Secrets("default")
	_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "one"}, StringData: map[string]string{"a": "hidden"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := secrets.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=one"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hidden") || strings.Contains(string(text), "aGlkZGVu") {
		t.Error("it holds what the Secret does")
	}
	var told []string
	for line := range strings.Lines(string(text)) {
		var event struct {
			Stage, Verb string
			User        struct{ Username string }
			ObjectRef   struct{ Resource, Namespace, Name string }
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if event.ObjectRef.Resource == "secrets" && event.ObjectRef.Name == "one" {
			told = append(told, fmt.Sprint(event))
		}
	}
	want := []string{"{ResponseComplete create {admin} {secrets default one}}", "{ResponseStarted watch {admin} {secrets default one}}"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	watch.Stop()
	s.stop(t)
}

func TestTheEndOfStdinLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := start(t)
	temp := filepath.Dir(filepath.Dir(s.kubeconfig))
	if len(entries(t, temp)) == 0 {
		t.Fatalf("no temporary state in %s: the test looks at the wrong place", temp)
	}
	s.stop(t) // returns when the process has ended
	if left := entries(t, temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhatCannotStartSaysWhyInOneLineAndWritesNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("somebody's own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := entries(t, dir)
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"port taken", []string{"-listen", taken.Addr().String(), "-dir", filepath.Join(dir, "new")}, 1, "the port is taken; stop what holds it or choose another"},
		{"address of another machine", []string{"-listen", "192.0.2.1:6443", "-dir", filepath.Join(dir, "new")}, 1, "HOST:PORT of this machine is needed"},
		{"directory is a file", []string{"-dir", file}, 1, "a directory that can be written is needed"},
		{"directory below a file", []string{"-dir", filepath.Join(file, "below")}, 1, "a directory that can be written is needed"},
		{"kubeconfig of somebody else", []string{"-kubeconfig", file}, 1, "the file is not localkube's, and would be overwritten"},
		{"kubeconfig in no directory", []string{"-kubeconfig", filepath.Join(dir, "none", "kubeconfig")}, 1, "a file that can be written is needed"},
		{"audit log in no directory", []string{"-audit", filepath.Join(dir, "none", "audit")}, 1, "a file that can be written is needed"},
		{"unknown flag", []string{"-lisen", ":1"}, 2, `flag provided but not defined: -lisen; "localkube -h" lists the flags`},
		{"argument", []string{"start"}, 2, `unexpected argument "start"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, said := refused(t, tc.args...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if !strings.HasPrefix(said, "localkube: ") || strings.Count(said, "\n") != 1 || !strings.Contains(said, tc.says) {
				t.Errorf("said %q, want one line with %q", said, tc.says)
			}
			if after := entries(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("files before %v, after %v", before, after)
			}
		})
	}
}

func TestThroughSymbolicLinksItIsEtcdAndKubeAPIServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, says := range map[string]string{"etcd": "etcd Version: 3.", "kube-apiserver": "Kubernetes v1."} {
		link := filepath.Join(dir, name)
		if err := os.Symlink(binary(t), link); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), link, "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), says) {
			t.Errorf("%s --version: %v, %q, want %q", name, err, out, says)
		}
	}
}

func TestEveryFlagStandsInTheReference(t *testing.T) {
	t.Parallel()
	help, err := exec.CommandContext(t.Context(), binary(t), "-h").Output()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/reference/localkube.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(pattern string, text []byte) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
			found = append(found, string(m[1]))
		}
		return found
	}
	flags, documented := names(`(?m)^  -([a-z-]+)`, help), names("(?m)^\\| `-([a-z-]+)`", page)
	if len(flags) == 0 || !slices.Equal(flags, documented) {
		t.Errorf("flags %v, in docs/reference/localkube.md %v", flags, documented)
	}
}

func TestKubectlIsOfTheServersVersion(t *testing.T) {
	t.Parallel()
	kubectl := os.Getenv("KUBECTL")
	if kubectl == "" {
		t.Fatal("KUBECTL is not set: run the tests by \"make test\", or set it to the binary that \"make build\" put at bin/kubectl")
	}
	s := start(t)
	out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", s.kubeconfig, "version", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var versions struct {
		ClientVersion, ServerVersion struct{ GitVersion string }
	}
	if err := json.Unmarshal(out, &versions); err != nil {
		t.Fatal(err)
	}
	if versions.ClientVersion != versions.ServerVersion || !strings.HasPrefix(versions.ServerVersion.GitVersion, "v1.") {
		t.Errorf("kubectl is %q, the server %q", versions.ClientVersion.GitVersion, versions.ServerVersion.GitVersion)
	}
	s.stop(t)
}
