package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay/admin"
)

// queueRig is a relay whose DNS does not answer, so that all mail waits.
type queueRig struct {
	*testing.T
	config string
	relay  *relayProcess
}

func newQueueRig(t *testing.T) *queueRig {
	dir := t.TempDir()
	config := configFile(t, "hostname: relay.test\ndata_dir: "+dir+"\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\ndns: { servers: [\"127.0.0.1:1\"] }\nlog: { format: json }\n")
	return &queueRig{t, config, startRelay(t, config)}
}

// put hands a message in.
func (q *queueRig) put(from string, to ...string) {
	q.Helper()
	if refusal, err := submit(q.relay.address(), from, to, "", "Subject: x\n\nhello\n"); refusal != "" || err != nil {
		q.Fatal(refusal, err)
	}
}

// send also waits until its recipients have been put off, and their hops parked.
func (q *queueRig) send(from string, to ...string) {
	q.Helper()
	q.put(from, to...)
	for _, rcpt := range to {
		q.await("deferred", 1, "to", rcpt, "from", from)
	}
}

// await waits until the log has an event n times.
func (q *queueRig) await(event string, n int, pairs ...string) {
	q.Helper()
	want := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		want[pairs[i]] = pairs[i+1]
	}
	if !q.relay.await(waitLimit, func() bool { return q.relay.matching(event, want) >= n }) {
		q.Fatalf("no %d of %s %v in the log:\n%s", n, event, want, q.relay.log())
	}
}

// run is a command, its exit code and all the texts that it prints.
func (q *queueRig) run(code int, command string, want ...string) string {
	q.Helper()
	got, out := invoke(q.T, q.config, "", append([]string{"queue"}, strings.Fields(command)...)...)
	if got != code {
		q.Errorf("queue %s: exit %d, want %d:\n%s", command, got, code, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			q.Errorf("queue %s: %q is missing in\n%s", command, w, out)
		}
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimSpace(line))); n > 100 && !strings.HasPrefix(line, "{") && !strings.HasPrefix(line, "srvrelay: ") {
			q.Errorf("queue %s: a line of %d columns: %s", command, n, line)
		}
	}
	return out
}

// waiting lists "recipient state" of all that is in the queue, and the ids.
func (q *queueRig) waiting(filter string) (rcpts []string, ids []string) {
	q.Helper()
	code, out := invoke(q.T, q.config, "", append([]string{"queue", "list", "--json"}, strings.Fields(filter)...)...)
	out = out[strings.IndexByte(out, '['):] // behind what stderr says
	var list []admin.Message
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		q.Fatalf("exit %d, %v\n%s", code, err, out)
	}
	for _, m := range list {
		ids = append(ids, string(m.ID))
		for _, r := range m.Recipients {
			rcpts = append(rcpts, r.Address+" "+string(r.State))
		}
	}
	slices.Sort(rcpts)
	return rcpts, ids
}

func (q *queueRig) wants(filter string, want ...string) {
	q.Helper()
	if got, _ := q.waiting(filter); !slices.Equal(got, want) {
		q.Errorf("list %s: %q, want %q", filter, got, want)
	}
}

