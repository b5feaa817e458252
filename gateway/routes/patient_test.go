package routes

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

// awayUntil cannot be reached before a time, and answers by err then.
type awayUntil struct {
	back time.Time
	err  error
	n    int
}

func (a *awayUntil) ask() error {
	a.n++
	if time.Now().Before(a.back) {
		return errors.New("connection refused")
	}
	return a.err
}

func TestAnAPIServerThatWasAwayForLongIsReachedSoonAfterItIsBack(t *testing.T) {
	busy := apierrors.NewTooManyRequests("busy", 1)
	for name, answer := range map[string]error{"it is well": nil, "it is busy": busy} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const away = 5 * time.Minute
				server := &awayUntil{back: time.Now().Add(away), err: answer}
				var log bytes.Buffer
				p := newPatient(&toolscache.ListWatch{
					ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
						return &metav1.Status{}, server.ask()
					},
					WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
						return watch.NewFake(), server.ask()
					},
				}, slog.New(slog.NewTextHandler(&log, nil)))
				for what, ask := range map[string]func() error{
					"list":  func() error { _, err := p.ListWithContext(t.Context(), metav1.ListOptions{}); return err },
					"watch": func() error { _, err := p.WatchWithContext(t.Context(), metav1.ListOptions{}); return err },
				} {
					log.Reset()
					server.n, server.back = 0, time.Now().Add(away)
					if err := ask(); !errors.Is(err, answer) {
						t.Errorf("%s: %v", what, err)
					}
					if late := time.Since(server.back); late < 0 || late > 2*awayPause {
						t.Errorf("%s: reached %s after it was back", what, late)
					}
					if n := server.n; n < int(away/(2*awayPause)) || n > int(away/awayPause)+1 {
						t.Errorf("%s: asked %d times", what, n)
					}
					if n := strings.Count(log.String(), "cannot be reached"); n < 4 || n > 5 {
						t.Errorf("%s: said %d times", what, n)
					}
				}
			})
		})
	}
}

func TestNobodyAsksAnyMoreOnceTheGatewayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &awayUntil{back: time.Now().Add(time.Hour)}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		p := newPatient(&toolscache.ListWatch{ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, server.ask() }}, slog.New(slog.DiscardHandler))
		if _, err := p.ListWithContext(ctx, metav1.ListOptions{}); err == nil || ctx.Err() == nil {
			t.Errorf("%v, and the context: %v", err, ctx.Err())
		}
	})
}
