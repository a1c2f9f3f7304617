package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

const testToken = "0123456789abcdef0123456789abcdef"

// api is a relay's API over TCP, or over pipes in virtual time.
type api struct {
	*shelf
	dial func() net.Conn
	told []string // refusals
	done []string // what was asked of the relay behind the API
}

func newAPI(t *testing.T, l net.Listener, dial func() net.Conn) *api {
	t.Helper()
	a := &api{shelf: &shelf{ids: []queue.ID{queue.NewID(time.Now())}}, dial: dial}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- ServeTCP(ctx, l, a.backend(), func() Remote { return Remote{Token: NewToken(testToken), Hosts: []string{"relay.test"}} }, nil)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a
}

// backend is a relay that notes what it is asked to do.
func (a *api) backend() Backend {
	did := func(what string) { a.done = append(a.done, what) }
	return Backend{
		Store: a, Routing: func() queue.Routing { return queue.Routing{} },
		Explain: func(_ context.Context, q Question) Explanation { did("explain"); return Explanation{Domain: q.Domain} },
		Unpark:  func(context.Context, string) error { did("unpark"); return nil },
		Denied:  func(client, why string) { a.told = append(a.told, client+" "+why) },
		Reload:  func(context.Context) Reloaded { did("reload"); return Reloaded{} },
		Door:    func() Door { did("door"); return Door{} },
		Backup:  func(context.Context, io.Writer) error { did("backup"); return nil },
		Trace: func(context.Context, queue.TraceQuery) (queue.Traces, error) {
			did("trace")
			return queue.Traces{}, nil
		},
		Bans:          func() Bans { did("bans"); return Bans{} },
		ChangeBans:    func(BanChange) BanChanged { did("change bans"); return BanChanged{} },
		Suspects:      func() []Suspect { did("suspects"); return nil },
		ChangeSuspect: func(SuspectChange) SuspectChanged { did("change suspect"); return SuspectChanged{} },
	}
}

func overTCP(t *testing.T) *api {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newAPI(t, l, func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	})
}

// overPipes is for virtual time.
func overPipes(t *testing.T) *api {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	return newAPI(t, l, func() net.Conn {
		ours, theirs := net.Pipe()
		l.conns <- theirs
		return ours
	})
}

// raw sends bytes as they are and reads one answer.
func (a *api) raw(t *testing.T, request string) (*http.Response, string) {
	t.Helper()
	c := a.dial()
	defer c.Close()
	go io.WriteString(c, request) // the answer may come first
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.100q: %v", request, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp, string(text)
}

// harmless checks what holds for every answer of the API itself.
func harmless(t *testing.T, resp *http.Response, text string) {
	t.Helper()
	h := resp.Header
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers that keep browsers from harm are missing: %v", h)
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") || name == "Location" || name == "Set-Cookie" || name == "Server" {
			t.Errorf("%s: %s", name, h.Get(name))
		}
	}
	if resp.StatusCode == http.StatusOK {
		return
	}
	var p problem
	if err := json.Unmarshal([]byte(text), &p); err != nil || h.Get("Content-Type") != problemJSON || p.Status != resp.StatusCode ||
		p.Title == "" || p.Detail == "" || !strings.HasPrefix(p.Type, problemType) {
		t.Errorf("no problem details: %v, %s\n%s", err, h.Get("Content-Type"), text)
	}
	if strings.Contains(text, testToken) {
		t.Error("the token is in an answer")
	}
}

