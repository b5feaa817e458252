package monitoring

import "fmt"

// scenario is what Prometheus sees in an hour, minute by minute, and which alerts it then sends. Its clock starts at 0.
type scenario struct {
	name string
	// series are values by series, in promtool's notation.
	series map[string]string
	fires  []fired
}

// fired is an alert with the labels that its series gave it, and its description.
type fired struct {
	labels map[string]string
	says   string
}

const (
	minute = 60
	day    = 24 * 3600
	// end is when alerts are looked at.
	end = 3600
)

// steady is one value at all times.
func steady(value float64) string { return fmt.Sprintf("%g+0x90", value) }

// growing grows by so much a minute.
func growing(by float64) string { return fmt.Sprintf("0+%gx90", by) }

func once(says string, labels ...string) []fired {
	all := map[string]string{"namespace": "kyma-system"}
	for i := 0; i < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	return []fired{{all, says}}
}

// absent is an alert about what is not there, so that it has no labels of its own.
func absent(says string) []fired { return []fired{{says: says}} }

// acting is a series of the agent that acts, waiting one of an agent that waits for the Lease.
func acting(metric string, labels ...string) string { return series(metric, "a", labels...) }

func waiting(metric string, labels ...string) string { return series(metric, "b", labels...) }

func series(metric, pod string, labels ...string) string {
	name := fmt.Sprintf("%s{namespace=%q,pod=%q", metric, "kyma-system", pod)
	for i := 0; i < len(labels); i += 2 {
		name += fmt.Sprintf(",%s=%q", labels[i], labels[i+1])
	}
	return name + "}"
}

// api is the series of one API of the gateway's.
func api(metric string, labels ...string) string {
	return series(metric, "a", append([]string{"application", "shop", "service", "orders", "entry", "api"}, labels...)...)
}

const (
	agentUp          = "compass_runtime_agent_connection_up"
	agentCondition   = "compass_runtime_agent_condition"
	agentNotBefore   = "compass_runtime_agent_certificate_not_before_timestamp_seconds"
	agentNotAfter    = "compass_runtime_agent_certificate_not_after_timestamp_seconds"
	agentRenewal     = "compass_runtime_agent_certificate_renewal_timestamp_seconds"
	agentSynced      = "compass_runtime_agent_sync_last_success_timestamp_seconds"
	agentFailed      = "compass_runtime_agent_failed_applications"
	agentApps        = "compass_runtime_agent_applications"
	gatewayCalls     = "central_application_gateway_requests_total"
	gatewayBreaker   = "central_application_gateway_breaker_open"
	gatewayEnd       = "central_application_gateway_client_certificate_not_after_timestamp_seconds"
	gatewayTargetEnd = "central_application_gateway_target_certificate_not_after_timestamp_seconds"
	eventRequests    = "validator_requests_total"
	eventClientEnd   = "validator_client_certificate_not_after_timestamp_seconds"
	eventAttempts    = "validator_publisher_duration_seconds_count"
	onboardReasons   = "appconn_onboard_cluster_reasons"
)

// certificate is one of 90 days that ends so long after the end, and is renewed in the last 27 days of it, beside an agent
// that waits for the Lease.
func certificate(left float64) map[string]string {
	return map[string]string{
		acting(agentNotAfter): steady(end + left), acting(agentNotBefore): steady(end + left - 90*day), acting(agentRenewal): steady(end + left - 27*day),
		waiting(agentNotAfter): steady(0), waiting(agentNotBefore): steady(0), waiting(agentRenewal): steady(0),
	}
}

// overdue is one of three hours whose renewal was due so long before the end.
func overdue(since float64) map[string]string {
	return map[string]string{
		acting(agentRenewal): steady(end - since), acting(agentNotAfter): steady(end - since + 54*minute), acting(agentNotBefore): steady(end - since - 126*minute),
		waiting(agentNotAfter): steady(0), waiting(agentNotBefore): steady(0), waiting(agentRenewal): steady(0),
	}
}

