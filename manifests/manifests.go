// Package manifests carries the resource definitions of this project inside the binaries that install them.
package manifests

import "embed"

//go:generate go run ../build/chart .

// CRDs holds crds/*.yaml, one resource definition a file.
//
//go:embed crds/*.yaml
var CRDs embed.FS