// TestAttacks: what strangers, web sites and guessers send, and what comes of
// it. Nothing ever reaches the queue.
func TestAttacks(t *testing.T) {
	const (
		host = "Host: 127.0.0.1:8025\r\n"
		auth = "Authorization: Bearer " + testToken + "\r\n"
		hold = `{"verb":"hold"}`
	)
	post := func(path, headers, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
	}
	get := func(target, headers string) string { return "GET " + target + " HTTP/1.1\r\n" + headers + "\r\n" }
	for name, c := range map[string]struct {
		request string
		status  int
		word    string // of the problem
	}{
		"what is right": {get("/v1/queue/count", host+auth), 200, ""},

		"no token":                    {post("/v1/queue/act", host, hold), 401, "unauthorized"},
		"an empty token":              {post("/v1/queue/act", host+"Authorization: Bearer \r\n", hold), 401, "unauthorized"},
		"a wrong token":               {post("/v1/queue/act", host+"Authorization: Bearer "+testToken[1:]+"x\r\n", hold), 401, "unauthorized"},
		"the beginning of the token":  {post("/v1/queue/act", host+"Authorization: Bearer "+testToken[:31]+"\r\n", hold), 401, "unauthorized"},
		"more than the token":         {post("/v1/queue/act", host+"Authorization: Bearer "+testToken+"0\r\n", hold), 401, "unauthorized"},
		"another scheme":              {post("/v1/queue/act", host+"Authorization: Basic "+testToken+"\r\n", hold), 401, "unauthorized"},
		"the token in the query":      {get("/v1/queue/count?access_token="+testToken, host), 401, "unauthorized"},
		"a wrong token, then a right": {get("/v1/queue/count", host+"Authorization: Bearer x\r\n"+auth), 401, "unauthorized"},
		"no route, no token":          {get("/v1/nothing", host), 401, "unauthorized"}, // what there is, strangers do not learn

		"a backup, which has keys":       {post("/v1/backup", host+auth, ""), 403, "not-remote"},
		"a backup, without a token":      {post("/v1/backup", host, ""), 401, "unauthorized"},
		"a backup with a query":          {post("/v1/backup?x=y", host+auth, ""), 403, "not-remote"},
		"a backup, escaped":              {post("/v1/%62ackup", host+auth, ""), 403, "not-remote"},
		"a backup, another method":       {get("/v1/backup", host+auth), 403, "not-remote"},
		"a backup, absolute":             {post("http://127.0.0.1:8025/v1/backup", host+auth, ""), 403, "not-remote"},
		"a backup with two slashes":      {post("/v1//backup", host+auth, ""), 404, "no-such-route"},
		"a backup with a slash behind":   {post("/v1/backup/", host+auth, ""), 404, "no-such-route"},
		"a backup with dots":             {post("/v1/queue/../backup", host+auth, ""), 404, "no-such-route"},
		"a backup with a dot":            {post("/v1/./backup", host+auth, ""), 404, "no-such-route"},
		"a backup, in capitals":          {post("/v1/BACKUP", host+auth, ""), 404, "no-such-route"},
		"a backup, through the slash":    {post("/v1%2fbackup", host+auth, ""), 403, "not-remote"},
		"a trace of everything":          {post("/v1/trace", host+auth, `{"max":1000000000}`), 400, "bad-request"},
		"a trace of less than nothing":   {post("/v1/trace", host+auth, `{"max":-1}`), 400, "bad-request"},
		"a trace with more fields":       {post("/v1/trace", host+auth, `{"max":1,"path":"/etc/passwd"}`), 400, "bad-request"},
		"a trace that is no object":      {post("/v1/trace", host+auth, `["max"]`), 400, "bad-request"},
		"a ban with more fields":         {post("/v1/bans", host+auth, `{"network":"0.0.0.0/0","exempt":[]}`), 400, "bad-request"},
		"a ban with a time that is none": {post("/v1/bans", host+auth, `{"network":"192.0.2.1","for":1e99}`), 400, "bad-request"},
		"a release with more fields":     {post("/v1/submission", host+auth, `{"release":"anna","all":true}`), 400, "bad-request"},
		"a release by a form":            {post("/v1/submission", host+auth+"Content-Type: application/x-www-form-urlencoded\r\n", "release=anna"), 400, "bad-request"},
		"a release that is broken off":   {post("/v1/submission", host+auth, `{"release":"anna`), 400, "bad-request"},

		"DNS rebinding":                 {get("/v1/queue/count", "Host: evil.test\r\n"+auth), 421, "wrong-host"},
		"DNS rebinding of health":       {get("/healthz", "Host: evil.test\r\n"), 421, "wrong-host"},
		"our name inside another":       {get("/v1/queue/count", "Host: relay.test.evil.test\r\n"+auth), 421, "wrong-host"},
		"an absolute target":            {get("http://evil.test/v1/queue/count", host+auth), 421, "wrong-host"},
		"no host":                       {"GET /v1/queue/count HTTP/1.0\r\n" + auth + "\r\n", 421, "wrong-host"},
		"our name":                      {get("/v1/queue/count", "Host: Relay.Test.:8025\r\n"+auth), 200, ""},
		"an IPv6 address":               {get("/v1/queue/count", "Host: [::1]:8025\r\n"+auth), 200, ""},
		"a forwarded host says nothing": {get("/v1/queue/count", "Host: evil.test\r\nX-Forwarded-Host: relay.test\r\n"+auth), 421, "wrong-host"},

		"another origin":              {post("/v1/queue/act", host+auth+"Origin: http://evil.test\r\n", hold), 403, "wrong-origin"},
		"a sandboxed origin":          {post("/v1/queue/act", host+auth+"Origin: null\r\n", hold), 403, "wrong-origin"},
		"another port":                {post("/v1/queue/act", host+auth+"Origin: http://127.0.0.1:80\r\n", hold), 403, "wrong-origin"},
		"another scheme of the site":  {post("/v1/queue/act", host+auth+"Origin: https://127.0.0.1:8025\r\n", hold), 403, "wrong-origin"},
		"two origins":                 {post("/v1/queue/act", host+auth+"Origin: http://127.0.0.1:8025\r\nOrigin: http://evil.test\r\n", hold), 403, "wrong-origin"},
		"another site, by GET":        {get("/v1/queue/count", host+auth+"Sec-Fetch-Site: cross-site\r\n"), 403, "wrong-origin"},
		"a preflight":                 {"OPTIONS /v1/queue/act HTTP/1.1\r\n" + host + "Origin: http://evil.test\r\nAccess-Control-Request-Method: POST\r\n\r\n", 403, "wrong-origin"},
		"a preflight without origin":  {"OPTIONS /v1/queue/act HTTP/1.1\r\n" + host + auth + "\r\n", 405, "wrong-method"},
		"OPTIONS of all":              {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 401, "unauthorized"},
		"the same origin":             {get("/v1/queue/count", host+auth+"Origin: http://127.0.0.1:8025\r\nSec-Fetch-Site: same-origin\r\n"), 200, ""},
		"another method":              {"DELETE /v1/queue/count HTTP/1.1\r\n" + host + auth + "\r\n", 405, "wrong-method"},
		"a method override":           {get("/v1/reload", host+auth+"X-HTTP-Method-Override: POST\r\n"), 405, "wrong-method"},
		"two slashes":                 {get("//v1/queue/count", host+auth), 404, "no-such-route"},
		"two slashes inside":          {get("/v1//queue/count", host+auth), 404, "no-such-route"},
		"dots":                        {get("/healthz/../v1/queue/count", host+auth), 404, "no-such-route"},
		"dots without a token":        {get("/healthz/../v1/queue/count", host), 401, "unauthorized"},
		"escaped dots, no token":      {get("/healthz/%2e%2e/v1/queue/count", host), 401, "unauthorized"},
		"an escaped slash":            {get("/v1%2Fqueue/count", host+auth), 404, "no-such-route"},
		"an escaped slash in an id":   {get("/v1/queue/..%2Fcount", host+auth), 404, "no-such-route"},
		"an escaped slash at the end": {get("/v1/queue/x%2fbody", host+auth), 404, "no-such-route"},
		"other escapes":               {get("/v1/queue%2Dx/%63ount", host+auth), 404, "no-such-route"},
		"escapes of what is right":    {get("/v1/queue/%63ount", host+auth), 200, ""},
		"an escape twice":             {get("/v1/queue/%252e%252e", host+auth), 400, "bad-request"},
		"a backslash":                 {get(`/healthz\..\v1\queue\count`, host), 401, "unauthorized"},
		"a slash at the end":          {get("/healthz/", host), 401, "unauthorized"},
		"a semicolon":                 {get("/healthz;/v1/queue/count", host), 401, "unauthorized"},
		"a NUL":                       {get("/v1/queue/%00", host+auth), 400, "bad-request"},
		"a file":                      {get("/v1/queue/%2e%2e%2f%2e%2e%2fetc%2fpasswd/body", host+auth), 404, "no-such-route"},
		"no version":                  {get("/queue/count", host+auth+"Accept: */*\r\n"), 404, "no-such-route"},
		"a version to come":           {get("/v2/queue/count", host+auth+"Accept: */*\r\n"), 404, "no-such-route"},
		"a body that is too large":    {post("/v1/queue/act", host+auth, strings.Repeat(" ", maxRequest)+hold), 413, "too-large"},
		"no length, and too large":    {"POST /v1/queue/act HTTP/1.1\r\n" + host + auth + "Transfer-Encoding: chunked\r\n\r\n200000\r\n" + strings.Repeat(" ", 0x200000) + "\r\n0\r\n\r\n", 413, "too-large"},
		"a length of eight exabytes":  {"POST /v1/queue/import?record=10 HTTP/1.1\r\n" + host + auth + "Content-Length: 9223372036854775807\r\n\r\n" + strings.Repeat(" ", maxRequest), 413, "too-large"},
		"a body that is too large, 2": {post("/v1/queue/act", host, strings.Repeat(" ", maxRequest)+hold), 401, "unauthorized"},
		"JSON that nests deeply":      {post("/v1/queue/list", host+auth, strings.Repeat(`{"filter":`, 20000)), 400, "bad-request"},
		"a field that is not there":   {post("/v1/queue/act", host+auth, `{"verb":"hold","__proto__":{}}`), 400, "bad-request"},
		"a verb that is not there":    {post("/v1/queue/act", host+auth, `{"verb":"<script>"}`), 400, "bad-request"},
		"health needs no token":       {get("/healthz", host), 200, ""},
		"health of a stopping relay":  {get("/readyz", host), 503, "not-ready"},
	} {
		t.Run(name, func(t *testing.T) {
			a := overTCP(t)
			resp, text := a.raw(t, c.request)
			if resp.StatusCode != c.status || c.word != "" && !strings.Contains(text, `"`+problemType+c.word+`"`) {
				t.Errorf("%d %s, want %d %s", resp.StatusCode, text, c.status, c.word)
			}
			harmless(t, resp, text)
			if len(a.acted)+len(a.done) > 0 {
				t.Error("something was done:", a.acted, a.done)
			}
			if c.status == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer ") {
				t.Error("no challenge (RFC 9110 11.6.1)")
			}
		})
	}
}

