package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// id is what tells an object from others. The namespace does not: it may differ between builds.
type id struct {
	kind, name string
}

// object is one of a build, with the choices of the chart put in.
type object struct {
	id
	lines []string
}

// load reads the manifests, so that kustomizations can be built beside them without a trace.
func load(manifests string) (filesys.FileSystem, error) {
	memory, disk := filesys.MakeFsInMemory(), os.DirFS(manifests)
	return memory, fs.WalkDir(disk, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == "chart":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		text, err := fs.ReadFile(disk, path)
		if err != nil {
			return err
		}
		return memory.WriteFile("/"+path, text)
	})
}

// build gives the objects of a kustomization, by the text of its file, which stands beside the overlays.
func build(files filesys.FileSystem, kustomization string) (map[string]*object, error) {
	if err := files.WriteFile("/built/kustomization.yaml", []byte(kustomization)); err != nil {
		return nil, err
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/built")
	if err != nil {
		return nil, fmt.Errorf("building %s: %w", kustomization, err)
	}
	return objects(built)
}

func objects(built resmap.ResMap) (map[string]*object, error) {
	all := map[string]*object{}
	for _, resource := range built.Resources() {
		o := &object{id: id{kind: resource.GetKind(), name: resource.GetName()}}
		key := o.kind + "/" + o.name
		if all[key] != nil {
			return nil, fmt.Errorf("%s is there twice", key)
		}
		fields, err := resource.Map()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if o.lines, err = o.text(fields); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		all[key] = o
	}
	return all, nil
}

// text is the object as lines of a template.
func (o *object) text(fields map[string]any) ([]string, error) {
	var chosen []choice
	for _, c := range choices {
		if c.kind != "" && c.kind != o.kind || c.name != "" && c.name != o.name {
			continue
		}
		if err := put(fields, strings.Split(c.path, "/"), mark(len(chosen))); err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
		chosen = append(chosen, c)
	}
	text, err := yaml.MarshalWithOptions(fields, &yaml.EncoderOptions{SeqIndent: yaml.CompactSequenceStyle})
	if err != nil {
		return nil, err
	}
	template := strings.NewReplacer("{{", `{{ "{{" }}`, domain, "{{ .Values.domain }}", collector, "{{ .Values.tracing.endpoint }}").Replace(string(text))
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSuffix(template, "\n"), "\n") {
		for i, c := range chosen {
			if before, _, found := strings.Cut(line, mark(i)); found {
				line = c.replace(before)
			}
		}
		lines = append(lines, strings.Split(line, "\n")...)
	}
	return lines, nil
}

// mark stands for a choice while an object is written as YAML.
func mark(i int) string { return "CHOICE-" + strconv.Itoa(i) + "-" }

// put sets a field, which must be there unless its last part begins with "+": "+" alone appends to a list, and "+key" adds to
// a map.
func put(at any, path []string, value string) error {
	key, rest := path[0], path[1:]
	switch at := at.(type) {
	case map[string]any:
		if added, is := strings.CutPrefix(key, "+"); is && len(rest) == 0 {
			if _, there := at[added]; there {
				return fmt.Errorf("%s is there already", added)
			}
			at[added] = value
			return nil
		}
		next, there := at[key]
		switch {
		case !there:
			return fmt.Errorf("there is no %s", key)
		case len(rest) == 0:
			at[key] = value
			return nil
		case rest[0] == "+": // a list that grows is another one
			list, ok := next.([]any)
			if !ok {
				return fmt.Errorf("%s is no list", key)
			}
			at[key] = append(list, value)
			return nil
		}
		return put(next, rest, value)
	case []any:
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 || i >= len(at) {
			return fmt.Errorf("there is no %s in a list of %d", key, len(at))
		}
		if len(rest) == 0 {
			at[i] = value
			return nil
		}
		return put(at[i], rest, value)
	}
	return errors.New(key + " is in nothing")
}

// conditions are those that the kind of object is under.
func (o *object) conditions() []string {
	var all []string
	for _, c := range wholes {
		named, err := path.Match(c.name, o.name)
		if err != nil {
			panic(err) // of a pattern in values.go
		}
		if c.kind == o.kind && (c.name == "" || named) {
			all = append(all, c.value)
		}
	}
	return all
}

// file is where the template stands: one file for a kind of object of a component.
func (o *object) file() string {
	folder := "common"
	for _, c := range components {
		if strings.HasPrefix(o.name, c.name) || strings.HasPrefix(o.name, "kyma-project.io--acm-"+c.policies+"-") {
			folder = c.value
		}
	}
	return filepath.Join(folder, strings.ToLower(o.kind)+".yaml")
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
