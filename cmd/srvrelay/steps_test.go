package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

// step plays one line of a scenario. Words that contain blanks are quoted.
//
//	send FROM TO[,TO...] [NOTIFY=... ...] [mail=SMTPUTF8] [times=N] [size=N]
//	                                        submit; it must be accepted; other
//	                                        parameters are those of RCPT
//	refused CODE FROM TO[,TO...]            submit; it must be refused so
//	accepted FROM TO                        submit until it is taken
//	guess N FROM DOMAIN                     RCPT for N names, each of which is refused
//	said SERVER N text                      so many command lines that begin so, so far
//	wait EVENT [key=text...] [count=N]      until the log has (at least N of) it
//	never EVENT [key=text...]               the log does not have it
//	got SERVER N [from=] [rcpt=] [data=] [params=] [without=] [user=] [mech=] [tls=true] [lmtp=true] ...
//	                                        until the server has exactly N such messages
//	connections SERVER N                    so many connections so far
//	queue N [state=] [reason=] [rcpt=]      until so many recipients wait in the queue
//	share SERVER MIN MAX                    it has so many messages now
//	connected SERVER                        until somebody has connected to it
//	atmost EVENT N                          the log has it N times at most
//	asked N "TYPE name"                     so many DNS queries so far
//	explain CODE DOMAIN text...             exit code, and all the texts are in the output
//	stop SERVER, start SERVER, script SERVER N, zone N
//	kill, restart (kill -9 and start), term (SIGTERM, exit 0 within 10 s), start-relay
//	reload N [CODE text...]                 with section "config N"; as cli
//	hup N                                   SIGHUP, with section "config N"
//	file NAME N                             exchange a file
//	cli CODE "ARGS" text...                 run a command; all the texts are in the output
//	retry                                   srvrelay queue retry of all that is queued
func (s *scenario) step(w []string) error {
	plain, keys := arguments(w[1:])
	switch w[0] {
	case "zone", "reload", "file", "kill", "restart", "term":
		// Plans may be others from here on.
		if err := s.samePlans(); err != nil {
			return err
		}
	}
	switch w[0] {
	case "send":
		return s.send(plain, keys, w[3:])
	case "refused":
		refusal, err := submit(s.relay.address(), strings.Trim(plain[1], "<>"), strings.Split(plain[2], ","), "", s.message())
		if err == nil && !strings.HasPrefix(refusal, plain[0]) {
			err = fmt.Errorf("the answer is %q", refusal)
		}
		return err
	case "accepted":
		var refusal string
		return until(func() bool {
			refusal, _ = submit(s.relay.address(), plain[0], plain[1:], "", s.message())
			return refusal == ""
		}, func() error { return fmt.Errorf("the answer is %q", refusal) })
	case "guess":
		return s.guess(plain)
	case "said":
		n := 0
		for _, l := range s.servers[plain[0]].Dialogue() {
			if strings.HasPrefix(l, "C: "+plain[2]) {
				n++
			}
		}
		if strconv.Itoa(n) != plain[1] {
			return fmt.Errorf("it was said %d times", n)
		}
	case "wait":
		return s.waitFor(plain[0], keys)
	case "never":
		s.relay.mu.Lock()
		defer s.relay.mu.Unlock()
		if n := s.relay.matching(plain[0], keys); n > 0 {
			return fmt.Errorf("the log has it %d times", n)
		}
	case "got":
		return s.got(plain, keys)
	case "connections":
		if n := s.servers[plain[0]].Connections(); strconv.Itoa(n) != plain[1] {
			return fmt.Errorf("%d connections", n)
		}
	case "share":
		return s.share(plain)
	case "connected":
		srv := s.servers[plain[0]]
		return until(func() bool { return srv.Connections() > 0 }, func() error { return errors.New("nobody has connected") })
	case "atmost":
		s.relay.mu.Lock()
		defer s.relay.mu.Unlock()
		if most, _ := strconv.Atoi(plain[1]); s.relay.matching(plain[0], keys) > most {
			return fmt.Errorf("the log has it %d times", s.relay.matching(plain[0], keys))
		}
	case "queue":
		return s.queue(plain[0], keys)
	case "asked":
		n := 0
		for _, q := range s.dns.Queries() {
			if q == plain[1] {
				n++
			}
		}
		if strconv.Itoa(n) != plain[0] {
			return fmt.Errorf("asked %d times; all queries: %v", n, s.dns.Queries())
		}
	case "explain":
		return s.explain(plain)
	case "stop":
		s.servers[plain[0]].Stop()
	case "start":
		return s.servers[plain[0]].Restart()
	case "script":
		return s.servers[plain[0]].SetScript(s.sections["server "+plain[0]+" "+plain[1]])
	case "zone":
		return s.dns.SetZone(s.ports(s.sections["zone "+plain[0]]))
	case "kill":
		s.relay.kill()
	case "start-relay":
		s.relay = startRelay(s, s.config)
	case "restart":
		s.relay.kill()
		s.relay = startRelay(s, s.config)
	case "term":
		if took, err := s.relay.terminate(); err != nil || took > 10*time.Second {
			return fmt.Errorf("%v after %s", err, took)
		}
	case "reload":
		if len(plain) == 0 {
			plain = []string{"", "0"}
		}
		if plain[0] != "" {
			s.writeConfig("config " + plain[0])
		}
		if len(plain) == 1 {
			plain = append(plain, "0")
		}
		return s.cli(plain[1], []string{"reload"}, plain[2:])
	case "hup":
		s.writeConfig("config " + plain[0])
		return s.relay.cmd.Process.Signal(syscall.SIGHUP)
	case "file":
		s.writeFile(plain[0], s.sections["file "+strings.Join(plain, " ")])
	case "cli":
		return s.cli(plain[0], strings.Fields(plain[1]), plain[2:])
	case "retry":
		return s.retry()
	default:
		return fmt.Errorf("no such step")
	}
	return nil
}

