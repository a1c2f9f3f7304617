package sink

import (
	"encoding/base64"
	"slices"
	"strings"
)

// auth answers AUTH PLAIN and AUTH LOGIN (RFC 4954), under TLS or not: it is
// the client that must not say its password in clear text. Neither responses
// nor passwords are kept in the dialogue.
func (s *session) auth(rest string) error {
	mech, initial := cut(rest)
	mech = strings.ToUpper(mech)
	switch {
	case s.user != "":
		return s.say("503 5.5.1 authenticated already\r\n")
	case s.open:
		return s.say("503 5.5.1 AUTH in a transaction\r\n")
	case !slices.Contains(s.srv.current().mechanisms(), mech) || (mech != "PLAIN" && mech != "LOGIN"):
		return s.say("504 5.5.4 no such mechanism\r\n")
	}
	var said []string
	var err error
	if mech == "PLAIN" {
		said, err = s.responses(initial, "")
		if len(said) == 1 {
			said = strings.Split(said[0], "\x00")[1:] // authorization identity, user, password
		}
	} else {
		said, err = s.responses(initial, "Username:", "Password:")
	}
	if err != nil {
		return err
	}
	if len(said) != 2 {
		return s.say("501 5.5.2 malformed response\r\n")
	}
	a, known := s.act("auth"), s.srv.current().knows(said[0], said[1], mech)
	standard := "535 5.7.8 wrong user or password"
	if known {
		standard = "235 2.7.0 welcome"
	}
	if a.ok() && (known || a.kind == reply) {
		s.user, s.mech = said[0], mech
	}
	return s.answer("auth", a, standard)
}

// responses asks for one response a prompt, the first of which may have come
// with the command; nil when one is not base64.
func (s *session) responses(initial string, prompts ...string) (said []string, err error) {
	line := initial
	for _, p := range prompts {
		if line == "" {
			if err := s.say("334 " + base64.StdEncoding.EncodeToString([]byte(p)) + "\r\n"); err != nil {
				return nil, err
			}
			if line, err = s.readLine(); err != nil {
				return nil, err
			}
			s.srv.note("C: ", "[response]")
		}
		b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, "="))
		if err != nil {
			return nil, nil
		}
		said, line = append(said, string(b)), ""
	}
	return said, nil
}

// mechanisms is what the script's users may use.
func (s *script) mechanisms() (list []string) {
	for _, r := range s.rules {
		if r.verb == "user" {
			list = append(list, r.words[2:]...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (s *script) knows(user, password, mech string) bool {
	return slices.ContainsFunc(s.rules, func(r *rule) bool {
		return r.verb == "user" && r.words[0] == user && r.words[1] == password && slices.Contains(r.words[2:], mech)
	})
}

// shown is a command as the dialogue keeps it.
func shown(line string) string {
	w := strings.SplitN(line, " ", 3)
	if len(w) == 3 && strings.EqualFold(w[0], "AUTH") {
		return w[0] + " " + w[1] + " [response]"
	}
	return line
}
