package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/simulator/compass"
)

// seedVariable makes the test's binary play Compass, with the inventory of the file that it names: in a process of its
// own, so that its memory does not count as the agent's.
const seedVariable = "FLEET_TEST_COMPASS_SEED"

func startCompass(tb testing.TB, seed compass.Seed) *compass.Server {
	tb.Helper()
	server, err := compass.Start(context.Background(), compass.Options{Seed: seed})
	must(tb, err)
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Error(err)
		}
	})
	return server
}

func runtimeToken(tb testing.TB, server *compass.Server) compass.Token {
	tb.Helper()
	token, err := server.Admin().RuntimeToken(runtimeID)
	must(tb, err)
	return token
}

// playCompass is the whole of the other process: it prints the administrator's URL, and ends with its standard input.
func playCompass(file string) int {
	fail := func(err error) int {
		_, _ = fmt.Fprintln(os.Stderr, "simulated Compass:", err)
		return 1
	}
	f, err := os.Open(file)
	if err != nil {
		return fail(err)
	}
	seed, err := compass.ParseSeed(f)
	if err != nil {
		return fail(err)
	}
	server, err := compass.Start(context.Background(), compass.Options{Seed: seed})
	if err != nil {
		return fail(err)
	}
	_, _ = fmt.Println(server.AdminURL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := server.Close(); err != nil {
		return fail(err)
	}
	return 0
}

// compassProcess is Compass in another process.
type compassProcess struct {
	tb  testing.TB
	url string
	// ca of its servers' certificates.
	ca []byte
}

func startCompassProcess(tb testing.TB, seed compass.Seed) *compassProcess {
	tb.Helper()
	text, err := json.Marshal(seed)
	must(tb, err)
	file := filepath.Join(tb.TempDir(), "seed.json")
	must(tb, os.WriteFile(file, text, 0o600))
	self, err := os.Executable()
	must(tb, err)
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = append(os.Environ(), seedVariable+"="+file), os.Stderr
	in, err := cmd.StdinPipe()
	must(tb, err)
	out, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	tb.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("simulated Compass: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	must(tb, err)
	c := &compassProcess{tb: tb, url: strings.TrimSpace(line)}
	var endpoints struct{ ServerCA string }
	c.call(http.MethodGet, "/v1/endpoints", nil, &endpoints)
	c.ca = []byte(endpoints.ServerCA)
	return c
}

// call is one call of the administrator's API.
func (c *compassProcess) call(method, path string, in, out any) {
	c.tb.Helper()
	var body []byte
	if in != nil {
		var err error
		body, err = json.Marshal(in)
		must(c.tb, err)
	}
	request, err := http.NewRequestWithContext(c.tb.Context(), method, c.url+path, bytes.NewReader(body))
	must(c.tb, err)
	response, err := http.DefaultClient.Do(request)
	must(c.tb, err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	must(c.tb, err)
	if response.StatusCode >= 300 {
		c.tb.Fatalf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	if out != nil {
		must(c.tb, json.Unmarshal(answer, out))
	}
}

func lower(name string) string { return strings.ToLower(name) }