// TestEveryRouteIsGuarded: whatever route there is, the same strangers come to
// nothing there. A route that is added is tried, too.
func TestEveryRouteIsGuarded(t *testing.T) {
	const (
		host = "Host: 127.0.0.1:8025\r\n"
		auth = "Authorization: Bearer " + testToken + "\r\n"
	)
	same := func(p string) string { return p }
	attacks := map[string]struct {
		method  string // "" = as it should be
		path    func(string) string
		headers string
		status  int
		word    string
	}{
		"no token":            {"", same, host, 401, "unauthorized"},
		"a wrong token":       {"", same, host + "Authorization: Bearer " + testToken + "0\r\n", 401, "unauthorized"},
		"a token as a cookie": {"", same, host + "Cookie: token=" + testToken + "\r\n", 401, "unauthorized"},
		"DNS rebinding":       {"", same, "Host: evil.test\r\n" + auth, 421, "wrong-host"},
		"another origin":      {"", same, host + auth + "Origin: https://evil.test\r\n", 403, "wrong-origin"},
		"a sandboxed origin":  {"", same, host + auth + "Origin: null\r\n", 403, "wrong-origin"},
		"another site":        {"", same, host + auth + "Sec-Fetch-Site: cross-site\r\n", 403, "wrong-origin"},
		"a site beside":       {"", same, host + auth + "Sec-Fetch-Site: same-site\r\n", 403, "wrong-origin"},
		"another method":      {"PATCH", same, host + auth, 405, "wrong-method"},
		"a huge body":         {"", same, host + auth + "Content-Length: 9000000000000000000\r\n", 413, "too-large"},
		"a slash behind":      {"", func(p string) string { return p + "/" }, host + auth, 404, "no-such-route"},
		"two slashes":         {"", func(p string) string { return "/" + p }, host + auth, 404, "no-such-route"},
		"dots":                {"", func(p string) string { return "/healthz/.." + p }, host + auth, 404, "no-such-route"},
		"dots, no token":      {"", func(p string) string { return "/healthz/.." + p }, host, 401, "unauthorized"},
		"escaped dots":        {"", func(p string) string { return "/healthz/%2e%2e" + p }, host + auth, 404, "no-such-route"},
		"escaped slashes":     {"", func(p string) string { return "/" + strings.ReplaceAll(p[1:], "/", "%2F") + "%2f" }, host + auth, 404, "no-such-route"},
	}
	for _, route := range (Backend{}).routes().patterns {
		method, path, _ := strings.Cut(route, " ")
		for name, c := range attacks {
			t.Run(route+" "+name, func(t *testing.T) {
				a := overTCP(t)
				m, status, word := method, c.status, c.word
				if c.method != "" {
					m = c.method
				}
				target := c.path(strings.ReplaceAll(path, "{id}", string(a.ids[0])))
				switch {
				case (target == "/healthz" || target == "/readyz") && status == 401:
					return // health is for everybody
				case path == "/v1/backup" && (status == 405 || status == 413):
					status, word = 403, "not-remote"
				}
				body := ""
				if status == 413 {
					body = strings.Repeat(" ", maxRequest)
				}
				resp, text := a.raw(t, m+" "+target+" HTTP/1.1\r\n"+c.headers+"\r\n"+body)
				if resp.StatusCode != status || !strings.Contains(text, `"`+problemType+word+`"`) {
					t.Errorf("%d %s, want %d %s", resp.StatusCode, text, status, word)
				}
				harmless(t, resp, text)
				if len(a.acted)+len(a.done) > 0 {
					t.Error("something was done:", a.acted, a.done)
				}
			})
		}
	}
}

