// Command write puts the dashboards into the folder that its argument names.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/application-connector/application-connector/manifests/monitoring/dashboards"
)

func main() {
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "write:", err)
		os.Exit(1)
	}
}

func write(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments: one is needed, the folder to write to", len(args))
	}
	files, err := dashboards.All()
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(args[0], name), text, 0o644); err != nil { //nolint:gosec // they are to be read by everybody
			return err
		}
	}
	return nil
}
