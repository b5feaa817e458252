package events

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A file in UTF-16 ends in binaryData, and would deny nothing without a word.
func TestWhatStandsInBinaryDataIsCountedAsUnreadableAndLogged(t *testing.T) {
	log := &bytes.Buffer{}
	d := &denied{name: types.NamespacedName{Namespace: "n", Name: "list"}, log: slog.New(slog.NewJSONHandler(log, nil))}
	d.update(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "list"},
		Data:       map[string]string{"good": "sha256 " + strings.Repeat("a", 64)}, BinaryData: map[string][]byte{"bad": {0xff, 0xfe}},
	})
	if certificates, unreadable := d.count(); certificates != 1 || unreadable != 1 {
		t.Errorf("%v certificates, %v unreadable", certificates, unreadable)
	}
	if !strings.Contains(log.String(), `"key":"bad","line":1,"reason":"must be text in UTF-8`) {
		t.Errorf("logged %s", log)
	}
}