// TestLongHeader: it is cut off by net/http, before anything of ours.
func TestLongHeader(t *testing.T) {
	resp, _ := overTCP(t).raw(t, "GET /healthz HTTP/1.1\r\nHost: relay.test\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(resp.Status)
	}
}

// TestGuessing: whoever shows wrong tokens is not heard for a while, not even
// with the right one, and the log has each. Others are not concerned.
func TestGuessing(t *testing.T) {
	a := overTCP(t)
	wrong := "GET /v1/hops HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer wrong\r\n\r\n"
	n := 0
	for ; n < 20; n++ {
		if resp, text := a.raw(t, wrong); resp.StatusCode == http.StatusTooManyRequests {
			harmless(t, resp, text)
			if resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			break
		}
	}
	if n == 0 || n > 5 || len(a.told) != n || a.told[0] != "127.0.0.1 wrong token" {
		t.Errorf("%d guesses, %q", n, a.told)
	}
	resp, _ := a.raw(t, strings.Replace(wrong, "wrong", testToken, 1))
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Error("the next guess was heard:", resp.Status)
	}
}

// TestRates: what an address may ask, how it comes back, and that addresses
// without end take no memory without end.
func TestRates(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRates()
	r.now = func() time.Time { return now }
	many := func(a string, cost float64) (n int) {
		for r.take(netip.MustParseAddr(a), cost) {
			n++
		}
		return n
	}
	if n := many("192.0.2.1", 1); n != rateBurst {
		t.Errorf("%d at once", n)
	}
	if n := many("192.0.2.2", 1); n != rateBurst {
		t.Errorf("another address: %d", n)
	}
	now = now.Add(time.Second)
	if n := many("192.0.2.1", 1); n != ratePerSecond {
		t.Errorf("%d in the next second", n)
	}
	many("2001:db8::1", 1)
	if n := many("2001:db8::ffff:2", 1); n != 0 {
		t.Errorf("the same /64: %d", n)
	}
	if n := many("192.0.2.3", 1+wrongTokenCost); n != 2 {
		t.Errorf("%d guesses at once", n)
	}
	guesses := 0
	for range 100 {
		now = now.Add(time.Second)
		guesses += many("192.0.2.3", 1+wrongTokenCost)
	}
	if guesses < 30 || guesses > 40 {
		t.Errorf("%d guesses in 100 s", guesses)
	}
	for i := range 5 * rateAddresses {
		r.take(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
	}
	if len(r.buckets) > rateAddresses+1 {
		t.Errorf("%d buckets", len(r.buckets))
	}
	now = now.Add(time.Hour)
	if n := many("10.9.9.9", 1); n != rateBurst || len(r.buckets) > rateAddresses {
		t.Errorf("an hour later: %d, %d buckets", n, len(r.buckets))
	}
}

// slowly says for how long a client that sends so may hold a connection.
func slowly(t *testing.T, head string, block string, pause time.Duration, enough time.Duration) (held time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		a := overPipes(t)
		c := a.dial()
		defer c.Close()
		gone := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, c); close(gone) }()
		begin := time.Now()
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		for time.Since(begin) < enough {
			select {
			case <-gone:
				held = time.Since(begin)
				return
			case <-time.After(pause):
				if block != "" { // a pipe would carry nothing, too
					_, _ = io.WriteString(c, block)
				}
			}
		}
		held = time.Since(begin)
	})
	return held
}

