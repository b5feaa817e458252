package up

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"text/template"
)

var (
	//go:embed seed.yaml.tmpl
	seedTemplate string
	//go:embed applications.yaml.tmpl
	applicationsTemplate string
)

func render(text string, values any) ([]byte, error) {
	t, err := template.New("").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}}).Parse(text)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, values)
	return out.Bytes(), err
}

func (w *world) applyByHand(ctx context.Context) error {
	values, err := w.values()
	if err != nil {
		return err
	}
	text, err := render(applicationsTemplate, values)
	if err != nil {
		return err
	}
	return apply(ctx, w.cluster, text)
}
