package queue

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readDSN prints for each file the report-type, the types of the parts, and
// the recipients, as Python's email package reads them; defects end it.
const readDSN = `
import email, email.policy, sys
for name in sys.argv[1:]:
    m = email.message_from_binary_file(open(name, "rb"), policy=email.policy.SMTPUTF8)
    parts = m.get_payload()
    for p in [m, *parts]:
        if p.defects:
            sys.exit("%s: %s" % (name, p.defects))
    status = parts[1].get_payload()
    if parts[1].get_content_type() == "message/global-delivery-status": # it does not know that type
        status = [email.message_from_string(b) for b in status[0].get_payload().split("\n\n")]
    finals = [b["Final-Recipient"] for b in status if b["Final-Recipient"]]
    print(m.get_param("report-type"), *[p.get_content_type() for p in parts], len(finals))
`

// A reader that is not ours makes the same of the reports.
func TestReportsReadByPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("SRVRELAY_NOSKIP") != "" {
			t.Fatal(err)
		}
		t.Skip("python3 is not installed")
	}
	args, want := []string{"-c", readDSN}, ""
	for name, s := range reports() {
		_, msg := BuildReport(s)
		params, parts := readReport(t, msg)
		types := params["report-type"]
		for _, p := range parts {
			typ, _, _ := strings.Cut(p.Header.Get("Content-Type"), ";")
			types += " " + typ
		}
		want += fmt.Sprintln(types, len(s.Rcpts))
		args = append(args, filepath.Join("..", "testdata", "dsn", name+".eml"))
	}
	out, err := exec.Command("python3", args...).CombinedOutput()
	if err != nil || string(out) != want {
		t.Errorf("%v\ngot\n%swant\n%s", err, out, want)
	}
}