func condition(kind string, acts float64) map[string]string {
	return map[string]string{acting(agentCondition, "type", kind): steady(acts)}
}

// scenarios are those of each alert.
var scenarios = map[string][]scenario{
	"CompassAgentAbsent": {
		{"no agent is scraped", nil, absent("Nobody renews the client certificate, and changes in Compass do not reach the cluster.")},
		{"an agent waits for its configuration", map[string]string{acting(agentUp): steady(0)}, nil},
	},
	"OnboardingAbsent": {
		{"no controller is scraped", nil, absent("Clusters are not taken into Compass, and tokens that nobody used are not replaced.")},
		{"one waits for the Lease", map[string]string{series("appconn_onboard_acting", "a"): steady(0)}, nil},
	},
	"OnboardingInactive": {
		{"all wait", map[string]string{series("appconn_onboard_acting", "a"): steady(0), series("appconn_onboard_acting", "b"): steady(0)},
			once("All wait for the Lease. Clusters are not taken into Compass, and tokens that nobody used are not replaced.")},
		{"one of two waits", map[string]string{series("appconn_onboard_acting", "a"): steady(0), series("appconn_onboard_acting", "b"): steady(1)}, nil},
	},
	"OnboardingDirectorFailing": {
		{"there is no access token", map[string]string{acting(onboardReasons, "reason", "AccessFailed"): steady(3), waiting(onboardReasons, "reason", "AccessFailed"): steady(0)},
			once("3 clusters are held up by AccessFailed.", "reason", "AccessFailed")},
		{"a cluster fails", map[string]string{acting(onboardReasons, "reason", "ClusterUnreachable"): steady(3)}, nil},
		{"it was so for ten minutes", map[string]string{acting(onboardReasons, "reason", "DirectorFailed"): "1+0x10 0+0x79"}, nil},
	},
	"OnboardingClustersFailing": {
		{"clusters are away", map[string]string{acting(onboardReasons, "reason", "ClusterUnreachable"): steady(2), waiting(onboardReasons, "reason", "ClusterUnreachable"): steady(0)},
			once("2 of them, because of ClusterUnreachable.", "reason", "ClusterUnreachable")},
		{"an agent spends tokens in vain", map[string]string{acting(onboardReasons, "reason", "TokenSpent"): steady(1)}, once("1 of them, because of TokenSpent.", "reason", "TokenSpent")},
		{"all are connected or wait for their agents", map[string]string{
			acting(onboardReasons, "reason", "Connected"): steady(5), acting(onboardReasons, "reason", "TokenUnused"): steady(1), acting(onboardReasons, "reason", "Pairing"): steady(1),
		}, nil},
	},
	"OnboardingRemovalStuck": {
		{"one is", map[string]string{acting("appconn_onboard_clusters", "state", "Offboarding"): steady(1)}, once("The Secrets of 1 clusters are deleted, and their runtimes are still registered.")},
		{"none is", map[string]string{acting("appconn_onboard_clusters", "state", "Offboarding"): steady(0), acting("appconn_onboard_clusters", "state", "Failed"): steady(1)}, nil},
	},
	"OnboardingVerificationOff": {
		{"of one cluster", map[string]string{series("appconn_onboard_unverified_clusters", "a"): steady(1)}, once("The kubeconfigs of 1 clusters verify nobody: whoever is on the way gets their credentials.")},
		{"of none", map[string]string{series("appconn_onboard_unverified_clusters", "a"): steady(0)}, nil},
	},
	"CompassNotConnected": {
		{"the last calls failed", condition("Connected", 0), once("The last calls to Compass failed, or the cluster is not paired. Changes in Compass do not reach the cluster.")},
		{"all is well", condition("Connected", 1), nil},
		{"another condition is False", condition("Ready", 0), nil},
		{"an agent waits for its configuration", map[string]string{acting(agentUp): steady(0)}, nil},
		{"a call failed ten minutes ago", map[string]string{acting(agentCondition, "type", "Connected"): "1+0x50 0+0x40"}, nil},
	},
	"CompassConnectionStalled": {
		{"a token is needed", condition("Stalled", 1), once("The agent needs a new one-time token, or a configuration that is right. It does not try again by itself.")},
		{"all is well", condition("Stalled", 0), nil},
	},
	"CompassCertificateEnding": {
		{"eight of ninety days are left", certificate(8 * day), once("It ends in 8d 0h 0m 0s. With it ends the connection, and only a new one-time token brings it back.")},
		{"it has ended", certificate(-20 * minute), once("It has ended. With it ends the connection, and only a new one-time token brings it back.")},
		{"ten of ninety days are left", certificate(10 * day), nil},
		{"there is none", map[string]string{acting(agentNotAfter): steady(0), acting(agentNotBefore): steady(0)}, nil},
	},
	"CompassCertificateNotRenewed": {
		{"forty of the fifty-four minutes for it are gone", overdue(40 * minute), once("Its renewal was due 40m 0s ago.")},
		{"five of them are gone", overdue(5 * minute), nil},
		{"it is not due yet", certificate(30 * day), nil},
		{"there is none", map[string]string{acting(agentNotAfter): steady(0), acting(agentRenewal): steady(0)}, nil},
	},
	"CompassSyncStale": {
		{"the last sync succeeded fifty minutes ago", map[string]string{acting(agentNotAfter): steady(90 * day), acting(agentSynced): steady(end - 50*minute), waiting(agentSynced): steady(0)},
			once("Applications and credentials were last brought into place 50m 0s ago.")},
		// Since the clock starts at 0, never has to lie far before it.
		{"no sync ever succeeded", map[string]string{acting(agentNotAfter): steady(90 * day), acting(agentSynced): steady(-1.7e9)}, once("Applications and credentials were never brought into place.")},
		{"each minute a sync succeeds", map[string]string{acting(agentNotAfter): steady(90 * day), acting(agentSynced): growing(minute), waiting(agentSynced): steady(0)}, nil},
		{"the cluster is not paired", map[string]string{acting(agentNotAfter): steady(0), acting(agentSynced): steady(0)}, nil},
	},
	"CompassPruneBlocked": {
		{"deletions are held back", condition("PruneBlocked", 1), once("So many of them are missing, or the answer of Compass was so incomplete, that the agent does not believe it.")},
		{"all is well", condition("PruneBlocked", 0), nil},
		{"it was over ten minutes ago", map[string]string{acting(agentCondition, "type", "PruneBlocked"): "1+0x50 0+0x40"}, nil},
	},
	"ApplicationsFailing": {
		{"two of one reason and one of another", map[string]string{acting(agentFailed, "reason", "InvalidName"): steady(2), acting(agentFailed, "reason", "NameTaken"): steady(1)},
			append(once("2 of them, because of InvalidName.", "reason", "InvalidName"), once("1 of them, because of NameTaken.", "reason", "NameTaken")...)},
		{"none", map[string]string{acting(agentApps, "state", "failed"): steady(0)}, nil},
		{"one that was mended", map[string]string{acting(agentFailed, "reason", "InvalidName"): "1+0x50 stale"}, nil},
	},
	"ApplicationsWithoutCredentials": {
		{"of ten that are synced, eight are ready", map[string]string{acting(agentApps, "state", "synced"): steady(10), acting(agentApps, "state", "ready"): steady(8)},
			once("2 Applications do not have each credential that they are meant to have.")},
		{"all are ready", map[string]string{acting(agentApps, "state", "synced"): steady(10), acting(agentApps, "state", "ready"): steady(10), acting(agentApps, "state", "failed"): steady(3)}, nil},
	},
	"GatewayAbsent": {
		{"no gateway is scraped", nil, absent("Workloads can't call external systems.")},
		{"one gateway runs, without Applications", map[string]string{series("central_application_gateway_applications", "a"): steady(0)}, nil},
	},
	"GatewayCredentialsFailing": {
		{"every second call", map[string]string{api(gatewayCalls, "code", "502", "source", "credentials"): growing(10), api(gatewayCalls, "code", "200", "source", "none"): growing(10)},
			once("50% of the calls of shop/orders/api end since its token endpoint, or CSRF token endpoint, gives none.", "application", "shop", "service", "orders", "entry", "api")},
		{"one in fifty", map[string]string{api(gatewayCalls, "code", "502", "source", "credentials"): growing(1), api(gatewayCalls, "code", "200", "source", "none"): growing(49)}, nil},
		{"they failed, and nobody calls any more", map[string]string{api(gatewayCalls, "code", "502", "source", "credentials"): steady(100)}, nil},
		{"the API itself fails", map[string]string{api(gatewayCalls, "code", "502", "source", "target"): growing(10)}, nil},
	},
	"GatewayTargetFailing": {
		{"every call", map[string]string{api(gatewayCalls, "code", "502", "source", "target"): growing(1)},
			once("100% of the calls of shop/orders/api end since the API fails, is away, or is not trusted.", "application", "shop", "service", "orders", "entry", "api")},
		{"one in fifty", map[string]string{api(gatewayCalls, "code", "502", "source", "target"): growing(1), api(gatewayCalls, "code", "200", "source", "none"): growing(49)}, nil},
		{"the API refuses what callers ask for", map[string]string{api(gatewayCalls, "code", "404", "source", "none"): growing(10)}, nil},
	},
	"GatewayBreakerOpen": {
		{"it is open in one of two gateways", map[string]string{api(gatewayBreaker): steady(1), series(gatewayBreaker, "b", "application", "shop", "service", "orders", "entry", "api"): steady(0)},
			once("shop/orders/api failed so often that the gateway leaves it alone, but for one call now and then.", "application", "shop", "service", "orders", "entry", "api")},
		{"it is closed", map[string]string{api(gatewayBreaker): steady(0)}, nil},
		{"it was open for a minute", map[string]string{api(gatewayBreaker): "0+0x57 1+0x1 0+0x30"}, nil},
	},
	"GatewayRouteProblems": {
		{"two Secrets are missing", map[string]string{series("central_application_gateway_route_problems", "a", "reason", "SecretMissing"): steady(2)},
			once("2 faults with the reason SecretMissing.", "reason", "SecretMissing")},
		{"none", map[string]string{series("central_application_gateway_applications", "a"): steady(2)}, nil},
	},
	"GatewayClientCertificateEnding": {
		{"ten days are left", map[string]string{api(gatewayEnd): steady(end + 10*day)}, once("That of shop/orders/api ends in 10d 0h 0m 0s.", "application", "shop", "service", "orders", "entry", "api")},
		{"it has ended", map[string]string{api(gatewayEnd): steady(60)}, once("That of shop/orders/api has ended.", "application", "shop", "service", "orders", "entry", "api")},
		{"fifteen days are left", map[string]string{api(gatewayEnd): steady(end + 15*day)}, nil},
	},
	"GatewayTargetCertificateEnding": {
		{"three days are left", map[string]string{api(gatewayTargetEnd): steady(end + 3*day)}, once("That which shop/orders/api shows ends in 3d 0h 0m 0s.", "application", "shop", "service", "orders", "entry", "api")},
		{"it has ended", map[string]string{api(gatewayTargetEnd): steady(60)}, once("That which shop/orders/api shows has ended.", "application", "shop", "service", "orders", "entry", "api")},
		{"eight days are left", map[string]string{api(gatewayTargetEnd): steady(end + 8*day)}, nil},
	},
	"GatewayVerificationOff": {
		{"of one Application", map[string]string{series("central_application_gateway_applications_without_tls_verification", "a"): steady(1)},
			once("1 Applications have spec.skipVerify: whoever is on the way can read their credentials.")},
		{"of none", map[string]string{series("central_application_gateway_applications_without_tls_verification", "a"): steady(0)}, nil},
	},
	"ValidatorAbsent": {
		{"no validator is scraped", nil, absent("External systems can't send events.")},
		{"one runs that is not ready", map[string]string{series("validator_ready", "a"): steady(0)}, nil},
	},
	"ValidatorNotReady": {
		{"none of two is ready", map[string]string{series("validator_ready", "a"): steady(0), series("validator_ready", "b"): steady(0)},
			once("Applications, or the list of denied certificates, can't be read. External systems can't send events.")},
		{"one of two is ready", map[string]string{series("validator_ready", "a"): steady(0), series("validator_ready", "b"): steady(1)}, nil},
	},
	"ValidatorRefusing": {
		{"every fourth event", map[string]string{
			series(eventRequests, "a", "application", "shop", "decision", "refused", "reason", "wrong_certificate"): growing(10),
			series(eventRequests, "a", "application", "shop", "decision", "accepted", "reason", "delivered"):        growing(30),
		}, once("25% of the requests for shop are refused.", "application", "shop")},
		{"one in ten", map[string]string{
			series(eventRequests, "a", "application", "shop", "decision", "refused", "reason", "wrong_certificate"): growing(10),
			series(eventRequests, "a", "application", "shop", "decision", "accepted", "reason", "delivered"):        growing(90),
		}, nil},
		{"all, of one in a minute", map[string]string{series(eventRequests, "a", "application", "shop", "decision", "refused", "reason", "wrong_certificate"): growing(1)}, nil},
		{"the publisher refuses", map[string]string{series(eventRequests, "a", "application", "shop", "decision", "failed", "reason", "publisher_refused"): growing(30)}, nil},
	},
	"ValidatorPublisherAway": {
		{"half of the attempts find nobody", map[string]string{
			series(eventAttempts, "a", "route", "v2", "code", "0"): growing(5), series(eventAttempts, "a", "route", "v1", "code", "503"): growing(5),
			series(eventAttempts, "a", "route", "v2", "code", "204"): growing(10),
		}, once("50% of the attempts to hand events over find no publisher. Events are lost unless their senders send them again.")},
		{"it refuses events", map[string]string{series(eventAttempts, "a", "route", "v2", "code", "400"): growing(10)}, nil},
		{"it was away, and no events come any more", map[string]string{series(eventAttempts, "a", "route", "v2", "code", "0"): steady(10)}, nil},
	},
	"ValidatorIdentityForwarded": {
		{"one request", map[string]string{series("validator_surplus_elements_total", "a"): "0+0x55 1+0x34"},
			once("The ingress gateway does not replace X-Forwarded-Client-Cert of its clients. The validator refuses such requests.")},
		{"one long ago", map[string]string{series("validator_surplus_elements_total", "a"): "0+0x5 1+0x85"}, nil},
		{"none", map[string]string{series("validator_surplus_elements_total", "a"): steady(0)}, nil},
	},
	"ValidatorClientCertificateEnding": {
		{"ten days are left", map[string]string{series(eventClientEnd, "a", "application", "shop", "client", "id"): steady(end + 10*day)},
			once("That of the client id of shop ends in 10d 0h 0m 0s.", "application", "shop", "client", "id")},
		{"it has ended", map[string]string{series(eventClientEnd, "a", "application", "shop", "client", "id"): steady(60)},
			once("That of the client id of shop has ended.", "application", "shop", "client", "id")},
		{"another validator saw the next one", map[string]string{
			series(eventClientEnd, "a", "application", "shop", "client", "id"): steady(end + 10*day), series(eventClientEnd, "b", "application", "shop", "client", "id"): steady(end + 300*day),
		}, nil},
		{"fifteen days are left", map[string]string{series(eventClientEnd, "a", "application", "shop", "client", "id"): steady(end + 15*day)}, nil},
	},
	"ValidatorDenyListUnreadable": {
		{"two lines", map[string]string{series("validator_denied_certificates_unreadable", "a"): steady(2)}, once("2 lines deny nobody.")},
		{"none", map[string]string{series("validator_denied_certificates_unreadable", "a"): steady(0)}, nil},
	},
}
