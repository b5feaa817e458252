package events

import (
	"flag"
	"io"
	"log/slog"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// levels are those that the module's CRD allows; what lies above error is rarer than we log, and silences the rest.
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	"fatal": slog.LevelError + 4, "panic": slog.LevelError + 4,
}

// newLog returns the log by LogFormat and LogLevel, which Validate has seen.
func (o *Options) newLog(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: levels[strings.ToLower(o.LogLevel)]}
	if o.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// LogValue prints the options by the names of their flags.
func (o Options) LogValue() slog.Value {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	o.BindFlags(fs)
	var attrs []slog.Attr
	fs.VisitAll(func(f *flag.Flag) { attrs = append(attrs, slog.String(f.Name, f.Value.String())) })
	return slog.GroupValue(attrs...)
}

// adopt sends what Kubernetes libraries log to the same place. It sets process-wide state, so only Execute calls it.
func adopt(log *slog.Logger) {
	klog.SetSlogLogger(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
}
