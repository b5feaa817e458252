package statuspage

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// eventNamespace is where the events of resources without a namespace are kept.
	eventNamespace = metav1.NamespaceDefault
	// eventPage is how many events are asked for at a time, and eventPages how often: their order says nothing of their age.
	eventPage, eventPages = 500, 4
	// eventsShown is how many of them are shown.
	eventsShown = 20
)

// event is one of the agent's, as it is shown.
type event struct {
	At                            time.Time
	Warning                       bool
	Reason, Kind, Object, Message string
	// Count is how often it was seen.
	Count int32
}

// latest are the newest events.
type latest struct {
	Events []event
	// Partial: there were more in the cluster than are looked through.
	Partial bool
}

// events reads the agent's events of the whole cluster, the newest first.
func (p *page) events(ctx context.Context) (latest, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var all latest
	options := &client.ListOptions{
		Namespace: eventNamespace, Limit: eventPage, FieldSelector: fields.OneTermEqualSelector("reportingController", p.Controller),
	}
	for page := 1; ; page++ {
		var list eventsv1.EventList
		if err := p.Events.List(ctx, &list, options); err != nil {
			return latest{}, err
		}
		for i := range list.Items {
			all.Events = append(all.Events, newEvent(&list.Items[i]))
		}
		options.Continue = list.Continue
		if all.Partial = options.Continue != "" && page == eventPages; all.Partial || options.Continue == "" {
			break
		}
	}
	slices.SortFunc(all.Events, func(a, b event) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	all.Events = all.Events[:min(len(all.Events), eventsShown)]
	return all, nil
}

func newEvent(e *eventsv1.Event) event {
	out := event{
		At: e.EventTime.Time, Warning: e.Type == corev1.EventTypeWarning, Reason: e.Reason, Kind: e.Regarding.Kind, Object: e.Regarding.Name,
		Message: e.Note, Count: 1,
	}
	if e.Series != nil {
		out.At, out.Count = e.Series.LastObservedTime.Time, e.Series.Count
	}
	if out.At.IsZero() {
		out.At = e.CreationTimestamp.Time
	}
	return out
}

// noEvents says to people why there are none. What the API server said in detail is in the log.
func noEvents(err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return "The agent may not list events in namespace " + eventNamespace + ": its Role compass-runtime-agent-events does not let it."
	case errors.Is(err, context.DeadlineExceeded):
		return "The API server did not answer in time."
	default:
		return "The API server did not give them: the agent's log says why."
	}
}
