package compass

import (
	"slices"
	"sync"
	"testing"
)

func TestWhoLooksForSecretsIsToldEachOneTimeToken(t *testing.T) {
	var mu sync.Mutex
	var told []string
	s := startCompass(t, Options{Seed: shopSeed(), OnSecret: func(name, text string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, name+" "+text)
	}})
	first, err := s.Admin().RuntimeToken(testRuntime)
	if err != nil {
		t.Fatal(err)
	}
	var configuration configurationResult
	caller{t: t, server: s, token: first.Token}.query(s.TokenURL(), configurationQuery, nil).data(t, &configuration)
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"a one-time token " + first.Token, "a one-time token " + configuration.Result.Token.Token}; !slices.Equal(told, want) {
		t.Errorf("told was %q, want %q", told, want)
	}
}
