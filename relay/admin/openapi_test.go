package admin

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestEveryRouteIsDocumented, and the other way round. That requests and answers
// are as documented is tested with the commands (TestCommandsSpeakTheDocument in
// cmd/srvrelay).
func TestEveryRouteIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, operations := range doc.Paths {
		for method := range operations {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	routes := Backend{}.routes().patterns
	for _, r := range routes {
		if !slices.Contains(documented, r) {
			t.Errorf("%s is not in docs/openapi.yaml", r)
		}
	}
	for _, d := range documented {
		if !slices.Contains(routes, d) {
			t.Errorf("docs/openapi.yaml has %s, which is no route", d)
		}
	}
}

// TestProblemsAreDocumented: programs go by the words.
func TestProblemsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/admin-api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []kind{
		badRequest, noToken, wrongOrigin, noMessage, noRoute, wrongMethod, exists, tooLarge, wrongHost, tooOften, broken, notReady,
	} {
		if !strings.Contains(string(text), "| `"+k.word+"` | "+strconv.Itoa(k.status)+" |") {
			t.Errorf("docs/admin-api.md does not have `%s` with status %d", k.word, k.status)
		}
	}
}
