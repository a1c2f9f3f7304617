package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"srvrelay/queue"
)

// RecipientList is Recipients from the operator's list: entries in the
// configuration, lines of a file, or both. Changes to the file apply to the
// next recipient. An entry is
//
//	me@home.example      this recipient
//	me+*@home.example    and me with any detail behind a "+"
//	@home.example        all of a domain
//	@.home.example       all of every domain below it
//
// Local parts are compared without regard to case: the servers that tell them
// apart are museum pieces, and senders write as they like.
type RecipientList struct {
	fixed entries
	path  string // "" = no file

	mu    sync.Mutex
	stamp fileStamp
	file  entries
	err   error // of the newest version of the file; the one before stays in force
}

// entries is a list as it is looked up.
type entries struct {
	names   map[string]bool // "local@domain", lower case
	domains domainSet
}

// maxListFile bounds the file, in bytes: some millions of recipients.
const maxListFile = 256 << 20

// settleTime is the age at which a changed file is read. A program that writes
// it in place, and not by a rename, is done by then: half a list would refuse
// the other half's mail.
const settleTime = time.Second

// NewRecipientList takes entries and, unless path is "", a file with one on
// each line; blank lines, and what follows a # at the
// beginning of a word, are left out.
func NewRecipientList(list []string, path string) (*RecipientList, error) {
	r := &RecipientList{path: path, fixed: newEntries(), file: newEntries()}
	for _, e := range list {
		if err := r.fixed.add(e); err != nil {
			return nil, err
		}
	}
	if path == "" {
		return r, nil
	}
	if err := r.reload(true); err != nil {
		return nil, err
	}
	return r, r.err
}

// Check looks a recipient up.
func (r *RecipientList) Check(_ context.Context, to queue.Recipient) Answer {
	local, domain, ok := localPart(to)
	if !ok {
		return Answer{Verdict: NoSuch}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.reload(false) // Problem tells
	if r.fixed.has(local, domain) || r.file.has(local, domain) {
		return Answer{Verdict: Exists}
	}
	return Answer{Verdict: NoSuch}
}

// localPart takes a recipient's address apart, without quotes and in lower case.
func localPart(to queue.Recipient) (local, domain string, ok bool) {
	a, err := ParseAddress(to.Address, true)
	return strings.ToLower(a.Local), to.Domain, err == nil
}

// Problem returns what is wrong with the newest version of the file, or nil.
func (r *RecipientList) Problem() error {
	if r.path == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.reload(false); err != nil {
		return err
	}
	return r.err
}

// reload reads the file if it has changed, and at once, or only if it has
// settled. mu is held (or r is new).
func (r *RecipientList) reload(atOnce bool) error {
	if r.path == "" {
		return nil
	}
	fi, err := os.Stat(r.path)
	if err != nil {
		return fmt.Errorf("recipients file: %w", err)
	}
	age := time.Since(fi.ModTime())
	if stampOf(fi) == r.stamp || !atOnce && age >= 0 && age < settleTime {
		return nil
	}
	f, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("recipients file: %w", err)
	}
	defer f.Close()
	if fi, err = f.Stat(); err != nil {
		return fmt.Errorf("recipients file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxListFile+1))
	if err != nil {
		return fmt.Errorf("recipients file: %w", err)
	}
	list, err := parseRecipients(r.path, data)
	r.stamp, r.err = stampOf(fi), err
	if err == nil {
		r.file = list
	}
	return nil
}

// maxListErrors is how many mistakes of a file are shown.
const maxListErrors = 10

// parseRecipients reads the lines of a file; its mistakes are in the error.
func parseRecipients(path string, data []byte) (entries, error) {
	list := newEntries()
	if len(data) > maxListFile {
		return list, fmt.Errorf("%s: larger than %d MiB", path, maxListFile>>20)
	}
	var errs []error
	any := false
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan() && len(errs) < maxListErrors; n++ {
		line, _, _ := strings.Cut(" "+sc.Text(), " #") // a # inside of a word is a letter of it
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		any = true
		if err := list.add(line); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, n, err))
		}
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	if !any && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: names nobody, so all mail would be refused: write at least one address, or @domain", path))
	}
	return list, errors.Join(errs...)
}

func newEntries() entries {
	return entries{names: map[string]bool{}, domains: domainSet{exact: map[string]bool{}}}
}

// add takes an entry into the list.
func (e *entries) add(entry string) error {
	if domain, whole := strings.CutPrefix(entry, "@"); whole {
		if err := e.domains.add(domain); err != nil {
			return fmt.Errorf("%q is not @ and a domain: %w", shown(entry), err)
		}
		return nil
	}
	a, err := ParseAddress(entry, true)
	if err == nil && a.IsLiteral() {
		err = errors.New("an address literal is nobody's mailbox")
	}
	if err != nil {
		return fmt.Errorf("%q is not an address such as me@home.example, nor @home.example: %w", shown(entry), err)
	}
	e.names[strings.ToLower(a.Local)+"@"+a.Domain] = true
	return nil
}

// shown is an entry fit for an error.
func shown(entry string) string { return queue.Safe(entry, 100) }

// has looks up a local part in lower case; me+detail is also found by me+*.
func (e *entries) has(local, domain string) bool {
	if e.domains.has(domain) || e.names[local+"@"+domain] {
		return true
	}
	user, _, detail := strings.Cut(local, "+")
	return detail && e.names[user+"+*@"+domain]
}
