package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	oasconfig "github.com/pb33f/libopenapi-validator/config"
	oaserrors "github.com/pb33f/libopenapi-validator/errors"
)

// judge stands between the commands and a relay, and holds what both say
// against docs/openapi.yaml. Fields that are not in there are a fault, too.
type judge struct {
	*testing.T
	document validator.Validator

	mu   sync.Mutex
	seen map[string]bool // operations that were answered well
}

// newJudge also checks the document itself.
func newJudge(t *testing.T) (*judge, map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc, oasconfig.WithStrictMode(), oasconfig.WithStrictIgnorePaths("$.body.records", "$.body.found[*].recipients", "$.body.found[*].plans"), oasconfig.WithFormatAssertions())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	j := &judge{T: t, document: v, seen: map[string]bool{}}
	_, problems := v.ValidateDocument()
	j.complain("docs/openapi.yaml", "", problems)
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			all[strings.ToUpper(method)+" "+path] = true
		}
	}
	return j, all
}

func (j *judge) complain(what, body string, problems []*oaserrors.ValidationError) {
	for _, p := range problems {
		j.Errorf("%s: %s: %s", what, p.Message, p.Reason)
		for _, s := range p.SchemaValidationErrors {
			j.Errorf("    %s: %s", s.FieldPath, s.Reason)
		}
	}
	if len(problems) > 0 && body != "" {
		j.Logf("%s: %.2000s", what, body)
	}
}

// between opens a socket that leads to another.
func (j *judge) between(to string) (socket string) {
	j.Helper()
	socket = filepath.Join(j.TempDir(), "judge.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		j.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "srvrelay"})
		},
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) { return j.pass(r, to) }),
	}
	s := &http.Server{Handler: proxy}
	go s.Serve(l)
	j.Cleanup(func() { s.Close() })
	return socket
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pass hands a request on and judges it with its answer.
func (j *judge) pass(r *http.Request, to string) (*http.Response, error) {
	sent := drain(&r.Body)
	client := http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", to)
	}}
	resp, err := client.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	got := drain(&resp.Body)
	j.mu.Lock()
	defer j.mu.Unlock()
	what := r.Method + " " + r.URL.Path
	if resp.StatusCode == http.StatusOK { // else the request may be wrong on purpose
		r.Body = io.NopCloser(bytes.NewReader(sent))
		_, problems := j.document.ValidateHttpRequestSync(r)
		j.complain(what, string(sent), problems)
		j.note(r)
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	_, problems := j.document.ValidateHttpResponse(r, resp)
	j.complain(fmt.Sprintf("%s, answer %d", what, resp.StatusCode), string(got), problems)
	resp.Body = io.NopCloser(bytes.NewReader(got))
	return resp, nil
}

func drain(body *io.ReadCloser) []byte {
	if *body == nil {
		return nil
	}
	b, _ := io.ReadAll(*body)
	(*body).Close()
	*body = io.NopCloser(bytes.NewReader(b))
	return b
}

// note writes down which operation it was.
func (j *judge) note(r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	for i, p := range parts {
		if len(p) == 26 && strings.ToUpper(p) == p { // a queue id
			parts[i] = "{id}"
		}
	}
	j.seen[r.Method+" "+strings.Join(parts, "/")] = true
}