// TestSlowClients hold a connection for a bounded time, but an import that
// goes on may take as long as it takes.
func TestSlowClients(t *testing.T) {
	const head = " HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer " + testToken + "\r\n"
	table := map[string]struct {
		head, block string
		least, most time.Duration
	}{
		"a slow header": {"GET /v1/hops HTTP/1.1\r\n", "X: y\r\n", 0, headerLimit + 2*time.Second},
		"nothing":       {"", "", 0, idleLimit},
		"a slow body":   {"POST /v1/queue/act" + head + "Content-Length: 100000\r\n\r\n", " ", bodyLimit, bodyLimit + 2*time.Second},
		"no body":       {"POST /v1/queue/act" + head + "Content-Length: 100000\r\n\r\n", "", bodyLimit, bodyLimit + 2*time.Second},
		"no token":      {"POST /v1/reload HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 1000\r\n\r\n", "", 0, bodyLimit + 2*time.Second},
		"another host":  {"POST /v1/reload HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 1000\r\n\r\n", "", 0, bodyLimit + 2*time.Second},
		"no import":     {"POST /v1/queue/import?record=100000" + head + "Content-Length: 100000\r\n\r\n", "", bodyLimit, bodyLimit + 2*time.Second},
		"a slow import": {"POST /v1/queue/import?record=100000" + head + "Content-Length: 100000\r\n\r\n", " ", 10 * time.Minute, time.Hour},
	}
	for _, route := range (Backend{}).routes().patterns {
		if path, is := strings.CutPrefix(route, "POST "); is && path != "/v1"+importPath {
			row := table["a slow body"]
			row.head = strings.Replace(row.head, "/v1/queue/act", path, 1)
			if path == "/v1/backup" || path == "/v1/reload" {
				row.least = 0 // answered at once, and what is left of the request is read
			}
			table["a slow body, "+path] = row
		}
	}
	for name, c := range table {
		t.Run(name, func(t *testing.T) {
			if held := slowly(t, c.head, c.block, time.Second, 10*time.Minute); held < c.least || held > c.most {
				t.Errorf("held for %s", held)
			}
		})
	}
}

