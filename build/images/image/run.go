package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Folder is where images are written, in the folder of the project.
const Folder = "bin/images"

// Platforms are those that images are made for.
var Platforms = []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}

// Run is the command: "build", or "push" with the part of the images' names that stands before their last. It works in the
// current folder, which must be the project's, and prints a line per image.
func Run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "build":
		source, err := sourceOf(ctx)
		if err != nil {
			return err
		}
		return build(ctx, source, out)
	case len(args) == 2 && args[0] == "push":
		return push(ctx, args[1], out, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	return errors.New(`want "build", or "push REGISTRY/PATH"`)
}

// sourceOf asks git about the source in the current folder.
func sourceOf(ctx context.Context) (Source, error) {
	ask := func(args ...string) (string, error) {
		text, err := exec.CommandContext(ctx, "git", args...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	version, err := ask("describe", "--tags", "--always", "--dirty")
	if err != nil {
		return Source{}, err
	}
	revision, err := ask("rev-parse", "HEAD")
	if err != nil {
		return Source{}, err
	}
	seconds, err := ask("log", "-1", "--format=%ct")
	if err != nil {
		return Source{}, err
	}
	created, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return Source{}, fmt.Errorf("time of the commit: %w", err)
	}
	return Source{version, revision, time.Unix(created, 0)}, nil
}

// build compiles each program for each platform and packs it.
func build(ctx context.Context, s Source, out io.Writer) error {
	compiled, err := os.MkdirTemp("", "images")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(compiled) }()
	binaries := map[string][]Binary{}
	for _, platform := range Platforms {
		folder := filepath.Join(compiled, platform.Architecture)
		packages := make([]string, 0, len(Programs))
		for _, p := range Programs {
			packages = append(packages, "./cmd/"+p.Name)
			binaries[p.Name] = append(binaries[p.Name], Binary{filepath.Join(folder, p.Name), platform})
		}
		// What git knows is stamped by hand, so that a source without its history gives the same programs.
		c := exec.CommandContext(ctx, "go", append([]string{
			"build", "-trimpath", "-buildvcs=false", "-o", folder + "/",
			"-ldflags", "-s -w -X github.com/application-connector/application-connector/version.stamped=" + s.Version,
		}, packages...)...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
		c.Stderr = os.Stderr
		fmt.Fprintf(out, "compiling for %s\n", platform.String())
		if err := c.Run(); err != nil {
			return fmt.Errorf("compiling for %s: %w", platform.String(), err)
		}
	}
	if err := os.RemoveAll(Folder); err != nil {
		return err
	}
	for _, p := range Programs {
		digest, err := Write(filepath.Join(Folder, p.Image), p, s, binaries[p.Name])
		if err != nil {
			return err
		}
		for _, b := range binaries[p.Name] {
			bill, err := Bill(p, s, b.File)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(Folder, p.Image+"-"+b.Platform.Architecture+".cdx.json"), bill, 0o600); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "%s %s %s\n", p.Image, s.Version, digest)
	}
	return nil
}

// push sends all images to repositories below a prefix.
func push(ctx context.Context, prefix string, out io.Writer, options ...remote.Option) error {
	for _, p := range Programs {
		folder := filepath.Join(Folder, p.Image)
		if _, err := os.Stat(folder); err != nil {
			return fmt.Errorf("%s is not there: run \"make images\" first", folder)
		}
		to, err := name.NewRepository(strings.TrimSuffix(prefix, "/") + "/" + p.Image)
		if err != nil {
			return fmt.Errorf("REGISTRY: %w", err)
		}
		pushed, err := Push(ctx, folder, to, options...)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, pushed)
	}
	return nil
}