// TestCommandsSpeakTheDocument: whatever the commands ask, and whatever the relay
// answers, is as docs/openapi.yaml says; and every operation in there is asked.
func TestCommandsSpeakTheDocument(t *testing.T) {
	q := newQueueRig(t)
	q.send("a@app.test", "u@one.test", "v@two.test")
	q.put("b@app.test", "w@three.test")
	_, ids := q.waiting("")
	j, all := newJudge(t)
	text, err := os.ReadFile(q.config)
	if err != nil {
		t.Fatal(err)
	}
	data := strings.TrimSpace(strings.Split(strings.Split(string(text), "data_dir:")[1], "\n")[0])
	socket := j.between(filepath.Join(data, "admin.sock"))
	through := configFile(t, string(text)+"admin: { socket: "+socket+" }\n")
	export := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		code int
		line string
	}{
		{0, "queue list"}, {0, "queue list --domain one.test --state parked"}, {0, "queue summary"}, {0, "queue list --json"}, {-1, "status --json"},
		{0, "queue show " + ids[0]}, {0, "queue hold " + ids[0]}, {0, "queue release " + ids[0]}, {0, "queue retry --all --yes"},
		{65, "queue show 01ARZ3NDEKTSV4RRFFQ69G5FAV"},
		{75, "explain a@one.test"}, {75, "explain --connect a@two.test"}, {0, "explain message " + ids[0]},
		{0, "ban add --for 1h 192.0.2.0/24"}, {0, "ban list"}, {0, "ban remove 192.0.2.0/24"}, {65, "ban remove 192.0.2.0/24"},
		{0, "trace a@app.test"}, {0, "trace --json three.test"}, {0, "trace " + ids[0]},
		{0, "submission list"}, {-1, "submission release 192.0.2.1"},
		{0, "queue export --all -o " + export}, {0, "queue delete --yes " + ids[0]}, {-1, "queue import " + export}, {-1, "queue import " + export},
		{0, "queue fail --yes " + ids[1]}, {-1, "reload"}, {-1, "doctor --connect=false"},
		{-1, "backup " + filepath.Join(t.TempDir(), "backup")},
		{0, "trace --json one.test"},
	} {
		code, out := invoke(t, through, "", strings.Fields(c.line)...)
		if c.code >= 0 && code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s", c.line, code, c.code, out)
		}
		if testing.Verbose() {
			t.Logf("$ srvrelay %s\n%s", c.line, out)
		}
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, path := range []string{"/healthz", "/readyz", "/v1/hops", "/v1/queue/count", "/v1/queue/nonsense"} { // what monitors ask, and mistakes
		resp, err := client.Get("http://srvrelay" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if len(all) < 19 {
		t.Errorf("the document has %d operations", len(all))
	}
	for operation := range all {
		if !j.seen[operation] {
			t.Errorf("%s: never asked, or never answered with 200", operation)
		}
	}
}

// remoteRig is a relay whose configuration is rewritten.
type remoteRig struct {
	*testing.T
	dir, config string
}

func (r *remoteRig) write(admin string) {
	r.Helper()
	text := "hostname: relay.test\ndata_dir: " + r.dir + "\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\ndns: { servers: [\"127.0.0.1:1\"] }\nlog: { format: json }\n" + admin
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

func (r *remoteRig) reload(code int, want string) {
	r.Helper()
	if got, out := invoke(r.T, r.config, "", "reload"); got != code || !strings.Contains(out, want) {
		r.Errorf("reload: exit %d, want %d and %q\n%s", got, code, want, out)
	}
}

// ask returns the status; 0 if nobody is there.
func (r *remoteRig) ask(url, token string) int {
	r.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestAdminOverTCP: the API comes, moves, changes its token and goes by reloads;
// a mistake leaves it as it was; and what is not on loopback is TLS.
func TestAdminOverTCP(t *testing.T) {
	r := &remoteRig{t, t.TempDir(), filepath.Join(t.TempDir(), "srvrelay.yaml")}
	tokens := filepath.Join(t.TempDir(), "token")
	token := func(text string) {
		if err := os.WriteFile(tokens, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const first, second = "first-token-0123456789", "second-token-0123456789"
	one, two := freePort(t), freePort(t)
	listen := func(address string) string {
		return fmt.Sprintf("admin: { listen: %q, token_file: %s }\n", address, tokens)
	}
	here, there := "http://127.0.0.1:"+one, "https://127.0.0.1:"+two
	token(first)
	r.write(listen("127.0.0.1:" + one))
	p := startRelay(t, r.config)
	poll(t, waitLimit, "the API answers", func() bool { return r.ask(here+"/readyz", "") == 200 })
	if a, b := r.ask(here+"/v1/queue/count", first), r.ask(here+"/v1/queue/count", second); a != 200 || b != 401 {
		t.Errorf("%d with the token, %d without", a, b)
	}

	token(second)
	r.reload(0, "")
	if a, b := r.ask(here+"/v1/queue/count", second), r.ask(here+"/v1/queue/count", first); a != 200 || b != 401 {
		t.Errorf("after a reload: %d with the new token, %d with the old", a, b)
	}

	token("short")
	r.reload(78, "openssl rand")
	token(second)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.write(listen(taken.Addr().String()))
	r.reload(78, "admin.listen")
	poll(t, waitLimit, "the API answers as before (when the two guesses are forgotten)", func() bool { return r.ask(here+"/v1/queue/count", second) == 200 })

	r.write(listen(":" + two)) // every address, so it is TLS
	r.reload(0, "admin.listen")
	if got := r.ask(there+"/v1/queue/count", second); got != 200 {
		t.Errorf("over TLS: %d", got)
	}
	if clear := r.ask(strings.Replace(there, "https", "http", 1)+"/v1/queue/count", second); clear == 200 {
		t.Error("an address that is not loopback answers in clear text")
	}
	if got := r.ask(here+"/healthz", ""); got != 0 {
		t.Errorf("the old address still answers: %d", got)
	}

	r.write("")
	r.reload(0, "")
	if got := r.ask(there+"/healthz", ""); got != 0 {
		t.Errorf("it is still there: %d", got)
	}
	if log := p.log(); strings.Contains(log, first) || strings.Contains(log, second) || !strings.Contains(log, `"wrong token"`) {
		t.Errorf("a token is in the log, or a guess is not:\n%s", log)
	}
}
