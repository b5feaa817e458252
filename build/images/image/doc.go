// Package image makes container images of this project's programs without a container engine: an OCI image layout (OCI Image
// Format 1.1) with an index over platforms, the certificate authorities of Mozilla, and a bill of materials (CycloneDX) that
// refers to each image. The same programs give the same digests wherever and whenever they are packed. It knows how
// to push a layout to a registry, and does not know how programs are compiled.
package image
