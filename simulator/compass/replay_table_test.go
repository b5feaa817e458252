package compass

// How a recording's caller is known to Compass.
const (
	runtimeA    = "93dd2a98-ad13-417a-ad9e-3b8f0d85916b"
	runtimeC    = "418226a5-6c11-4726-b8fe-3f51924385f4"
	runtimeNone = "fbc919b1-57ca-4f0e-ac43-14cf12a4bda8" // of tenant a, in no formation
	tenantA     = "a1111111-1111-4111-8111-111111111111"

	flowAuth    = "2e2d0a7f-990c-40b8-994c-e3608887ec54"
	errorsAuth  = "1e9c8240-a344-49e3-8018-78184ed48b3f"
	revokedAuth = "090d2729-bffe-419d-87b7-8ec277f28865"
	deletedAuth = "a6d87ec4-1058-49f6-9e60-f996939d49a3"
	noneAuth    = "e0617196-7de1-4a31-909b-64290d0ff2c1"
	pagingAuth  = "a725ac7e-2606-4ab3-b129-190c6115fd6e"
	outageAuth  = "27affb8d-6f03-4a77-aae1-9d7b7543b42c"
)

// replayCase is what must be so before a recorded request is sent.
type replayCase struct {
	file string
	// precondition for people; prepare brings it about.
	precondition string
	prepare      func(*replayWorld)
	// goesOn keeps the faults that the recording before needed.
	goesOn bool
	// either is the other answer that the real one gives to the same, made
	// out of the recorded one.
	either func(answer map[string]any)
}

