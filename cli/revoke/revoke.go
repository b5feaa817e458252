// Package revoke is "appconn revoke": it has a cluster's client certificate revoked by Compass, for good. It reads the client
// Secret and the CompassConnection, calls the Connector, and writes nothing into the cluster.
package revoke

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/cli/terminal"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
)

const (
	// readTimeout bounds reading the cluster.
	readTimeout = 30 * time.Second
	// annotationConnectorURL of the client Secret, which the agent writes, counts where there is no CompassConnection.
	annotationConnectorURL = "compass.kyma-project.io/connector-url"
)

// usageError is what the command line lacks.
type usageError struct{ error }

// ExitCode is 2.
func (usageError) ExitCode() int { return 2 }

// Options of the command.
type Options struct {
	genericiooptions.IOStreams
	// Config says which cluster; it takes the same flags as kubectl.
	Config *genericclioptions.ConfigFlags
	// Secret is the client Secret, as namespace/name.
	Secret string
	// CompassCAFile names authorities to trust for Compass besides those of the system.
	CompassCAFile string
	// Yes says that it is meant.
	Yes bool
	// Clock is the real one, but in tests.
	Clock clock.PassiveClock

	secret  types.NamespacedName
	compass graphql.Options
	cluster *rest.Config
}

// NewOptions are the defaults.
func NewOptions(streams genericiooptions.IOStreams) *Options {
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil // --secret has it
	return &Options{IOStreams: streams, Config: config, Clock: clock.RealClock{}}
}

// BindFlags ties o to the command line.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Secret, "secret", "kyma-system/cluster-client-certificates", "Secret with the client certificate, as namespace/name")
	fs.StringVar(&o.CompassCAFile, "compass-ca-file", "", "PEM file of authorities to trust for Compass besides those of the system")
	fs.BoolVar(&o.Yes, "yes", false, "do it; without this flag the certificate is only shown")
	o.Config.AddFlags(fs)
}

// Complete reads the files that the flags name.
func (o *Options) Complete() error {
	namespace, name, ok := strings.Cut(o.Secret, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return usageError{fmt.Errorf("--secret %q: namespace/name is needed", o.Secret)}
	}
	o.secret = types.NamespacedName{Namespace: namespace, Name: name}
	o.compass = graphql.Options{UserAgent: "appconn"}
	var err error
	if o.CompassCAFile != "" {
		if o.compass.RootCAs, err = graphql.RootsFromFile(o.CompassCAFile); err != nil {
			return usageError{fmt.Errorf("--compass-ca-file: %w", err)}
		}
	}
	if o.cluster, err = o.Config.ToRESTConfig(); err != nil {
		return usageError{fmt.Errorf("the kubeconfig cannot be used: %w; name a file by --kubeconfig or KUBECONFIG, and a context in it by --context", err)}
	}
	return nil
}

// NewCommand makes the command.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	o := NewOptions(streams)
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Have the cluster's client certificate revoked by Compass, for good",
		Long: "Have the cluster's client certificate revoked by Compass, for good.\n\n" +
			"The agent cannot call Compass any more after that, until it is given a new one-time token. Without --yes the certificate is only shown.\n\n" +
			"The exit code is 0 when the certificate is revoked or has ended, 1 when it could not be revoked, 2 when nothing was tried.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Complete(); err != nil {
				return err
			}
			return o.Run(cmd.Context())
		},
	}
	o.BindFlags(cmd.Flags())
	return cmd
}

// Run shows the certificate, and has it revoked if that is meant.
func (o *Options) Run(ctx context.Context) error {
	credential, connectorURL, err := o.read(ctx)
	if err != nil {
		return usageError{err}
	}
	leaf := credential.Leaf()
	o.printf("Certificate  %s\nSubject      %s\nValid until  %s\nConnector    %s\n", credential.Fingerprint(), terminal.Line(leaf.Subject.String()), leaf.NotAfter.UTC().Format(time.RFC3339), terminal.Line(connectorURL))
	if !o.Clock.Now().Before(leaf.NotAfter) {
		o.printf("The certificate has ended: there is nothing to revoke.\n")
		return nil
	}
	if !o.Yes {
		return usageError{errors.New("nothing was done: --yes has this certificate revoked, for good")}
	}
	transport := graphql.NewTransport(o.compass)
	defer transport.CloseIdleConnections()
	transport.SetCertificate(credential.TLS())
	if err := connector.New(transport, connectorURL).Revoke(ctx); err != nil {
		return failed(err)
	}
	o.printf("The certificate is revoked. To connect the cluster again, write a new one-time token into the agent's configuration Secret.\n")
	return nil
}

// failed adds what a person can do.
func failed(err error) error {
	text := fmt.Errorf("the certificate could not be revoked: %w", err)
	switch graphql.KindOf(err) {
	case graphql.Ambiguous, graphql.Refused, graphql.CertificateRefused, graphql.CertificateExpired:
		return fmt.Errorf("%w; Compass does not accept it: it is revoked already, or parts of Compass are down", text)
	case graphql.ServerUntrusted:
		return fmt.Errorf("%w; --compass-ca-file names further authorities", text)
	}
	return text
}

// read gives the credential, and where the Connector is.
func (o *Options) read(ctx context.Context) (certs.Credential, string, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)); err != nil {
		return certs.Credential{}, "", err
	}
	c, err := client.New(o.cluster, client.Options{Scheme: scheme})
	if err != nil {
		return certs.Credential{}, "", err
	}
	var stored corev1.Secret
	if err := c.Get(ctx, o.secret, &stored); err != nil {
		return certs.Credential{}, "", fmt.Errorf("reading Secret %s: %w; --secret names another one", o.secret, err)
	}
	credential, err := certs.DecodeClient(stored.Data)
	if err != nil {
		return certs.Credential{}, "", fmt.Errorf("Secret %s: %w", o.secret, err)
	}
	var connection compassv1alpha1.CompassConnection
	err = c.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, &connection)
	if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
		return certs.Credential{}, "", fmt.Errorf("reading the CompassConnection: %w", err)
	}
	connectorURL := connection.Spec.ManagementInfo.ConnectorURL
	if connectorURL == "" {
		connectorURL = stored.Annotations[annotationConnectorURL]
	}
	if connectorURL == "" {
		return certs.Credential{}, "", fmt.Errorf("nothing says where the Connector is: neither spec.managementInfo.connectorUrl of CompassConnection %s nor annotation %s of Secret %s",
			compassv1alpha1.ConnectionName, annotationConnectorURL, o.secret)
	}
	return credential, connectorURL, nil
}

func (o *Options) printf(format string, args ...any) { _, _ = fmt.Fprintf(o.Out, format, args...) }
