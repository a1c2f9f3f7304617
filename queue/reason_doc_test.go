package queue

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"
)

var updateReasons = flag.Bool("update-reasons", false, "write docs/reasons.md anew")

// TestReasonsAreDocumented: every code is documented once, and docs/reasons.md
// is what the table says.
func TestReasonsAreDocumented(t *testing.T) {
	src, err := os.ReadFile("reason.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]int{}
	for _, d := range ReasonDocs {
		documented[d.Code]++
		if d.Meaning == "" || d.Next == "" {
			t.Errorf("%s: meaning or next step is missing", d.Code)
		}
	}
	codes := regexp.MustCompile(`Reason\w+\s+= "([a-z0-9-]+)"`).FindAllSubmatch(src, -1)
	for _, m := range codes {
		if n := documented[string(m[1])]; n != 1 {
			t.Errorf("%s is documented %d times", m[1], n)
		}
	}
	if len(codes) != len(ReasonDocs) {
		t.Errorf("%d codes, %d documented", len(codes), len(ReasonDocs))
	}

	var page bytes.Buffer
	page.WriteString("# Reason codes\n\nEvery decision carries one of these. They are stable, and the same in the log (`reason`),\nin `srvrelay explain`, in `srvrelay queue list --json` and in reports. This page is\ngenerated from `queue/reason_doc.go`.\n\n| reason | what it means | what to do |\n|---|---|---|\n")
	for _, d := range ReasonDocs {
		fmt.Fprintf(&page, "| `%s` | %s | %s |\n", d.Code, d.Meaning, d.Next)
	}
	const file = "../docs/reasons.md"
	if *updateReasons {
		if err := os.WriteFile(file, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || !bytes.Equal(have, page.Bytes()) {
		t.Errorf("%s is stale (-update-reasons writes it anew): %v", file, err)
	}
}
