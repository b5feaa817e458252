package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
)

// levels are the names that -logLevel and /v1/loglevel take, with what they let through. The last three say the same as
// error: slog knows nothing above it.
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	"dpanic": slog.LevelError + 4, "panic": slog.LevelError + 8, "fatal": slog.LevelError + 12,
}

// Level is a log level that can be changed while the program runs. It implements slog.Leveler. Safe for concurrent use.
type Level struct{ name atomic.Pointer[string] }

// NewLevel returns a Level by its name: debug, info, warn, error, dpanic, panic or fatal, in small or capital letters.
func NewLevel(name string) (*Level, error) {
	l := &Level{}
	return l, l.Set(name)
}

// Set changes the level by name.
func (l *Level) Set(name string) error {
	small := strings.ToLower(name)
	if _, ok := levels[small]; !ok || name != small && name != strings.ToUpper(name) {
		return fmt.Errorf("unrecognized level: %q", name)
	}
	l.name.Store(&small)
	return nil
}

// Level implements slog.Leveler.
func (l *Level) Level() slog.Level { return levels[*l.name.Load()] }

// bodyLimit is the largest body of a request to change the level, in bytes.
const bodyLimit = 64 << 10

// ServeHTTP gives the level on GET, as {"level":"info"}, and changes it on PUT, by the same or by a form field "level".
func (l *Level) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut:
		if err := l.change(r); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			write(w, map[string]string{"error": err.Error()})
			return
		}
	default:
		notAllowed(w)
		return
	}
	write(w, map[string]string{"level": *l.name.Load()})
}

var errNoLevel = errors.New("must specify logging level")

func (l *Level) change(r *http.Request) error {
	r.Body = http.MaxBytesReader(nil, r.Body, bodyLimit)
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/x-www-form-urlencoded" {
		name := r.FormValue("level")
		if name == "" {
			return errNoLevel
		}
		return l.Set(name)
	}
	var body struct {
		Level *string `json:"level"`
	}
	text, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err != nil {
		return fmt.Errorf("malformed request body: %w", err)
	}
	if body.Level == nil || *body.Level == "" {
		return errNoLevel
	}
	if err := l.Set(*body.Level); err != nil {
		return fmt.Errorf("malformed request body: %w", err)
	}
	return nil
}

// write leaves the content type to the library, which takes it for plain text: so it always was.
func write(w http.ResponseWriter, body map[string]string) {
	_ = json.NewEncoder(w).Encode(body) // a caller who is gone needs no answer
}
