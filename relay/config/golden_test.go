package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and docs/configuration.md anew")

const goldenDir = "../../testdata/config"

// testMachine makes the defaults the same on every machine.
var testMachine = machine{hostname: "host.example.net"}

var testEnv = []string{"HOME=/home/test"}

// loadText loads a text as if it were the file srvrelay.yaml.
func loadText(text string, environ ...string) (*Config, error) {
	return load(source{path: "srvrelay.yaml", text: []byte(text), environ: append(environ, testEnv...), machine: testMachine})
}

// TestGolden: a file named wrong-* has the wanted text of its error beside it,
// any other loads.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.yaml"))
	if err != nil || len(files) < 70 {
		t.Fatalf("found %d files (%v), want at least 70", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = load(source{path: name + ".yaml", text: text, environ: testEnv, machine: testMachine})
			if !strings.HasPrefix(name, "wrong-") {
				if err != nil {
					t.Errorf("a good file has problems:\n%v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("a wrong file has no problem")
			}
			checkGolden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func checkGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, file, want)
	}
}
