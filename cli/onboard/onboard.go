// Package onboard is "appconn onboard" and "appconn offboard": it registers a cluster as a runtime in Compass's Director,
// writes the Secret by which the agent pairs the cluster, and waits until it is connected; and the way back. Each step looks
// first at what is there, so that it can be run again after any failure. It owns what an administrator's credentials are
// used for, and never sees the cluster's private key.
package onboard

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard/controller"
	"github.com/application-connector/application-connector/cli/onboard/enrolment"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

const (
	// Label is the label of a runtime in Director by which a cluster is found again.
	Label = enrolment.Label
	// AnnotationExpires, on the configuration Secret, is when the token in it ends, by RFC 3339.
	AnnotationExpires = enrolment.AnnotationExpires
)

// spare is how long a token must still be good to be left as it is.
const spare = 5 * time.Minute

// requestTimeout bounds one request to the cluster, unless --request-timeout says otherwise.
const requestTimeout = 30 * time.Second

// Options of both commands.
type Options struct {
	genericiooptions.IOStreams
	// Config says which cluster; it takes the same flags as kubectl.
	Config *genericclioptions.ConfigFlags
	// DirectorURL is the URL of the Director's GraphQL API for administrators, https. Tenant is the tenant's id outside of
	// Compass. CredentialsFile holds the OAuth 2.0 client. CAFile names authorities to trust besides the system's.
	DirectorURL, Tenant, CredentialsFile, CAFile string
	// Name of the runtime, and Labels that it gets besides Label, when it is registered.
	Name   string
	Labels map[string]string
	// Secret is the configuration Secret, as namespace/name; ClientSecret that with the client certificate.
	Secret, ClientSecret string
	// Timeout is how long onboarding waits for the agent to connect; 0 does not wait.
	Timeout time.Duration
	// DryRun reads everything and changes nothing.
	DryRun bool
	// Clock is the real one, but in tests.
	Clock clock.Clock

	cluster       *rest.Config
	configuration types.NamespacedName
	certificate   types.NamespacedName
}

// NewOptions are the defaults.
func NewOptions(streams genericiooptions.IOStreams) *Options {
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil // --secret has it
	return &Options{
		IOStreams: streams, Config: config, Clock: clock.RealClock{}, Timeout: 10 * time.Minute,
		Secret: "kyma-system/compass-agent-configuration", ClientSecret: "kyma-system/cluster-client-certificates",
	}
}

// BindFlags ties o to the command line.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.DirectorURL, "director-url", o.DirectorURL, "URL of the Director's GraphQL API for administrators (https)")
	fs.StringVar(&o.Tenant, "tenant", o.Tenant, "the tenant, by its id outside of Compass")
	fs.StringVar(&o.CredentialsFile, "credentials", o.CredentialsFile, "YAML file with client_id, client_secret and tokens_endpoint of an OAuth 2.0 client that may register runtimes")
	fs.StringVar(&o.CAFile, "director-ca-file", o.CAFile, "PEM file of authorities to trust for the Director and the token endpoint, besides the system's")
	fs.StringVar(&o.Secret, "secret", o.Secret, "the agent's configuration Secret, as namespace/name")
	fs.BoolVar(&o.DryRun, "dry-run", o.DryRun, "say what would be done, and change nothing")
	o.Config.AddFlags(fs)
}

// bindOnboard ties what only onboarding has.
func (o *Options) bindOnboard(fs *pflag.FlagSet) {
	fs.StringVar(&o.Name, "name", o.Name, "name of the runtime, unique within the tenant; needed when it is registered")
	fs.StringToStringVar(&o.Labels, "label", o.Labels, "label of the runtime when it is registered, KEY=VALUE; may be repeated")
	fs.StringVar(&o.ClientSecret, "client-secret", o.ClientSecret, "Secret with the cluster's client certificate, as namespace/name; its identity is never deleted")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "how long to wait until the agent is connected; 0: not at all")
}

// labelKey is what Director admits.
var labelKey = regexp.MustCompile(`^[a-zA-Z0-9_]{1,256}$`)

// Validate names every option that cannot work and what would.
func (o *Options) Validate() error {
	var errs []error
	u, err := url.Parse(o.DirectorURL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		errs = append(errs, errors.New("--director-url: an https URL without credentials is needed"))
	}
	if o.Tenant == "" {
		errs = append(errs, errors.New("--tenant: the id of a tenant is needed"))
	}
	if o.CredentialsFile == "" {
		errs = append(errs, errors.New("--credentials: the path of a file is needed"))
	}
	for _, s := range []struct {
		flag, value string
		into        *types.NamespacedName
	}{{"--secret", o.Secret, &o.configuration}, {"--client-secret", o.ClientSecret, &o.certificate}} {
		namespace, name, ok := strings.Cut(s.value, "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			errs = append(errs, fmt.Errorf("%s=%q: namespace/name of a Secret is needed", s.flag, s.value))
		}
		*s.into = types.NamespacedName{Namespace: namespace, Name: name}
	}
	for key, value := range o.Labels {
		if !labelKey.MatchString(key) || key == Label || value == "" {
			errs = append(errs, fmt.Errorf("--label %s=%s: a key of letters, digits and _, not %s, and a value are needed", key, value, Label))
		}
	}
	if o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("--timeout=%s: must not be negative", o.Timeout))
	}
	return errors.Join(errs...)
}

