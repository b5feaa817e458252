package proxy

// Reason says in metrics and audit lines why a request was answered as it was; beside these there are the reasons of
// packages identity, binding and denial. Each is stable, and explained in docs/reference/validator.md.
type Reason string

// Reasons of this package.
const (
	Delivered             Reason = "delivered"
	BadPath               Reason = "path"
	NoRoute               Reason = "no_route"
	BadMethod             Reason = "method"
	NotSynced             Reason = "not_synced"
	Overloaded            Reason = "overloaded"
	RateLimited           Reason = "rate_limited"
	TooLarge              Reason = "too_large"
	BodyTimeout           Reason = "body_timeout"
	BodyUnreadable        Reason = "body_unreadable"
	NotACloudEvent        Reason = "not_a_cloudevent"
	ForeignSource         Reason = "source"
	PublisherUnreachable  Reason = "publisher_unreachable"
	PublisherTimeout      Reason = "publisher_timeout"
	PublisherRefused      Reason = "publisher_refused"
	PublisherFailed       Reason = "publisher_failed"
	BatchIncomplete       Reason = "batch_incomplete"
	PublisherAnswerBroken Reason = "publisher_answer_broken"
	ClientGone            Reason = "client_gone"
	Panicked              Reason = "panic"
)