// TestSlowReader: an answer that nobody reads ends.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := overPipes(t)
		c := a.dial()
		defer c.Close()
		_, _ = io.WriteString(c, "GET /v1/queue/count HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer "+testToken+"\r\n\r\n")
		time.Sleep(writeLimit + time.Second)
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes after %s", n, writeLimit)
		}
	})
}

// TestSlowAnswer: what takes the relay long is not cut off, neither with a
// body nor without.
func TestSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, _ Question) (e Explanation) {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Minute):
				e.Domain = "done"
			}
			return e
		}
		c, stop := Local(Backend{
			Store: slowShelf{&shelf{ids: []queue.ID{"x"}}}, Routing: func() queue.Routing { return queue.Routing{} }, Explain: slow,
		})
		defer stop()
		if e, err := c.Explain(t.Context(), Question{}); err != nil || e.Domain != "done" {
			t.Errorf("%+v, %v", e, err)
		}
		if sum, err := c.Act(t.Context(), queue.VerbHold, "", Selection{}, func(Acted) {}); err != nil || sum.Messages != 1 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}

type slowShelf struct{ *shelf }

func (slowShelf) Act(ctx context.Context, _ []queue.ID, _ queue.Action) (queue.Acted, error) {
	select {
	case <-ctx.Done():
		return queue.Acted{}, ctx.Err()
	case <-time.After(10 * time.Minute):
		return queue.Acted{Messages: 1}, nil
	}
}

// nasty is what strangers put into addresses and replies.
const nasty = `"><script>alert(1)</script>&` + "\u2028'"

// nastyShelf has it wherever a stranger can write.
type nastyShelf struct{ *shelf }

func (s nastyShelf) message(id queue.ID) *queue.Message {
	m := s.shelf.message(id)
	m.Sender, m.MessageID, m.EnvID = nasty+"@x.test", nasty+"@msg.test", nasty
	m.Client.Helo, m.Client.User = nasty, nasty
	m.Recipients[0].Address, m.Recipients[0].ORcpt = nasty+"@y.test", nasty
	m.Recipients[0].Last = queue.Status{Code: "4.0.0", Reply: nasty, Text: nasty, Target: nasty, MTA: nasty}
	m.Attempts = []queue.Attempt{{Hop: nasty, Target: nasty, TLS: nasty, Plan: nasty, Results: []string{nasty}}}
	m.Notes = []queue.Note{{What: nasty, Text: nasty, To: nasty}}
	return m
}