// TestQueueVerbs: every verb as an operator uses it, on the recipients that
// are chosen and on no others.
func TestQueueVerbs(t *testing.T) {
	q := newQueueRig(t)
	q.send("a@app.test", "u@one.test", "v@two.test")
	q.put("b@app.test", "w@one.test") // waits for its hop
	q.send("c@other.test", "x@three.test")
	_, ids := q.waiting("--domain one.test")
	if len(ids) != 2 {
		t.Fatal(ids)
	}

	q.wants("--domain one.test", "u@one.test deferred", "w@one.test queued")
	q.wants("--state parked --state held", "u@one.test deferred", "v@two.test deferred", "w@one.test queued", "x@three.test deferred")
	q.wants("--sender @app.test --recipient v@*", "v@two.test deferred")
	q.wants("--hop two.test --hop three.test", "v@two.test deferred", "x@three.test deferred")
	q.wants("--age 1h")
	q.run(0, "list --domain one.test", "2 messages, ", "u@one.test", "parked 1×", "dns-failed")
	q.run(0, "list --domain four.test", "Nothing in the queue matches.")
	q.run(0, "summary", "one.test            2  ", "three.test", "dns-failed", "3 messages, ")

	q.run(0, "hold --domain two.test", "1 recipient of 1 message is held", "srvrelay queue release --reason operator-hold --domain two.test\n")
	q.await("held", 1, "to", "v@two.test")
	q.wants("--state held", "v@two.test held")
	q.wants("--reason operator-hold", "v@two.test held")
	q.run(0, "summary", "held     operator-hold")
	q.run(0, "show "+ids[0], "held since", "srvrelay queue release "+ids[0])
	q.run(0, "retry --domain two.test", "Nothing to retry: no recipient in the queue matches and waits.")
	q.run(0, "release "+ids[1], "Nothing to release: no chosen recipient is held.")
	q.run(0, "release "+ids[0], "1 recipient of 1 message is released and due now", "srvrelay queue show "+ids[0])
	q.await("released", 1, "to", "v@two.test")
	q.await("deferred", 2, "to", "v@two.test")
	q.run(0, "retry "+ids[1], "1 recipient of 1 message is due now", "srvrelay queue show "+ids[1])
	q.await("deferred", 1, "to", "w@one.test") // it was the one by which the hop was probed
	q.relay.mu.Lock()
	if q.relay.matching("deferred", map[string]string{"to": "u@one.test"}) != 1 {
		t.Error("another message of the hop was tried")
	}
	q.relay.mu.Unlock()

	q.run(0, "fail --recipient w@one.test --text moved", "1 recipient of 1 message is given up; senders")
	q.await("failed", 1, "to", "w@one.test", "reason", "operator-failed", "reply", "5.7.0 moved")
	q.await("report", 1, "to", "b@app.test", "kind", "failed")
	q.wants("--sender <>", "b@app.test deferred")
	q.run(0, "delete --domain two.test", "1 recipient of 1 message is deleted; nobody was told")
	q.wants("--sender a@app.test", "u@one.test deferred")
	q.run(0, "delete "+ids[0], "is deleted")
	q.await("failed", 1, "to", "u@one.test", "reason", "operator-deleted")
	q.run(exitData, "delete "+ids[0], ids[0], "no such message in the queue")
	q.run(0, "retry --all --yes", "2 recipients of 2 messages are due now", "srvrelay queue summary")
	q.run(0, "hold --all --yes --progress", "2 recipients of 2 messages are held", "2 of 2 messages")
	q.run(0, "delete --all --yes", "2 recipients of 2 messages are deleted")
	q.run(0, "summary", "The queue is empty.")
	q.run(0, "list", "The queue is empty.")
}

// TestQueueMistakes: what is typed wrong is refused before anything is done.
func TestQueueMistakes(t *testing.T) {
	q := newQueueRig(t)
	q.send("a@app.test", "u@one.test")
	for command, want := range map[string]string{
		"hold":                         "nothing is chosen: name ids, give a filter",
		"export -o x":                  "nothing is chosen",
		"delete --all":                 "add --yes",
		"delete --all --domain x.test": "--all is the whole queue",
		"fail --state stuck":           `"stuck" is not a state: use one of queued, deferred, held, parked`,
		"fail --age 2":                 "invalid argument",
		"list --domain=":               "empty",
		"export --all":                 "-o DIR",
		"import":                       "PATH... is missing",
	} {
		q.run(exitUsage, command, want)
	}
	for command, want := range map[string]string{
		"hold nonsense":                      "is not a queue id",
		"retry 01ARZ3NDEKTSV4RRFFQ69G5FAV":   "no such message",
		"show 01ARZ3NDEKTSV4RRFFQ69G5FAV":    "no such message",
		"import /nowhere":                    "no such file",
		"import " + q.config:                 "neither a folder nor a tar file",
		"import " + filepath.Dir(q.config):   "holds no ID.json",
		"export --all -o " + "/dev/null/sub": "export: ",
	} {
		q.run(exitData, command, want)
	}
	q.wants("", "u@one.test deferred")
}