// Complete reads the kubeconfig.
func (o *Options) Complete() error {
	var err error
	if o.cluster, err = o.Config.ToRESTConfig(); err != nil {
		return fmt.Errorf("the kubeconfig cannot be used: %w; name a file by --kubeconfig or KUBECONFIG, and a context in it by --context", err)
	}
	return nil
}

// NewCommand makes "onboard".
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	o := NewOptions(streams)
	cmd := o.command("onboard", "Register this cluster in Compass and pair it",
		"Register this cluster in Compass, write the one-time token into the cluster, and wait until the agent has paired it.\n\n"+
			"It can be run again after any failure: what is done is left as it is, and a cluster that is connected is not touched.",
		(*Options).Onboard)
	o.bindOnboard(cmd.Flags())
	cmd.AddCommand(controller.NewCommand(streams))
	return cmd
}

// NewOffboardCommand makes "offboard".
func NewOffboardCommand(streams genericiooptions.IOStreams) *cobra.Command {
	return NewOptions(streams).command("offboard", "Remove this cluster from Compass",
		"Remove the runtime of this cluster from Compass, so that its certificate stops working, and delete the Secret by which it paired.\n\n"+
			"Applications and their Secrets stay. It can be run again after any failure.",
		(*Options).Offboard)
}

func (o *Options) command(use, short, long string, run func(*Options, context.Context) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			if err := o.Complete(); err != nil {
				return err
			}
			// All that matters of what Kubernetes' libraries have to say is in the errors that they return.
			klog.SetLogger(logr.Discard())
			ctrllog.SetLogger(logr.Discard())
			return run(o, cmd.Context())
		},
	}
	o.BindFlags(cmd.Flags())
	return cmd
}

// session is one run of a command.
type session struct {
	*Options
	enrolment.Cluster
	// uid is that of the cluster.
	uid string
}

// begin reaches the cluster and the Director.
func (o *Options) begin(ctx context.Context) (*session, func(), error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, nil, err
	}
	if o.cluster.Timeout == 0 { // of --request-timeout
		o.cluster.Timeout = requestTimeout
	}
	kube, err := client.New(o.cluster, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, fmt.Errorf("the cluster at %s: %w", o.cluster.Host, err)
	}
	s := &session{Options: o, Cluster: enrolment.Cluster{Kube: kube, Configuration: o.configuration, Certificate: o.certificate, Tenant: o.Tenant}}
	if s.uid, err = s.UID(ctx); err != nil {
		return nil, nil, err
	}
	options := graphql.Options{UserAgent: "appconn"}
	if o.CAFile != "" {
		if options.RootCAs, err = graphql.RootsFromFile(o.CAFile); err != nil {
			return nil, nil, fmt.Errorf("--director-ca-file: %w", err)
		}
	}
	token, err := enrolment.NewAccessToken(ctx, o.CredentialsFile, options.RootCAs)
	if err != nil {
		return nil, nil, err
	}
	transport := graphql.NewTransport(options)
	s.Director = director.NewAsAdministrator(transport, o.DirectorURL, o.Tenant, token.Value)
	return s, transport.CloseIdleConnections, nil
}

// say tells one line of progress.
func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.Out, format+"\n", args...)
}

// would tells what is not done in a dry run, and reports whether this is one.
func (s *session) would(format string, args ...any) bool {
	if s.DryRun {
		s.say("would "+format, args...)
	}
	return s.DryRun
}

// register makes the runtime, unless there is one.
func (s *session) register(ctx context.Context, found *director.RegisteredRuntime) (string, error) {
	if found != nil {
		s.say("runtime %s (%s) is registered", found.Name, found.ID)
		return found.ID, nil
	}
	if s.Name == "" {
		return "", errors.New("--name: this cluster is not registered yet, and a name for it is needed")
	}
	if s.would("register runtime %s", s.Name) {
		return "", nil
	}
	id, err := s.Register(ctx, s.uid, s.Name, "registered by appconn onboard", s.Labels)
	if err != nil {
		return "", err
	}
	s.say("runtime %s (%s) registered", s.Name, id)
	return id, nil
}