func (s nastyShelf) Get(_ context.Context, id queue.ID) (*queue.Message, error) {
	return s.message(id), nil
}

func (s nastyShelf) List(_ context.Context, after queue.ID, fn func(*queue.Message) bool) error {
	if s.ids[0] > after {
		fn(s.message(s.ids[0]))
	}
	return nil
}

func (s nastyShelf) Hops(context.Context) ([]queue.HopInfo, error) {
	return []queue.HopInfo{{Hop: nasty, Parked: time.Unix(5000, 0), Status: queue.Status{Reply: nasty, Text: nasty}}}, nil
}

func (s nastyShelf) Body(context.Context, queue.ID) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("<html>" + nasty)), nil
}

// nastyBackend says it wherever a relay says anything.
func nastyBackend() Backend {
	s := nastyShelf{&shelf{ids: []queue.ID{queue.NewID(time.Now())}}}
	return Backend{
		Store: s, Routing: func() queue.Routing { return queue.Routing{} },
		Explain: func(context.Context, Question) Explanation {
			return Explanation{
				Domain: nasty, Text: nasty, Notes: []string{nasty}, Lookups: []Lookup{{Name: nasty, Records: []string{nasty}}},
				Targets: []Target{{Host: nasty, Contact: &Contact{Banner: nasty, Extensions: []string{nasty}}}}, Held: []Suspect{{Name: nasty, Why: nasty}},
			}
		},
		Trace: func(context.Context, queue.TraceQuery) (queue.Traces, error) {
			return queue.Traces{Found: []queue.Traced{{Message: *s.message(s.ids[0]), Plans: map[string]string{nasty: nasty}}}}, nil
		},
		Status: func(context.Context) (Status, error) {
			reply := queue.Status{Reply: nasty, Text: nasty}
			return Status{
				Summary: nasty, Findings: []Finding{{Subject: nasty, What: nasty, Next: nasty}},
				Hops: []HopStatus{{Hop: nasty, Domain: nasty, Status: reply}}, Down: []TargetStatus{{Target: nasty, Status: reply}},
				Fetch: []FetchStatus{{From: nasty, Error: nasty}},
			}, nil
		},
		Door:          func() Door { return Door{Refusing: nasty, Fix: nasty} },
		Bans:          func() Bans { return Bans{Bans: []Ban{{Network: nasty, Why: nasty}}, Guarded: []Guard{{User: nasty}}} },
		ChangeBans:    func(c BanChange) BanChanged { return BanChanged{Problem: c.Why, Note: nasty} },
		Suspects:      func() []Suspect { return []Suspect{{Name: nasty, Why: nasty}} },
		ChangeSuspect: func(c SuspectChange) SuspectChanged { return SuspectChanged{Problem: c.Release} },
		Reload:        func(context.Context) Reloaded { return Reloaded{Problems: []string{nasty}} },
		Backup:        func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "tar"); return err },
	}
}

