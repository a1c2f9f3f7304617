package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const schemaFile = "../../docs/srvrelay.schema.json"

// onlyWeSee are the wrong files that are right to the schema, as what is wrong
// is between keys, in the meaning of a text, or in the notation.
var onlyWeSee = []string{
	"bans-max", "half-certificate", "homes-route", "inbound-trust", "key-only", "listener-taken", "no-certificate",
	"nobody", "oauth-keys", "oauth", "public-addresses", "queue-size", "recipients-list", "recipients-none", "recipients-unused", "route-credentials-stranger", "route-credentials-tls", "route-duplicate-target",
	"route-idle-keys", "route-ipv6", "route-password-missing", "route-password-twice", "route-port",
	"route-star-beside", "route-submission-clear", "route-verify-only", "socket-in-data-dir", "socket-length",
	"tag", "two-documents",
}

// TestJSONSchema: the stored schema is up to date; it accepts every good file,
// and refuses every file that is wrong in its structure.
func TestJSONSchema(t *testing.T) {
	checkGolden(t, schemaFile, JSONSchema())
	s := compileSchema(t)
	if v, _ := asJSON([]byte(Example())); s.Validate(v) != nil {
		t.Errorf("the example: %v", s.Validate(v))
	}
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var unseen []string
	refused := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		wrong, isWrong := strings.CutPrefix(name, "wrong-")
		v, err := asJSON(data)
		if err != nil {
			continue // no YAML, or nothing that JSON has
		}
		problem := s.Validate(v)
		switch {
		case !isWrong && problem != nil:
			t.Errorf("%s is right, and the schema says: %v", name, problem)
		case isWrong && problem == nil:
			unseen = append(unseen, wrong)
		case isWrong:
			refused++
		}
	}
	if !slices.Equal(unseen, onlyWeSee) {
		t.Errorf("wrong files that the schema accepts:\ngot  %q\nwant %q", unseen, onlyWeSee)
	}
	if refused < 30 {
		t.Errorf("the schema refuses only %d of the wrong files", refused)
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("srvrelay.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("srvrelay.schema.json") // checks it against its meta-schema, too
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is the YAML as an editor sees it.
func asJSON(text []byte) (any, error) {
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	if v == nil {
		v = map[string]any{} // an empty file
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(b))
}
