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
	"slices"
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
	defined, lines, err := o.environment(lines)
	if err != nil {
		return "", err
	}
	return defined + under(conditions, lines), nil
}

// extraEnv begins the line below a container's variables that names the value with further ones.
const extraEnv = "EXTRA-ENV "

// environment takes the variables of a container out into a template of their own, and has those of the values put in the place of
// those with the same name: server-side apply takes no two of one name.
func (o *object) environment(lines []string) (defined string, rest []string, err error) {
	end := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), extraEnv) })
	if end < 0 {
		return "", lines, nil
	}
	indent, value, _ := strings.Cut(lines[end], extraEnv)
	start := slices.Index(lines[:end], indent+"env:")
	if start < 0 {
		return "", nil, errors.New("its variables have no beginning")
	}
	name := "application-connector.env." + o.name
	var own strings.Builder
	for _, line := range lines[start+1 : end] {
		own.WriteString(strings.TrimPrefix(line, indent) + "\n")
	}
	defined = fmt.Sprintf("{{- define %q }}\n%s{{- end }}\n", name, own.String())
	include := fmt.Sprintf("{{- include \"application-connector.env\" (list (include %q .) %s) | nindent %d }}", name, value, len(indent))
	return defined, slices.Concat(lines[:start+1], []string{include}, lines[end+1:]), nil
}

// under puts an object under conditions.
func under(conditions, lines []string) string {
	text := "---\n" + strings.Join(lines, "\n") + "\n"
	switch len(conditions) {
	case 0:
		return text
	case 1:
		return "{{- if " + conditions[0] + " }}\n" + text + "{{- end }}\n"
	}
	for i, c := range conditions {
		if strings.Contains(c, " ") {
			conditions[i] = "(" + c + ")"
		}
	}
	return "{{- if and " + strings.Join(conditions, " ") + " }}\n" + text + "{{- end }}\n"
}

// not is the opposite of a condition.
func not(condition string) string {
	if is, ok := strings.CutPrefix(condition, "not "); ok {
		return is
	}
	return "not " + condition
}