// TestStoredScript: what strangers wrote into headers, addresses and replies
// stays text, in every answer that has it.
func TestStoredScript(t *testing.T) {
	b := nastyBackend()
	c, stop := Local(b)
	defer stop()
	ask := func(route, body string) (*http.Response, string) {
		method, path, _ := strings.Cut(route, " ")
		req, err := http.NewRequest(method, "http://srvrelay"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		harmless(t, resp, string(text))
		return resp, string(text)
	}
	id := string(b.Store.(nastyShelf).ids[0])
	quoted, _ := json.Marshal(nasty)
	const none = "-" // nothing of a stranger is in this answer
	table := map[string]struct{ query, body string }{
		"GET /healthz":               {none, ""},
		"GET /readyz":                {none, ""},
		"GET /v1/queue/count":        {none, ""},
		"POST /v1/queue/list":        {"", `{}`},
		"POST /v1/queue/records":     {"", `{}`},
		"POST /v1/queue/act":         {none, `{"verb":` + string(quoted) + `}`}, // refused; the word comes back in part
		"GET /v1/queue/summary":      {"", ""},
		"GET /v1/queue/{id}":         {"", ""},
		"GET /v1/queue/{id}/body":    {none, ""}, // an attachment, see below
		"POST /v1/queue/import":      {none, string(quoted)},
		"GET /v1/hops":               {"", ""},
		"GET /v1/door":               {"", ""},
		"GET /v1/explain":            {"?domain=" + url.QueryEscape(nasty), ""},
		"GET /v1/explain/{id}":       {"", ""},
		"GET /v1/status":             {"", ""},
		"GET /v1/bans":               {"", ""},
		"POST /v1/bans":              {"", `{"why":` + string(quoted) + `}`},
		"GET /v1/submission":         {"", ""},
		"POST /v1/submission":        {"", `{"release":` + string(quoted) + `}`},
		"POST /v1/trace":             {"", `{"term":` + string(quoted) + `,"max":1}`},
		"POST /v1/reload":            {"", ""},
		"POST /v1/backup":            {none, ""}, // a tar file
		"GET /v1/queue/%3Cscript%3E": {none, ""},
	}
	for _, route := range b.routes().patterns {
		if _, ok := table[route]; !ok {
			t.Errorf("nobody tries %s", route)
		}
	}
	for route, row := range table {
		resp, text := ask(strings.ReplaceAll(route, "{id}", id)+strings.TrimPrefix(row.query, none), row.body)
		switch kind := resp.Header.Get("Content-Type"); {
		case route == "GET /v1/queue/{id}/body":
			if kind != "message/rfc822" || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") || text != "<html>"+nasty {
				t.Errorf("%v\n%s", resp.Header, text)
			}
		case route == "POST /v1/backup":
			if kind != "application/x-tar" {
				t.Error(kind)
			}
		case kind != "application/json" && kind != problemJSON || strings.ContainsAny(text, "<>&\u2028"):
			t.Errorf("%s: %s\n%s", route, kind, text)
		case row.query != none && !strings.Contains(text, `script\u003ealert(1)`):
			t.Errorf("%s: what was to be shown is not there\n%s", route, text)
		}
	}
	m, err := c.Show(t.Context(), id)
	if err != nil || m.Sender != nasty+"@x.test" || m.Recipients[0].Address != nasty+"@y.test" {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestHealth: ready only while mail is taken.
func TestHealth(t *testing.T) {
	ready := false
	c, stop := Local(Backend{Ready: func() bool { return ready }})
	defer stop()
	ask := func(path string) int {
		resp, err := c.http.Get("http://localhost" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if got := [...]int{ask("/healthz"), ask("/readyz")}; got != [...]int{200, 503} {
		t.Error(got)
	}
	if ready = true; ask("/readyz") != 200 {
		t.Error("not ready")
	}
}

// TestVersions: a command and a relay of different versions say so.
func TestVersions(t *testing.T) {
	c, stop := Local(Backend{})
	defer stop()
	t.Run("a command from before versions", func(t *testing.T) {
		req, _ := http.NewRequest("GET", "http://srvrelay/hops", nil) // as it asked
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		// It printed an answer as it is, and took 404 for a missing message.
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == 200 || resp.StatusCode == 404 || !strings.HasPrefix(string(text), "this relay speaks version v1") {
			t.Errorf("%s: %s", resp.Status, text)
		}
	})
	t.Run("a command that knows more", func(t *testing.T) {
		err := c.do(t.Context(), "GET", "/trace/x", nil)
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "restart the relay") || errors.Is(err, queue.ErrNotFound) {
			t.Error(err)
		}
	})
	for _, e := range []struct {
		status      int
		contentType string
		text        string
		is          error
		want        string
	}{
		{404, "text/plain; charset=utf-8", "404 page not found\n", ErrVersion, "restart the relay"}, // a relay from before versions
		{404, problemJSON, `{"type":"urn:srvrelay:problem:no-such-message","detail":"no such message"}`, queue.ErrNotFound, "no such message"},
		{409, problemJSON, `{"type":"urn:srvrelay:problem:exists","detail":"it exists"}`, queue.ErrExists, "it exists"},
		{405, problemJSON, `{"type":"urn:srvrelay:problem:wrong-method","detail":"x"}`, ErrVersion, "restart the relay"},
		{418, problemJSON, `{"type":"urn:srvrelay:problem:to-come","detail":"words\u001b[2J"}`, nil, "words"},
		{502, "text/html", "<h1>Bad gateway\x1b[2J</h1>", nil, "status 502: <h1>Bad gateway"},
	} {
		err := refusalOf(e.status, e.contentType, []byte(e.text))
		if e.is != nil && !errors.Is(err, e.is) || !strings.Contains(err.Error(), e.want) || strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%d %s: %v", e.status, e.text, err)
		}
	}
}
