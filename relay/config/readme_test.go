package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestREADME: what the README and the chapters of the reference tell people to
// write is a configuration
// without problems and without warnings.
func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme = append(readme, strings.Replace(routesChapter, "```yaml\n", "```yaml\nhostname: relay.example.net\n", 1)...)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) < 2 {
		t.Fatalf("%d configurations in the README", len(blocks))
	}
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "srvrelay.yaml")
		if err := os.WriteFile(file, b[1], 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(file, nil, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, b[1])
			continue
		}
		if len(cfg.Warnings) > 0 {
			t.Errorf("%v\n%s", cfg.Warnings, b[1])
		}
	}
}
