package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSubmissionShown: what config show prints of the rules loads again, as the same.
func TestSubmissionShown(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(goldenDir, "submission.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadText(string(text))
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadText(c.Effective())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Effective())
	}
	if diff := cmp.Diff(c.Submission, again.Submission, compare); diff != "" {
		t.Error(diff)
	}
	if got := c.Submission.Senders[1].From[0]; got != "shared@xn--bcher-kva.example" {
		t.Errorf("from is %q", got)
	}
}
