package sendmail

import "strings"

// Aliases says who gets the mail for a name of this machine, by its lower-case
// name: root to the person who looks after it.
type Aliases map[string][]string

// ParseAliases reads a file in the form of /etc/aliases: "name: address, address",
// lines that begin with a blank go on, and # begins a comment line. Programs, files and
// :include: are nobody that mail can be sent to, and are left out.
func ParseAliases(text string) Aliases {
	a := Aliases{}
	text = strings.NewReplacer("\r\n", "\n").Replace(text)
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case (line[0] == ' ' || line[0] == '\t') && len(lines) > 0:
			lines[len(lines)-1] += line
		default:
			lines = append(lines, line)
		}
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		key := strings.ToLower(strings.Trim(strings.TrimSpace(name), `"`))
		a[key] = append(a[key], targets(value)...)
	}
	return a
}

// targets are the addresses of one alias.
func targets(value string) []string {
	var all []string
	for _, t := range strings.Split(value, ",") {
		t = strings.TrimSpace(t)
		if t == "" || strings.ContainsAny(t[:1], `|/:"\`) {
			continue
		}
		if found, err := Addresses(t); err == nil {
			all = append(all, found...)
		}
	}
	return all
}

// resolve replaces the names without a domain by what they stand for. Nobody is
// named twice, and no name comes to nothing.
func (a Aliases) resolve(recipients []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, r := range recipients {
		to := []string{r}
		if name, ok := local(r); ok {
			if to = a.of(name, map[string]bool{}); len(to) == 0 { // aliases in a circle
				to = []string{postmaster}
			}
		}
		for _, t := range to {
			if !seen[t] {
				seen[t] = true
				out = append(out, t)
			}
		}
	}
	return out
}

// postmaster without a domain is the relay's (RFC 5321 4.5.1): it gets what is for names
// of this machine, as there are no mailboxes here.
const postmaster = "postmaster"

// of are the addresses that a name stands for. What has no alias is
// postmaster's.
func (a Aliases) of(name string, visited map[string]bool) (out []string) {
	if visited[name] {
		return nil
	}
	visited[name] = true
	targets := a[name]
	if len(targets) == 0 {
		if name == postmaster {
			return []string{postmaster}
		}
		return a.of(postmaster, visited)
	}
	for _, t := range targets {
		if n, ok := local(t); ok {
			out = append(out, a.of(n, visited)...)
		} else {
			out = append(out, t)
		}
	}
	return out
}

// local is the name of a recipient of this machine.
func local(addr string) (name string, ok bool) {
	name, domain, qualified := strings.Cut(strings.ToLower(addr), "@")
	return name, !qualified || domain == "localhost"
}
