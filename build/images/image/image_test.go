package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/application-connector/application-connector/build/images/image"
)

var source = image.Source{Version: "v1.2.3", Revision: "0123456789abcdef0123456789abcdef01234567", Created: time.Date(2026, 11, 28, 20, 0, 0, 0, time.UTC)}

var gateway = image.Program{Name: "gateway", Image: "central-application-gateway", Title: "Gateway", Ports: []int{8080, 8082}}

// folder is where the programs are that tests share.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "image"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// shared is a small program for tests that do not mind to share it.
var shared = sync.OnceValues(func() ([]image.Binary, error) { return compiled(folder) })

func binaries(t *testing.T) []image.Binary {
	t.Helper()
	out, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compile builds that program anew.
func compile(t *testing.T) []image.Binary {
	t.Helper()
	out, err := compiled(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compiled is a program with modules in it, for two platforms.
func compiled(into string) (out []image.Binary, err error) {
	for _, architecture := range []string{"amd64", "arm64"} {
		file := filepath.Join(into, architecture)
		c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, "./testdata/program")
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH="+architecture)
		if text, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, text)
		}
		out = append(out, image.Binary{File: file, Platform: v1.Platform{OS: "linux", Architecture: architecture}})
	}
	return out, nil
}

func written(t *testing.T, of []image.Binary) (folder string, index v1.ImageIndex) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "layout")
	digest, err := image.Write(folder, gateway, source, of)
	if err != nil {
		t.Fatal(err)
	}
	all, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	index, err = all.ImageIndex(digest)
	if err != nil {
		t.Fatal(err)
	}
	return folder, index
}

// images are those of an index, in its order.
func images(t *testing.T, index v1.ImageIndex) (out []v1.Image, platforms []string) {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range manifest.Manifests {
		i, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		out, platforms = append(out, i), append(platforms, d.Platform.String())
	}
	return out, platforms
}

