package image

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BillType is the media type of a bill of materials, and the type of the artifact that holds it.
const BillType = "application/vnd.cyclonedx+json"

// Bill is the bill of materials of a compiled Go program, as CycloneDX 1.6 in JSON: the modules that the linker recorded in it,
// whatever the source says.
func Bill(p Program, s Source, binary string) ([]byte, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	bom := cdx.NewBOM()
	bom.SerialNumber = "" // it would be random
	bom.Metadata = &cdx.Metadata{
		Timestamp: s.Created.UTC().Format(time.RFC3339),
		Component: &cdx.Component{
			BOMRef: "main", Type: cdx.ComponentTypeApplication, Name: p.Image, Version: s.Version, Description: p.Title,
			PackageURL: purl(info.Main.Path, s.Version), Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
		},
	}
	components := []cdx.Component{component("std", strings.TrimPrefix(info.GoVersion, "go"), "the Go standard library")}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		components = append(components, moduleComponent(module))
	}
	refs := make([]string, 0, len(components))
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom.Components, bom.Dependencies = &components, &[]cdx.Dependency{{Ref: "main", Dependencies: &refs}}
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

func moduleComponent(m *debug.Module) cdx.Component {
	c := component(m.Path, m.Version, "")
	if m.Sum != "" {
		// Go's own sum over a module (see golang.org/x/mod/sumdb/dirhash); CycloneDX has no name for it.
		c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.Sum}}
	}
	return c
}

func component(path, version, description string) cdx.Component {
	id := purl(path, version)
	return cdx.Component{BOMRef: id, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, Description: description, PackageURL: id}
}

// purl is a package URL, by which scanners know a Go module.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + url.QueryEscape(version)
}

// attach makes an artifact of the bill of materials that refers to an image.
func attach(p Program, s Source, b Binary, image v1.Image) (v1.Image, error) {
	text, err := Bill(p, s, b.File)
	if err != nil {
		return nil, err
	}
	subject, err := partial.Descriptor(image)
	if err != nil {
		return nil, err
	}
	subject.Platform = nil
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), BillType)
	artifact, err = mutate.AppendLayers(artifact, static.NewLayer(text, BillType))
	if err != nil {
		return nil, err
	}
	artifact, err = mutate.CreatedAt(artifact, v1.Time{Time: s.Created.UTC()})
	if err != nil {
		return nil, err
	}
	out, ok := mutate.Subject(artifact, *subject).(v1.Image)
	if !ok {
		return nil, fmt.Errorf("an artifact with a subject is a %T", out)
	}
	return out, nil
}
