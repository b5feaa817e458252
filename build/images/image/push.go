package image

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Push sends what Write has written to a repository of a registry, with the bills of materials as referrers, and gives the
// name, with digest, by which it is to be run. The tag is the version. Credentials and options of the registry are the caller's.
func Push(ctx context.Context, folder string, to name.Repository, options ...remote.Option) (name.Digest, error) {
	fail := func(err error) (name.Digest, error) {
		return name.Digest{}, fmt.Errorf("pushing %s to %s: %w", folder, to, err)
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return fail(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fail(err)
	}
	options = append(options, remote.WithContext(ctx))
	var pushed *v1.Descriptor
	for _, d := range manifest.Manifests { // the index over platforms first: what refers to it follows
		switch {
		case d.MediaType == types.OCIImageIndex && pushed == nil:
			version := d.Annotations[refName]
			tag, err := name.NewTag(to.Name() + ":" + version)
			if err != nil {
				return fail(fmt.Errorf("version %q cannot be a tag: %w", version, err))
			}
			platforms, err := index.ImageIndex(d.Digest)
			if err != nil {
				return fail(err)
			}
			if err := remote.WriteIndex(tag, platforms, options...); err != nil {
				return fail(err)
			}
			pushed = &d
		case d.MediaType == types.OCIManifestSchema1 && pushed != nil:
			bill, err := index.Image(d.Digest)
			if err != nil {
				return fail(err)
			}
			if err := remote.Write(to.Digest(d.Digest.String()), bill, options...); err != nil {
				return fail(err)
			}
		default:
			return fail(fmt.Errorf("index.json holds a %s where none belongs", d.MediaType))
		}
	}
	if pushed == nil {
		return fail(fmt.Errorf("index.json holds no index"))
	}
	return to.Digest(pushed.Digest.String()), nil
}