// TestExportImport: what is exported comes back as it was, from a folder and
// from a tar file, and with the relay stopped as well as running.
func TestExportImport(t *testing.T) {
	q := newQueueRig(t)
	q.send("a@app.test", "u@one.test", "v@two.test")
	q.send("b@app.test", "w@three.test")
	q.run(0, "hold --recipient v@two.test")
	before, ids := q.waiting("")
	dir := t.TempDir()
	folder, archive := filepath.Join(dir, "saved"), filepath.Join(dir, "saved.tar")
	q.run(0, "export --all -o "+folder, "2 messages exported")
	q.run(0, "export --sender a@app.test -o "+archive, "1 message exported")
	q.run(exitData, "export --all -o "+folder, "is there already")
	q.run(exitData, "export --all -o "+archive, "file exists")
	eml, err := os.ReadFile(filepath.Join(folder, ids[0]+".eml"))
	if err != nil || !strings.HasPrefix(string(eml), "Received: from client.test") || !strings.HasSuffix(string(eml), "\r\n\r\nhello\r\n") {
		t.Errorf("%v\n%s", err, eml)
	}
	if info, err := os.Stat(filepath.Join(folder, ids[0]+".json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	q.run(exitData, "import "+folder, "0 messages taken", ids[0], ids[1], "queued already")
	q.run(0, "delete "+ids[0])
	q.run(0, "import "+archive, "1 message taken")
	q.run(0, "delete --all --yes")
	q.run(0, "import "+folder, "2 messages taken")
	q.wants("", before...)

	if _, err := q.relay.terminate(); err != nil {
		t.Fatal(err)
	}
	q.run(0, "list", "queue: the relay is not running; reading ", "2 messages, ")
	q.wants("", before...)
	q.run(0, "show "+ids[0], "v@two.test  held", "u@one.test", "dns-failed")
	q.run(0, "summary", "2 messages, ")
	q.run(0, "export --all -o "+filepath.Join(dir, "offline"), "2 messages exported")
	again, err := os.ReadFile(filepath.Join(dir, "offline", ids[0]+".eml"))
	if err != nil || string(again) != string(eml) {
		t.Errorf("%v\n%s", err, again)
	}
	q.run(exitUnavailable, "release --all --yes", "no relay is running")
	q.run(exitUnavailable, "import "+folder, "no relay is running")
	q.relay = startRelay(t, q.config)
	q.run(0, "delete --all --yes")
	out := filepath.Join(dir, "offline")
	if err := os.Truncate(filepath.Join(out, ids[0]+".eml"), 5); err != nil {
		t.Fatal(err)
	}
	q.run(exitData, "import "+filepath.Join(out, ids[0]+".json"), "its body has 5 bytes")
	q.wants("")
}

// TestPipe: export to standard output feeds an import.
func TestPipe(t *testing.T) {
	q := newQueueRig(t)
	q.send("a@app.test", "u@one.test")
	tar, err := command(context.Background(), q.config, "queue", "export", "--all", "-o", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	q.run(0, "delete --all --yes")
	if code, out := invoke(t, q.config, string(tar), "queue", "import", "-"); code != 0 || !strings.Contains(out, "1 message taken") {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out := invoke(t, q.config, string(tar[:1500]), "queue", "import", "-"); code != exitData {
		t.Errorf("half a tar: exit %d: %s", code, out)
	}
	q.wants("", "u@one.test deferred")
}

// TestManyMessagesInHand: the verbs and lists go through the queue without
// holding it. SRVRELAY_STRESS=1 makes it a million.
func TestManyMessagesInHand(t *testing.T) {
	n := 20_000
	if os.Getenv("SRVRELAY_STRESS") != "" {
		n = 1_000_000
	}
	store, err := pebblestore.Open(pebblestore.Options{Dir: filepath.Join(t.TempDir(), "queue")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var puts sync.WaitGroup
	for p := range 64 {
		puts.Go(func() {
			for i := p; i < n; i += 64 {
				rcpt := queue.Recipient{Address: fmt.Sprintf("u%d@b%d.test", i, i%10), Domain: fmt.Sprintf("b%d.test", i%10)}
				if _, err := store.Put(context.Background(), &queue.Envelope{Sender: "a@app.test", To: []queue.Recipient{rcpt}}, strings.NewReader("Subject: x\r\n\r\nhello\r\n")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	puts.Wait()
	client, stop := admin.Local(admin.Backend{
		Store: store, Routing: func() queue.Routing { return queue.Routing{} },
		Unpark: func(context.Context, string) error { return nil },
	})
	defer stop()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const engine = 3*8<<20 + 32<<20 // its memtables and its cache, which fill up once
	start, full, most := heap(), uint64(0), uint64(0)
	look := func() { most = max(most, heap()) }
	half := admin.Selection{Filter: queue.Filter{Domains: []string{"b1.test", "b2.test", "b3.test", "b4.test", "b5.test"}}}
	for _, verb := range []queue.Verb{queue.VerbHold, queue.VerbRelease, queue.VerbRetry} {
		begin := time.Now()
		sum, err := client.Act(t.Context(), verb, "", half, func(admin.Acted) { look() })
		if err != nil || sum.Messages != n/2 || sum.Seen != n {
			t.Errorf("%s: %+v, %v", verb, sum, err)
		}
		if verb != queue.VerbRetry { // by then all is as full as it gets
			full, most = max(full, most), 0
		}
		t.Logf("%s of %d among %d messages: %v", verb, n/2, n, time.Since(begin))
	}
	seen := 0
	if err := client.List(t.Context(), queue.Filter{}, func(admin.Message) error {
		if seen++; seen%5000 == 0 {
			look()
		}
		return nil
	}); err != nil || seen != n {
		t.Errorf("%d of %d, %v", seen, n, err)
	}
	if sum, err := client.Summary(t.Context()); err != nil || sum.Messages != n || len(sum.Hops) != 10 {
		t.Errorf("%+v, %v", sum, err)
	}
	t.Logf("heap: %s at the start, %s while held and released, %s at the end", bytesText(int64(start)), bytesText(int64(full)), bytesText(int64(most)))
	if grown := int64(most) - int64(full); grown > 16<<20 {
		t.Errorf("the heap went on growing, by %s", bytesText(grown))
	}
	if grown := int64(max(full, most)) - int64(start); grown > engine+16<<20 {
		t.Errorf("the heap grew by %s", bytesText(grown))
	}
}

func TestProgressText(t *testing.T) {
	for want, got := range map[string]string{
		"12,000 of 1,000,000 messages, 6,000 a second, 2 m 45 s left": progressText(12000, 1000000, 2*time.Second),
		"0 of 10 messages": progressText(0, 10, time.Second),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestConfirm: on a terminal, --all says how much it is and takes no for an answer.
func TestConfirm(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		if os.Getenv("SRVRELAY_NOSKIP") != "" {
			t.Fatal(err)
		}
		t.Skip("script (bsdutils) is not installed")
	}
	q := newQueueRig(t)
	q.send("a@app.test", "u@one.test")
	for _, c := range []struct {
		answer string
		code   int
		want   string
	}{{"n\n", exitUsage, "nothing was done"}, {"\n", exitUsage, "nothing was done"}, {"y\n", 0, "1 recipient of 1 message is deleted"}} {
		self := command(context.Background(), q.config, "queue", "delete", "--all")
		cmd := exec.Command("script", "-qec", strings.Join(self.Args, " "), "/dev/null")
		cmd.Env, cmd.Stdin = self.Env, strings.NewReader(c.answer)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), "Delete all 1 message in the queue? [y/N]") || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: exit %d\n%s", c.answer, code, out)
		}
	}
	q.wants("")
}