// replayGroups each share a world and are replayed in this order. Every
// recording stands here, with nothing left out.
var replayGroups = map[string][]replayCase{
	"flow": {
		{file: "01-one-time-token", precondition: "an administrator of the tenant, and a Runtime that was never connected"},
		{file: "02-configuration-with-token", precondition: "the token of step 01, under the recorded ids", prepare: (*replayWorld).adoptFirstToken},
		{file: "03-sign-csr-with-token", precondition: "the token of step 02, under the recorded id", prepare: freshToken(flowAuth)},
		{file: "04-viewer-with-certificate", precondition: "the first certificate of the system auth", prepare: certificate("old", flowAuth)},
		{file: "05-runtime-before-sync", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "06-applications-agent-query", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "07-applications-full-query", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "08-applications-no-tenant-header", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "09-set-runtime-label-events", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "10-set-runtime-label-console", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "11-set-runtime-label-variable", precondition: "the same certificate", prepare: certificate("old", flowAuth)},
		{file: "12-runtime-after-labels", precondition: "labels of steps 09 to 11", prepare: certificate("old", flowAuth)},
		{file: "13-eventing-configuration-after-label", precondition: "labels of steps 09 to 11", prepare: certificate("old", flowAuth)},
		{file: "14-request-bundle-instance-auth", precondition: "a bundle without credentials", prepare: certificate("old", flowAuth)},
		{file: "15-configuration-with-certificate", precondition: "the first certificate", prepare: certificate("old", flowAuth)},
		{file: "16-sign-csr-with-certificate", precondition: "the first certificate", prepare: certificate("old", flowAuth)},
		{file: "17-renewed-certificate-works", precondition: "a second certificate of the same system auth", prepare: certificate("new", flowAuth)},
		{file: "18-old-certificate-still-works", precondition: "the first certificate, after the second", prepare: certificate("old", flowAuth)},
		{file: "19-revoke-old-certificate", precondition: "the first certificate", prepare: certificate("old", flowAuth)},
		{file: "20-old-certificate-director-after-revocation", precondition: "the first certificate, revoked in step 19", prepare: certificate("old", flowAuth)},
		{file: "21-old-certificate-connector-after-revocation", precondition: "the first certificate, revoked in step 19", prepare: certificate("old", flowAuth)},
		{file: "22-old-certificate-revoke-again", precondition: "the first certificate, revoked in step 19", prepare: certificate("old", flowAuth)},
		{file: "23-renewed-certificate-still-works", precondition: "the second certificate", prepare: certificate("new", flowAuth)},
	},
	"errors": {
		{file: "01-token-missing", precondition: "none"},
		{file: "02-token-garbage", precondition: "none"},
		{file: "04-token-used", precondition: "the same request was sent once", prepare: usedToken("ee5446e4-2ad5-476d-ade2-e4d564aa982e")},
		{file: "05-token-query-parameter", precondition: "a fresh token, in the query", prepare: freshToken("ee5446e4-2ad5-476d-ade2-e4d564aa982e")},
		{file: "07-token-spoofed-header", precondition: "a system auth of the id in the header", prepare: knownAuth("072ae8b5-aa47-499b-a479-783a932a165b", runtimeA)},
		{file: "08-token-revoke", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "10-token-unknown-field", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "12-token-empty-body", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "14-sign-with-first-token", precondition: "a fresh token of another system auth than the request names", prepare: freshToken(errorsAuth)},
		{file: "15-csr-ok", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "17-csr-garbage-base64", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "18-csr-empty", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "20-csr-pem-broken-der", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "21-csr-bad-signature", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "23-csr-wrong-c", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "24-csr-wrong-o", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "26-csr-wrong-l", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "27-csr-wrong-st", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "29-csr-missing-o", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "30-csr-missing-ou", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "32-csr-missing-st", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "33-csr-two-ous", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "35-csr-ed25519", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "36-csr-rsa3072", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "38-csr-sha512", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "39-csr-san", precondition: "a fresh token of the system auth in the request", prepare: tokenForCSR},
		{file: "41-csr-retry-same-token", precondition: "the token was used for a request that is refused", prepare: tokenSpentOnBadCSR},
		{file: "42-csr-null", precondition: "a fresh token", prepare: freshToken(errorsAuth)},
		{file: "44-cert-self-signed", precondition: "a certificate that signed itself", prepare: (*replayWorld).selfSigned},
		{file: "45-cert-expired", precondition: "a certificate that expired an hour ago", prepare: (*replayWorld).expired},
		{file: "47-cert-foreign-subject-director", precondition: "a certificate of the right CA with the recorded subject", prepare: certificate("foreign", errorsAuth)},
		{file: "48-cert-unknown-cn-director", precondition: "a certificate of the right CA for no system auth", prepare: certificate("unknown", "")},
		{file: "50-cert-leaf-only", precondition: "a certificate without the CA in the chain", prepare: certificate("leaf", errorsAuth)},
		{file: "51-cert-connector-sign-bad-csr", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "53-cert-on-token-endpoint", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "54-tenant-other", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "56-tenant-subaccount", precondition: "a certificate; the Runtime is labelled with the subaccount", prepare: certificate("", errorsAuth)},
		{file: "57-tenant-empty", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "59-runtime-sibling", precondition: "a certificate; another Runtime in the tenant", prepare: certificate("", errorsAuth)},
		{file: "60-runtime-other-tenant", precondition: "a certificate; a Runtime in another tenant", prepare: certificate("", errorsAuth)},
		{file: "62-runtime-not-uuid", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "63-runtime-query-unknown", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "65-runtimes-list", precondition: "a certificate; two Runtimes in the tenant", prepare: certificate("", errorsAuth)},
		{file: "66-label-sibling", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "68-label-key-dash", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "69-label-key-dot", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "71-label-key-256", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "72-label-key-257", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "74-label-value-null", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "75-label-value-number", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "77-label-value-zero", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "78-label-immutable", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "80-label-protected", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "81-label-delete-unknown", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "83-scope-missing-mutation", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "84-scope-missing-field", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "86-applications-list", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "87-application-in-scenario", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "89-syntax-error", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "90-unknown-field", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "92-wrong-variable-type", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "93-not-json", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "95-content-type", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "96-batch", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "98-partial-agent", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "99-page-size-0", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "100-page-size--1", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "102-page-size-200", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "103-page-size-201", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "105-bundle-page-size-0", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "106-api-page-size-0", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "108-api-page-size-201", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "109-page-size-null", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "110-cursor-garbage", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "111-cursor-beyond", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "113-legacy-packages", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "114-revoked-viewer", precondition: "a certificate that was revoked", prepare: revokedCertificate},
		{file: "116-revoked-agent-query", precondition: "a certificate that was revoked", prepare: revokedCertificate},
		{file: "117-revoked-label", precondition: "a certificate that was revoked", prepare: revokedCertificate},
		{file: "119-revoked-sign", precondition: "a certificate that was revoked", prepare: revokedCertificate},
		{file: "121-auth-deleted-configuration", precondition: "a certificate whose system auth was deleted", prepare: deletedAuthCertificate},
		{file: "122-no-formation-applications", precondition: "a certificate of a Runtime in no formation", prepare: runtimeWithoutFormation},
		{file: "124-runtime-unregistered-configuration", precondition: "a certificate of a Runtime that was unregistered", prepare: unregisteredRuntime},
		{file: "125-ott-runtime-unknown", precondition: "an administrator of the tenant"},
		{file: "127-ott-by-runtime", precondition: "a certificate", prepare: certificate("", errorsAuth)},
		{file: "128-ott-by-runtime-for-sibling", precondition: "a certificate; another Runtime in the tenant", prepare: certificate("", errorsAuth)},
	},
	"paging": {
		{file: "01-apps-default", precondition: "205 Applications in the formation", prepare: certificateOf("", pagingAuth, runtimeC)},
		{file: "03-apps-100", precondition: "205 Applications in the formation", prepare: certificateOf("", pagingAuth, runtimeC)},
		{file: "05-apps-100-page-3", precondition: "205 Applications in the formation", prepare: certificateOf("", pagingAuth, runtimeC)},
		{file: "09-bundles-page-2", precondition: "205 bundles in an Application", prepare: certificateOf("", pagingAuth, runtimeC)},
		{file: "11-apis-page-2-by-bundle", precondition: "205 APIs in a bundle", prepare: certificateOf("", pagingAuth, runtimeC)},
		{file: "13-aliases-same-object", precondition: "205 bundles in an Application", prepare: certificateOf("", pagingAuth, runtimeC), either: secondAliasWins},
	},
	"outage": {
		{file: "01-director", precondition: "a certificate; Director is down", prepare: down(FaultDirectorDown, certificate("", outageAuth))},
		{file: "03-connector-token", precondition: "a fresh token; Director is down", prepare: down(FaultDirectorDown, freshToken(outageAuth))},
		{file: "05-director", precondition: "a certificate; the database is down", prepare: down(FaultDatabaseDown, certificate("", outageAuth))},
		{file: "07-connector-token", precondition: "a fresh token; the database is down", prepare: down(FaultDatabaseDown, freshToken(outageAuth))},
		{file: "09-connector-certificate", precondition: "a certificate; the hydrator is down", prepare: down(FaultHydratorDown, certificate("", outageAuth)), either: oathkeepersOwnText},
		{file: "11-director", precondition: "a certificate; the Connector is down", prepare: down(FaultConnectorDown, certificate("", outageAuth))},
		{file: "13-connector-token", precondition: "a fresh token; the Connector is down", prepare: down(FaultConnectorDown, freshToken(outageAuth))},
		{file: "15-director", precondition: "a certificate; the gateway is down", prepare: down(FaultGatewayDown, certificate("", outageAuth))},
		{file: "17-connector-token", precondition: "a fresh token; the gateway is down", prepare: down(FaultGatewayDown, freshToken(outageAuth))},
		{file: "19-second-token-expired", precondition: "a token past its life", prepare: expiredToken(outageAuth)},
		{file: "21-certificate-expired-director", precondition: "a certificate that expired an hour ago", prepare: (*replayWorld).expired},
		{file: "23-rate-limit", precondition: "a certificate; a rate limit that the next request reaches", prepare: rateLimitAfter(1)},
		{file: "25-rate-limit", precondition: "the rate limit is reached", goesOn: true, prepare: certificate("", outageAuth)},
	},
}
