package gateway_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(envBare); config != "" {
		if err := serveBare(config, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runTests(m))
}

// runTests looks for goroutines that are left over, after the connections to the API server are closed.
func runTests(m *testing.M) int {
	config, stop, err := kubetest.Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubetest:", err)
		return 1
	}
	cluster = *config
	code := m.Run()
	if transport, err := rest.TransportFor(&cluster); err == nil {
		utilnet.CloseIdleConnectionsFor(transport)
	}
	stop()
	if err := goleak.Find(
		// client-go leaves this behind when a watch of metadata ends while an event is on its way.
		goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop"),
		// controller-runtime leaves these behind when a cache ends that never synchronised.
		goleak.IgnoreTopFunction("sigs.k8s.io/controller-runtime/pkg/cache.newMultiNamespaceInformer.func1"),
		goleak.IgnoreTopFunction("sigs.k8s.io/controller-runtime/pkg/cache.newMultiNamespaceInformerHandlerRegistration.func1"),
	); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
