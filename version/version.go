// Package version says which version of the programs this is. It knows nothing else.
package version

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// stamped is what the linker writes here when "make build" builds: "git describe" of the source.
var stamped string

// String is the version of this build: what make stamped, else what the Go command recorded of the module, else "dev".
func String() string {
	recorded := ""
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "(devel)" {
		recorded = info.Main.Version
	}
	return cmp.Or(stamped, recorded, "dev")
}

// Line is what --version of a program prints.
func Line(program string) string {
	return fmt.Sprintf("%s %s (%s, %s/%s)", program, String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
