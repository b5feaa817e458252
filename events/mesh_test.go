package events_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
)

func TestTheStartSaysWhatTheMeshDoesWithTheHeaderOfClients(t *testing.T) {
	noLeaks(t)
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	const replaces, forwards = `"INFO","msg":"the mesh replaces`, `"WARN","msg":"the mesh forwards`
	details := func(value string) string {
		return "defaultConfig:\n  gatewayTopology:\n    forwardClientCertDetails: " + value + "\n    numTrustedProxies: 1\n"
	}
	for what, tc := range map[string]struct{ mesh, want string }{
		"set to replace":   {details("SANITIZE_SET"), replaces},
		"not set":          {"accessLogFile: /dev/stdout\n", replaces},
		"appended":         {details("APPEND_FORWARD"), forwards},
		"forwarded always": {details("ALWAYS_FORWARD_ONLY"), forwards},
		"forwarded":        {details("FORWARD_ONLY"), forwards},
		"a word of later":  {details("NEW_WORD"), forwards},
		"removed":          {details("SANITIZE"), `"WARN","msg":"the mesh removes`},
		"not YAML":         {"a: [", `"INFO","msg":"the settings of the mesh can't be checked`},
		"not there":        {"", `"INFO","msg":"no settings of the mesh to check`},
	} {
		t.Run(what, func(t *testing.T) {
			namespace := kubetest.Namespace(t, &cluster)
			if tc.mesh != "" {
				settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istio"}, Data: map[string]string{"mesh": tc.mesh}}
				if _, err := set.CoreV1().ConfigMaps(namespace).Create(t.Context(), settings, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			o := options(t, "http://127.0.0.1:1")
			o.MeshConfig = namespace + "/istio"
			log := &leaktest.Log{}
			running(t, o, log)
			eventually(t, tc.want, func() bool { return strings.Contains(log.String(), tc.want) })
		})
	}
}

func TestAnAccountThatMayNotSeeTheMeshServesAllTheSame(t *testing.T) {
	noLeaks(t)
	create(t, kube(t), application("mesh-shop", nil))
	o := options(t, publisher(t).URL)
	o.Kubeconfig = limitedKubeconfig(t)
	log := &leaktest.Log{}
	s := running(t, o, log)
	eventually(t, "said", func() bool { return strings.Contains(log.String(), "the settings of the mesh can't be checked") })
	if got := send(t, s, "mesh-shop", "mesh-shop"); got != 204 {
		t.Errorf("got %d", got)
	}
}
