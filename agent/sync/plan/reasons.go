package plan

// Reasons of the condition Synchronized, and of failures.
const (
	// ReasonUpToDate: the Application holds what Compass says.
	ReasonUpToDate = "UpToDate"
	// ReasonDuplicateName: another system has the same name.
	ReasonDuplicateName = "DuplicateName"
	// ReasonInvalidName: Kubernetes does not take the system's name.
	ReasonInvalidName = "InvalidName"
	// ReasonInvalidData: Compass sent something that cannot be used.
	ReasonInvalidData = "InvalidData"
	// ReasonNameTaken: there is an Application of that name that does not come from Compass.
	ReasonNameTaken = "NameTaken"
	// ReasonAmbiguousAPIs: two APIs have the same URL at the gateway, which refuses both.
	ReasonAmbiguousAPIs = "AmbiguousAPIs"
	// ReasonUnnamedAPIs: nothing is left of a bundle's or an API's name in the URL at the gateway.
	ReasonUnnamedAPIs = "UnnamedAPIs"
	// ReasonSecretTaken: there is a Secret of that name that is not the Application's.
	ReasonSecretTaken = "SecretTaken"
	// ReasonWriteFailed: the API server did not take an object.
	ReasonWriteFailed = "WriteFailed"
	// ReasonPendingDeletion: Compass no longer names the system; the Application is kept until that is proven.
	ReasonPendingDeletion = "PendingDeletion"
)

// Reasons of the condition CredentialsReady.
const (
	// ReasonStored: every credential is in its Secret.
	ReasonStored = "Stored"
	// ReasonNoCredentials: Compass names no credentials.
	ReasonNoCredentials = "NoCredentials"
	// ReasonPending: Compass has not issued the credentials yet.
	ReasonPending = "Pending"
	// ReasonPendingRemoval: Compass no longer names credentials that it named before; they are kept until that is proven.
	ReasonPendingRemoval = "PendingRemoval"
	// ReasonUnknownCredentials: Compass sent a kind of credentials that is not supported.
	ReasonUnknownCredentials = "UnknownCredentials"
	// ReasonEmptyCredentials: a part of the credentials is empty in Compass.
	ReasonEmptyCredentials = "EmptyCredentials"
	// ReasonPrivateKeyMissing: Compass sent a client certificate without its private key.
	ReasonPrivateKeyMissing = "PrivateKeyMissing"
	// ReasonInvalidCertificate: client certificate and private key do not fit, or are no PEM.
	ReasonInvalidCertificate = "InvalidCertificate"
	// ReasonSecretNotWritten: a Secret could not be written; the condition Synchronized says why.
	ReasonSecretNotWritten = "SecretNotWritten"
)