// arguments parts plain words from key=text.
func arguments(words []string) (plain []string, keys map[string]string) {
	keys = map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok && k != "" && !strings.ContainsAny(k, "@. ") {
			keys[k] = v
		} else {
			plain = append(plain, w)
		}
	}
	return plain, keys
}

// splitStep splits a line at blanks outside of double quotes.
func splitStep(line string) []string {
	var words []string
	quoted, word, any := false, strings.Builder{}, false
	for _, c := range line {
		switch {
		case c == '"':
			quoted, any = !quoted, true
		case c == ' ' && !quoted:
			if any {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(c)
			any = true
		}
	}
	if any {
		words = append(words, word.String())
	}
	return words
}

func (s *scenario) message() string {
	if m := s.sections["message"]; m != "" {
		return m
	}
	return "Subject: a scenario\nFrom: a@client.test\nMessage-ID: <m@client.test>\n\nHello.\n"
}

func (s *scenario) send(plain []string, keys map[string]string, params []string) error {
	from := plain[0]
	if from == "<>" {
		from = ""
	}
	times, message := 1, s.message()
	if n := keys["times"]; n != "" {
		times, _ = strconv.Atoi(n)
	}
	if n, _ := strconv.Atoi(keys["size"]); n > 0 {
		message += strings.Repeat(strings.Repeat("x", 70)+"\n", n/71+1)
	}
	params = slices.DeleteFunc(slices.Clone(params), func(p string) bool {
		return strings.HasPrefix(p, "times=") || strings.HasPrefix(p, "size=") || strings.HasPrefix(p, "mail=")
	})
	for range times {
		refusal, err := submitWith(s.relay.address(), from, strings.TrimSpace("BODY=8BITMIME "+keys["mail"]), strings.Split(plain[1], ","), strings.Join(params, " "), message)
		if err != nil || refusal != "" {
			return fmt.Errorf("%v %s", err, refusal)
		}
	}
	return nil
}

func (s *scenario) waitFor(event string, keys map[string]string) error {
	want := 1
	if c, ok := keys["count"]; ok {
		want, _ = strconv.Atoi(c)
		delete(keys, "count")
	}
	if !s.relay.await(waitLimit, func() bool { return s.relay.matching(event, keys) >= want }) {
		return errors.New("it is not in the log")
	}
	return nil
}

// guess names recipients as a spammer with a dictionary does.
func (s *scenario) guess(plain []string) error {
	n, err := strconv.Atoi(plain[0])
	for i := range n {
		var refusal string
		if refusal, err = submit(s.relay.address(), plain[1], []string{fmt.Sprintf("name%d@%s", i, plain[2])}, "", ""); err != nil || refusal == "" {
			return fmt.Errorf("name %d: %v, taken: %v", i, err, refusal == "")
		}
	}
	return err
}

// got waits until a server has exactly so many of the messages described.
func (s *scenario) got(plain []string, keys map[string]string) error {
	srv := s.servers[plain[0]]
	if srv == nil {
		return fmt.Errorf("no server %s", plain[0])
	}
	want, err := strconv.Atoi(plain[1])
	if err != nil {
		return err
	}
	var n int
	return until(func() bool {
		n = 0
		for _, m := range srv.Messages() {
			if matches(m, keys) {
				n++
			}
		}
		return n == want
	}, func() error { return fmt.Errorf("it has %d such messages", n) })
}

// share checks how many messages a server has got of what was spread.
func (s *scenario) share(plain []string) error {
	n := len(s.servers[plain[0]].Messages())
	low, _ := strconv.Atoi(plain[1])
	high, _ := strconv.Atoi(plain[2])
	if n < low || n > high {
		return fmt.Errorf("it has %d", n)
	}
	return nil
}

func matches(m sink.Message, keys map[string]string) bool {
	if f, ok := keys["from"]; ok && f != m.From && !(f == "<>" && m.From == "") {
		return false
	}
	if d, ok := keys["data"]; ok && !strings.Contains(string(m.Data), d) {
		return false
	}
	if p, ok := keys["params"]; ok && !strings.Contains(m.MailParams, p) {
		return false
	}
	if p, ok := keys["without"]; ok && strings.Contains(m.MailParams, p) {
		return false
	}
	for k, has := range map[string]string{
		"tls": strconv.FormatBool(m.TLS), "lmtp": strconv.FormatBool(m.LMTP), "user": m.User, "mech": m.Mech,
	} {
		if want, ok := keys[k]; ok && want != has {
			return false
		}
	}
	want, ok := keys["rcpt"]
	return !ok || slices.ContainsFunc(m.Rcpts, func(r sink.Rcpt) bool {
		return r.To == want && strings.Contains(r.Params, keys["rcptparams"])
	})
}

// queue waits until so many recipients wait in the queue.
func (s *scenario) queue(number string, keys map[string]string) error {
	var found []string
	return until(func() bool {
		found = nil
		list, err := queueList(s.config)
		if err != nil {
			found = []string{err.Error()}
			return false
		}
		for _, m := range list {
			for _, r := range m.Recipients {
				text := fmt.Sprintf("%s state=%s reason=%s status=%s hop=%s attempts=%d", r.Address, r.State, r.Reason, r.LastStatus, r.Hop, r.Attempts)
				hit := !r.State.Final() || keys["state"] != ""
				for k, v := range keys {
					if k == "rcpt" {
						hit = hit && r.Address == v
					} else {
						hit = hit && strings.Contains(text, k+"="+v)
					}
				}
				if hit {
					found = append(found, text)
				}
			}
		}
		return strconv.Itoa(len(found)) == number
	}, func() error { return fmt.Errorf("found %d: %s", len(found), strings.Join(found, "; ")) })
}

// until polls what has no event to wait for: another process.
func until(cond func() bool, failure func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(waitLimit)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			return failure()
		}
	}
	return nil
}

