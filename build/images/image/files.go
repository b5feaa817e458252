package image

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// User is the numeric user and group that programs run as: Kubernetes can tell by it that they do not run as root.
const User = 65532

// authoritiesFile is where Go programs, among other places, look for certificate authorities.
const authoritiesFile = "etc/ssl/certs/ca-certificates.crt"

// Authorities gives, in PEM form, the certificate authorities that Mozilla trusts for any certificate. Those that it trusts
// for some only, mostly older ones, are left out: a file cannot say so.
func Authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes everything
		}
	}
	return out.Bytes()
}

// file is a file of an image; with nil content, a folder.
type file struct {
	path    string
	mode    int64
	content []byte
}

// base are the files that each image has besides its program. It has no shell and no libraries: programs are static.
func base() []file {
	return []file{
		{"etc", 0o755, nil},
		{"etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%[1]d:%[1]d:nonroot:/:/sbin/nologin\n", User)},
		{"etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", User)},
		{"etc/ssl", 0o755, nil},
		{"etc/ssl/certs", 0o755, nil},
		{authoritiesFile, 0o644, Authorities()},
		{"tmp", 0o1777, nil},
	}
}

// layer packs files, which all belong to root and are as old as created says, in the order given.
func layer(files []file, created time.Time) (v1.Layer, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, f := range files {
		h := &tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.content)), ModTime: created, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if f.content == nil {
			h.Typeflag, h.Name = tar.TypeDir, path.Clean(f.path)+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.path, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("packing %s: %w", f.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
