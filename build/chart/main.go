// Command chart writes the templates of the Helm chart from what kustomize builds of the manifests, so that both install the
// same. What an administrator may choose is put in by the table of choices; what differs between two builds stands under a
// condition on the chart's values.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// header tells readers of a template where it comes from.
const header = "{{- /* Written by \"make generate\" from what kustomize builds of the manifests: change those. */ -}}\n"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart MANIFESTS")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

// write replaces the templates below the folder of the manifests.
func write(manifests string) error {
	templates, err := templates(manifests)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Join(manifests, "chart", "templates"))
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() { // what is written by hand stands beside the folders
			err = errors.Join(err, root.RemoveAll(entry.Name()))
		}
	}
	for name, text := range templates {
		err = errors.Join(err, root.MkdirAll(filepath.Dir(name), 0o755), root.WriteFile(name, []byte(text), 0o644))
	}
	return err
}

// templates gives the text of each file below templates/.
func templates(manifests string) (map[string]string, error) {
	sources, err := load(manifests)
	if err != nil {
		return nil, err
	}
	all, err := build(sources, base)
	if err != nil {
		return nil, err
	}
	others := make([]map[string]*object, len(features))
	for i, f := range features {
		if others[i], err = build(sources, f.kustomization); err != nil {
			return nil, err
		}
		for key, other := range others[i] {
			if all[key] == nil {
				all[key] = &object{id: other.id}
			}
		}
	}
	files := map[string]string{}
	for _, key := range sorted(all) {
		o := all[key]
		text, err := o.template(key, others)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		name := o.file()
		if files[name] == "" {
			files[name] = header
		}
		files[name] += text
	}
	return files, nil
}

// template is the object under its conditions. It has no lines if the base build has not got it.
func (o *object) template(key string, others []map[string]*object) (string, error) {
	conditions := o.conditions()
	var hunks []hunk
	lines := o.lines
	for i, f := range features {
		other := others[i][key]
		switch {
		case o.lines == nil && other == nil:
		case o.lines == nil:
			conditions = append(conditions, f.value)
			if lines != nil {
				return "", errors.New("two features add it")
			}
			lines = other.lines
		case other == nil:
			conditions = append(conditions, not(f.value))
		default:
			for _, h := range difference(o.lines, other.lines) {
				h.value = f.value
				hunks = append(hunks, h)
			}
		}
	}
	lines, err := merge(lines, hunks)
	if err != nil {
		return "", err
	}
	text := "---\n" + strings.Join(lines, "\n") + "\n"
	switch len(conditions) {
	case 0:
		return text, nil
	case 1:
		return "{{- if " + conditions[0] + " }}\n" + text + "{{- end }}\n", nil
	}
	for i, c := range conditions {
		if strings.Contains(c, " ") {
			conditions[i] = "(" + c + ")"
		}
	}
	return "{{- if and " + strings.Join(conditions, " ") + " }}\n" + text + "{{- end }}\n", nil
}

// not is the opposite of a condition.
func not(condition string) string {
	if is, ok := strings.CutPrefix(condition, "not "); ok {
		return is
	}
	return "not " + condition
}