func (s *scenario) explain(plain []string) error {
	return s.cli(plain[0], []string{"explain", plain[1]}, plain[2:])
}

// cli runs a command of the program.
func (s *scenario) cli(want string, args, texts []string) error {
	out, err := command(context.Background(), s.config, args...).CombinedOutput()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != want {
		return fmt.Errorf("exit code %d\n%s", code, out)
	}
	for _, text := range texts {
		if !strings.Contains(string(out), text) {
			return fmt.Errorf("%q is not in\n%s", text, out)
		}
	}
	return nil
}

// samePlans compares what explain shows with what the worker used since the
// last time, for every hop: the two must not part.
func (s *scenario) samePlans() error {
	plans, asked := s.plansUsed()
	for hop, used := range plans {
		q, known := asked[hop]
		if !known {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		e, err := admin.NewClient(filepath.Join(s.dir, "data", "admin.sock")).Explain(ctx, q)
		cancel()
		switch {
		case errors.Is(err, admin.ErrNotRunning):
			return nil
		case err != nil:
			return err
		case e.Hop == hop && !used[e.Plan]:
			return fmt.Errorf("explain shows another plan for %s than the worker used: %s, not %v\n%+v", hop, e.Plan, used, e)
		}
	}
	return nil
}

// plansUsed reads the plans of the attempts since the last time from the log,
// and for which mail they were.
func (s *scenario) plansUsed() (plans map[string]map[string]bool, asked map[string]admin.Question) {
	plans, asked = map[string]map[string]bool{}, map[string]admin.Question{}
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	for _, e := range s.relay.events[min(s.compared, len(s.relay.events)):] {
		hop, _ := e["hop"].(string)
		switch e["msg"] {
		case "attempt":
			if plans[hop] == nil {
				plans[hop] = map[string]bool{}
			}
			plans[hop][fmt.Sprint(e["plan"])] = true
		case "delivered", "deferred", "failed", "held":
			asked[hop] = admin.Question{Domain: domainOf(fmt.Sprint(e["to"])), Sender: fmt.Sprint(e["from"])}
		}
	}
	s.compared = len(s.relay.events)
	return plans, asked
}

func (s *scenario) retry() error {
	list, err := queueList(s.config)
	if err != nil {
		return err
	}
	for _, m := range list {
		if out, err := command(context.Background(), s.config, "queue", "retry", string(m.ID)).CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	return nil
}
