package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

// Those who are used to envtest find its two programs in localkube, as symbolic links ("make assets").
func TestLocalkubeServesEnvtest(t *testing.T) {
	binary := os.Getenv("LOCALKUBE")
	if binary == "" {
		t.Fatal("LOCALKUBE is not set: run the tests by \"make test\", or set it to the binary that \"make build\" put at bin/localkube")
	}
	assets := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if err := os.Symlink(binary, filepath.Join(assets, name)); err != nil {
			t.Fatal(err)
		}
	}
	environment := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDDirectoryPaths:     []string{kubetest.CRDs()},
		ErrorIfCRDPathMissing: true,
	}
	cfg, err := environment.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "any"}}, metav1.CreateOptions{})
	if err != nil {
		t.Error(err)
	}
	resources, err := client.Discovery().ServerResourcesForGroupVersion("applicationconnector.kyma-project.io/v1alpha1")
	if err != nil || len(resources.APIResources) == 0 {
		t.Errorf("resources of the installed definitions: %v, %v", resources, err)
	}
}
