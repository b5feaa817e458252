package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Source says what the images are made of.
type Source struct {
	// Version is stamped into the programs; Revision is the commit. Created is the commit's time, never the clock's.
	Version, Revision string
	Created           time.Time
}

// Program is one program to pack, with its image's name and what it is for.
type Program struct {
	// Name is that of the program: it stands in the image as /Name, and the image runs it unless it is told otherwise.
	Name string
	// Image is the last part of the image's name in a registry.
	Image string
	// Title says in a few words what it is.
	Title string
	// Ports are those on which it listens unless it is told otherwise.
	Ports []int
}

// Programs are those that have an image. The names are those in the manifests.
var Programs = []Program{
	{"agent", "compass-runtime-agent", "Application Connector: agent", []int{8089, 8090}},
	{"gateway", "central-application-gateway", "Application Connector: gateway", []int{8080, 8081, 8082}},
	{"validator", "central-application-connectivity-validator", "Application Connector: validator", []int{8080, 8081}},
	{"appconn", "appconn", "Application Connector: command-line tool", nil},
}

// repository is where the source is.
const repository = "https://github.com/application-connector/application-connector"

// Binary is a compiled program.
type Binary struct {
	// File is its path.
	File string
	// Platform is what it was compiled for.
	Platform v1.Platform
}

// Write packs binaries, the same program for different platforms, into an OCI image layout in a new folder, and gives the
// digest of the index over them. Each image has a bill of materials that refers to it.
func Write(folder string, p Program, s Source, binaries []Binary) (v1.Hash, error) {
	fail := func(err error) (v1.Hash, error) {
		return v1.Hash{}, fmt.Errorf("image of %s: %w", p.Name, err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	index, ok := mutate.Annotations(index, s.labels(p)).(v1.ImageIndex)
	if !ok {
		return fail(fmt.Errorf("an index with annotations is a %T", index))
	}
	var bills []v1.Image
	for _, b := range binaries {
		image, err := pack(p, s, b)
		if err != nil {
			return fail(err)
		}
		bill, err := attach(p, s, b, image)
		if err != nil {
			return fail(err)
		}
		bills = append(bills, bill)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &b.Platform}})
	}
	path, err := layout.Write(folder, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return fail(err)
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: s.Version})); err != nil {
		return fail(err)
	}
	for _, bill := range bills {
		if err := path.AppendImage(bill); err != nil {
			return fail(err)
		}
	}
	return index.Digest()
}

// refName is the annotation in a layout's index.json that names its tag.
const refName = "org.opencontainers.image.ref.name"

// labels are the annotations that OCI has defined for images.
func (s Source) labels(p Program) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    p.Title,
		"org.opencontainers.image.version":  s.Version,
		"org.opencontainers.image.revision": s.Revision,
		"org.opencontainers.image.created":  s.Created.UTC().Format(time.RFC3339),
		"org.opencontainers.image.source":   repository,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

// pack makes the image for one platform: a layer that changes with the certificate authorities, and one with the program.
func pack(p Program, s Source, b Binary) (v1.Image, error) {
	content, err := os.ReadFile(filepath.Clean(b.File))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, part := range []struct {
		says  string
		files []file
	}{
		{"certificate authorities, user", base()},
		{"/" + p.Name, []file{{p.Name, 0o755, content}}},
	} {
		l, err := layer(part.files, s.Created)
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: s.Created.UTC()}, CreatedBy: part.says}})
		if err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = b.Platform.OS, b.Platform.Architecture, v1.Time{Time: s.Created.UTC()}
	config.Config = v1.Config{
		// No entry point: the manifests' args begin with the program, as they always have.
		Cmd: []string{"/" + p.Name}, WorkingDir: "/", User: fmt.Sprintf("%[1]d:%[1]d", User), Labels: s.labels(p),
		Env: []string{"SSL_CERT_FILE=/" + authoritiesFile}, ExposedPorts: map[string]struct{}{},
	}
	for _, port := range p.Ports {
		config.Config.ExposedPorts[strconv.Itoa(port)+"/tcp"] = struct{}{}
	}
	return mutate.ConfigFile(image, config)
}