func TestAnImageRunsItsProgramAsNobodyWithNothingElseButAuthorities(t *testing.T) {
	t.Parallel()
	_, index := written(t, binaries(t))
	all, platforms := images(t, index)
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Error(diff)
	}
	for i, one := range all {
		config, err := one.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got := config.OS + "/" + config.Architecture; got != platforms[i] {
			t.Errorf("the image for %s says that it is for %s", platforms[i], got)
		}
		labels := map[string]string{
			"org.opencontainers.image.title": "Gateway", "org.opencontainers.image.version": "v1.2.3",
			"org.opencontainers.image.revision": source.Revision, "org.opencontainers.image.created": "2026-11-28T20:00:00Z",
			"org.opencontainers.image.source":   "https://github.com/application-connector/application-connector",
			"org.opencontainers.image.licenses": "Apache-2.0",
		}
		want := v1.Config{
			Cmd: []string{"/gateway"}, User: "65532:65532", WorkingDir: "/", Labels: labels,
			Env: []string{"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}, "8082/tcp": {}},
		}
		if diff := cmp.Diff(want, config.Config); diff != "" {
			t.Error(diff)
		}
		var names []string
		reader := mutate.Extract(one)
		for files := tar.NewReader(reader); ; {
			h, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.FileInfo().Mode().String()+" "+h.Name)
			if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(source.Created) {
				t.Errorf("%s is of %d:%d and of %s", h.Name, h.Uid, h.Gid, h.ModTime)
			}
		}
		_ = reader.Close()
		slices.Sort(names)
		wantNames := []string{
			"-rw-r--r-- etc/group", "-rw-r--r-- etc/passwd", "-rw-r--r-- etc/ssl/certs/ca-certificates.crt", "-rwxr-xr-x gateway",
			"drwxr-xr-x etc", "drwxr-xr-x etc/ssl", "drwxr-xr-x etc/ssl/certs", "dtrwxrwxrwx tmp",
		}
		if diff := cmp.Diff(wantNames, names, cmp.Transformer("clean", strings.TrimSpace)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestTheProgramOfAnImageRuns(t *testing.T) {
	t.Parallel()
	_, index := written(t, binaries(t))
	all, platforms := images(t, index)
	at := slices.Index(platforms, "linux/"+runtime.GOARCH)
	if runtime.GOOS != "linux" || at < 0 {
		t.Skipf("no image for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	reader := mutate.Extract(all[at])
	defer func() { _ = reader.Close() }()
	program := filepath.Join(t.TempDir(), "program")
	for files := tar.NewReader(reader); ; {
		h, err := files.Next()
		if err != nil {
			t.Fatal(err) // at the end, if it is not there
		}
		if h.Name == "gateway" {
			content, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, content, 0o700); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	text, err := exec.CommandContext(t.Context(), program).CombinedOutput()
	if got := string(text); err != nil || got != "it runs\n" {
		t.Errorf("%v: %q", err, got)
	}
}

func TestTheSameProgramsGiveTheSameImages(t *testing.T) {
	t.Parallel()
	content := func() map[string]string {
		folder, _ := written(t, compile(t)) // compiled anew, elsewhere
		files := map[string]string{}
		err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(filepath.Join(folder, path))
			files[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	first, second := content(), content()
	if len(first) < 10 || !cmp.Equal(first, second) {
		t.Errorf("%d files and %d files differ", len(first), len(second))
	}
}

func TestABillOfMaterialsNamesEachModuleOfTheProgram(t *testing.T) {
	t.Parallel()
	text, err := image.Bill(gateway, source, binaries(t)[0].File)
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 || bom.Metadata.Component.Name != gateway.Image || bom.Metadata.Component.Version != "v1.2.3" ||
		bom.Metadata.Timestamp != "2026-11-28T20:00:00Z" {
		t.Errorf("%s", text)
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./testdata/program")
	list.Env = append(os.Environ(), "GOFLAGS=")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := append(strings.Fields(string(out)), "std@"+strings.TrimPrefix(runtime.Version(), "go"))
	var got []string
	for _, c := range *bom.Components {
		got = append(got, c.Name+"@"+c.Version)
		if c.PackageURL != "pkg:golang/"+c.Name+"@"+c.Version || c.BOMRef != c.PackageURL {
			t.Errorf("package URL %s, reference %s", c.PackageURL, c.BOMRef)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" || len(got) < 2 {
		t.Error(diff)
	}
}

func TestWhatIsPushedCanBePulledWithItsBillOfMaterials(t *testing.T) {
	t.Parallel()
	folder, index := written(t, binaries(t))
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true)))
	defer server.Close()
	to, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://")+"/kyma/gateway", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := image.Push(t.Context(), folder, to)
	if err != nil {
		t.Fatal(err)
	}
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	byTag, err := remote.Index(to.Tag("v1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := byTag.Digest(); err != nil || got != want || pushed.DigestStr() != want.String() {
		t.Errorf("written as %s, pushed as %s, pulled as %s (%v)", want, pushed, got, err)
	}
	all, _ := images(t, byTag)
	for _, one := range all {
		digest, err := one.Digest()
		if err != nil {
			t.Fatal(err)
		}
		referrers, err := remote.Referrers(to.Digest(digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		found, err := referrers.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Manifests) != 1 || found.Manifests[0].ArtifactType != image.BillType {
			t.Errorf("referrers of %s: %+v", digest, found.Manifests)
		}
	}
}

func TestAFolderWithoutImagesIsNotPushed(t *testing.T) {
	t.Parallel()
	to, err := name.NewRepository("localhost:1/gateway")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Push(t.Context(), t.TempDir(), to); err == nil || !strings.Contains(err.Error(), "index.json") {
		t.Errorf("got %v", err)
	}
}

func TestAuthoritiesAreCertificatesThatMayServeForAnything(t *testing.T) {
	t.Parallel()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(image.Authorities()) {
		t.Fatal("no certificate")
	}
	if n := bytes.Count(image.Authorities(), []byte("BEGIN CERTIFICATE")); n < 80 {
		t.Errorf("%d authorities", n)
	}
}

func TestWhatIsAskedForIsSaid(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"push"}, {"build", "all"}, {"pull", "here"}} {
		err := image.Run(t.Context(), args, io.Discard)
		if want := `want "build", or "push REGISTRY/PATH"`; err == nil || err.Error() != want {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestImagesAreNamedAsInTheManifests(t *testing.T) {
	t.Parallel()
	want := map[string]string{} // by image, the program
	for _, p := range image.Programs {
		want[p.Image] = p.Name
	}
	delete(want, "appconn") // it runs on an operator's machine
	got := map[string]string{}
	files, err := filepath.Glob("../../../manifests/base/*/workload.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var named string
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if after, ok := strings.CutPrefix(line, "image: "); ok {
				named = after
			}
			if after, ok := strings.CutPrefix(line, "args: [/"); ok {
				got[named] = strings.TrimRight(strings.SplitN(after, ",", 2)[0], "]")
			} else if after, ok := strings.CutPrefix(line, "- /"); ok {
				got[named] = after
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
