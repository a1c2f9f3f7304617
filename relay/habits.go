package relay

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
)

// AnomalyRules say when somebody who submits does what they have never done, as
// whoever has stolen a password does. The zero value finds nothing odd.
type AnomalyRules struct {
	Action       AnomalyAction
	VolumeFactor int            // so many times the busiest hour so far is sudden, in recipients; 0 = never,
	VolumeFloor  int            // if it is more than this
	UnknownShare int            // percent of recipients that turn out not to exist; 0 = never,
	UnknownFloor int            // if they are as many as this, within a day
	Exempt       []string       // users of whom nothing is odd
	Networks     []netip.Prefix // clients there that have not logged in are watched too, by address
}

// AnomalyAction is what comes of an anomaly.
type AnomalyAction string

// What comes of an anomaly. Off is what the zero value is too.
const (
	AnomalyOff  AnomalyAction = "off"
	AnomalyWarn AnomalyAction = "warn" // it is said
	AnomalyHold AnomalyAction = "hold" // and what they submit is held until somebody lets it go
)

// who is the key of whoever submits; "" is somebody who is not watched.
func (r *AnomalyRules) who(user string, client netip.Addr) string {
	switch {
	case r.Action != AnomalyWarn && r.Action != AnomalyHold:
		return ""
	case user != "" && !r.exempts(userKey+user):
		return userKey + user
	case user == "" && within(r.Networks, client.Unmap()):
		return "address " + addressKey(client)
	}
	return ""
}

const userKey = "user "

// exempts tells whether a key is that of a user of whom nothing is odd.
func (r *AnomalyRules) exempts(who string) bool {
	name, user := strings.CutPrefix(who, userKey)
	return user && slices.Contains(r.Exempt, name)
}

// check says what is wrong with the rules.
func (r *AnomalyRules) check() error {
	switch r.Action {
	case "", AnomalyOff:
		return nil
	case AnomalyWarn, AnomalyHold:
	default:
		return fmt.Errorf("anomaly: action %q is not one of off, warn, hold", r.Action)
	}
	if r.VolumeFactor < 0 || r.VolumeFloor < 0 || r.UnknownShare < 0 || r.UnknownShare > 100 || r.UnknownFloor < 1 {
		return fmt.Errorf("anomaly: %d times, more than %d; %d %%, at least %d: such numbers make no sense",
			r.VolumeFactor, r.VolumeFloor, r.UnknownShare, r.UnknownFloor)
	}
	return nil
}

// shownName is a key for people: the name, or the address.
func shownName(who string) string {
	_, name, _ := strings.Cut(who, " ")
	return safeText(name)
}

// An hour is counted in slots, so that what is in it is right to 5 minutes.
const (
	slotTime = 5 * time.Minute
	slots    = int(time.Hour / slotTime)
)

// How somebody is got to know, and forgotten.
const (
	habitDay      = 24 * time.Hour       // the busiest hour of a day counts as usual only when the day is over
	habitHalf     = 30 * 24 * time.Hour  // by then half of the busiest hour is forgotten
	habitForget   = 180 * 24 * time.Hour // since the last message: by then all of it
	habitWindow   = 4                    // times UnknownFloor: so many of the newest results count
	releasedGrace = 24 * time.Hour       // after a release nothing is odd
)

// habit is what is known of one who submits. The zero value is a stranger. It
// counts what goes out, not what is held.
type habit struct {
	Slots [slots]int64 `json:"slots"` // recipients, by slot; those of the last hour
	Slot  int64        `json:"slot"`  // the newest: Unix time / slotTime
	Day   time.Time    `json:"day"`   // when the present day of theirs began
	Peak  int64        `json:"peak"`  // the busiest hour of this day
	Usual float64      `json:"usual"` // the busiest hour of the days before, fading
	At    time.Time    `json:"at"`    // when Usual was right
	Last  time.Time    `json:"last"`  // the newest message

	Results time.Time `json:"results"` // when the first of these came
	Done    int       `json:"done"`    // recipients that were delivered or failed
	Unknown int       `json:"unknown"` // of them: that do not exist

	Free    time.Time `json:"free,omitzero"` // until then nothing is odd
	Suspect *Suspect  `json:"suspect,omitempty"`
}

// Suspect is somebody who does what they have never done.
type Suspect struct {
	Who   string    `json:"-"`     // "user NAME", "address 192.0.2.1"
	Since time.Time `json:"since"` // when it was found
	Why   string    `json:"why"`   // a sentence
	Held  bool      `json:"held"`  // what they submit is held; else it was only said

	Messages int64 `json:"messages,omitempty"` // that were held
	Bytes    int64 `json:"bytes,omitempty"`    // of them
}

// So much is held of one, about, or a thief could fill the queue for all others.
const (
	maxHeldMessages = 1000
	maxHeldBytes    = 256 << 20
)

// full tells whether no more is taken until somebody has looked at it.
func (s *Suspect) full() bool { return s.Messages >= maxHeldMessages || s.Bytes >= maxHeldBytes }

// Name is the user or the address, for people.
func (s Suspect) Name() string { return shownName(s.Who) }

// after is the habit at a later time: the slots and the day go on. A clock that
// goes back a little changes nothing; after more, hour and day begin anew.
func (h habit) after(now time.Time) habit {
	slot := now.Unix() / int64(slotTime/time.Second)
	if h.Slot-slot > int64(slots) {
		h.Slots, h.Slot = [slots]int64{}, slot
	}
	for n := min(slot-h.Slot, int64(slots)); n > 0; n-- {
		h.Slots[(slot-n+1)%int64(slots)] = 0
	}
	h.Slot = max(h.Slot, slot)
	if now.Sub(h.Day).Abs() < habitDay {
		return h
	}
	h.Usual = math.Max(h.usual(now), float64(h.Peak)*faded(now.Sub(h.Day)-habitDay))
	h.At, h.Day, h.Peak = now, now, 0
	return h
}

// usual is the busiest hour that is known, the present day aside, in recipients.
func (h habit) usual(now time.Time) float64 { return h.Usual * faded(now.Sub(h.At)) }

// faded is what is left of 1 after a time.
func faded(past time.Duration) float64 {
	return math.Exp2(-max(0, past.Hours()) / habitHalf.Hours())
}

// hour is how many recipients went out in the last hour.
func (h habit) hour() (n int64) {
	for _, x := range h.Slots {
		n += x
	}
	return n
}

// sent is the habit with n recipients more, or less, that go out. It needs after.
func (h habit) sent(n int64, now time.Time) habit {
	at := h.Slot % int64(slots)
	h.Slots[at] = max(0, h.Slots[at]+n)
	h.Peak = max(h.Peak, h.hour())
	h.Last = now
	return h
}

// limit is up to how many recipients an hour are nothing sudden.
func (r *AnomalyRules) limit(usual float64) int64 {
	return max(int64(r.VolumeFloor), int64(float64(r.VolumeFactor)*usual))
}

// sudden says why n recipients more are unlike before; "" = they are not. It needs after.
func (r *AnomalyRules) sudden(h habit, n int64, now time.Time) string {
	if r.VolumeFactor == 0 || now.Before(h.Free) {
		return ""
	}
	usual, hour := h.usual(now), h.hour()+n
	limit := r.limit(usual)
	if hour <= limit {
		return ""
	}
	before := fmt.Sprintf("the busiest hour before had %.0f", usual)
	if usual < 1 {
		before = "there was hardly any mail before"
	}
	return fmt.Sprintf("%d recipients within an hour, more than %d; %s", hour, limit, before)
}

// resulted is the habit with the result of one recipient more. What is older
// than a day, or than the window, does not count any more.
func (h habit) resulted(r *AnomalyRules, unknown bool, now time.Time) habit {
	if now.Sub(h.Results) >= habitDay {
		h.Results, h.Done, h.Unknown = now, 0, 0
	}
	if h.Done >= habitWindow*r.UnknownFloor {
		h.Done, h.Unknown = h.Done/2, h.Unknown/2
	}
	h.Done++
	if unknown {
		h.Unknown++
	}
	return h
}

// guessing says why the results look like addresses from a list of somebody
// else's; "" = they do not.
func (r *AnomalyRules) guessing(h habit, now time.Time) string {
	if r.UnknownShare == 0 || now.Before(h.Free) || h.Unknown < r.UnknownFloor || h.Unknown*100 < r.UnknownShare*h.Done {
		return ""
	}
	return fmt.Sprintf("%d of the last %d recipients do not exist", h.Unknown, h.Done)
}

// found is the habit after something odd was found, and the suspect if that is
// news: a hold is said once, until it is lifted; a warning once a day.
func (h habit) found(r *AnomalyRules, who, why string, now time.Time) (_ habit, news *Suspect) {
	hold := r.Action == AnomalyHold
	if s := h.Suspect; s != nil && (s.Held && hold || (s.Held || !hold) && now.Sub(s.Since) < habitDay) {
		return h, nil
	}
	h.Suspect = &Suspect{Who: who, Since: now, Why: why, Held: hold}
	return h, h.Suspect
}

// holds tells whether what they submit is held.
func (r *AnomalyRules) holds(h habit) bool {
	return r.Action == AnomalyHold && h.Suspect != nil && h.Suspect.Held
}

// released is the habit when somebody has looked at it and found it good. The
// results so far are older than a day when the grace is over.
func (h habit) released(now time.Time) habit {
	h.Suspect, h.Free = nil, now.Add(releasedGrace)
	return h
}

// shown is the suspect as the rules are now; nil = there is none.
func (h habit) shown(r *AnomalyRules, who string, now time.Time) *Suspect {
	if h.Suspect == nil {
		return nil
	}
	s := *h.Suspect
	s.Who, s.Held = who, r.holds(h) && !r.exempts(who)
	if !s.Held && now.Sub(s.Since) >= habitDay {
		return nil
	}
	return &s
}

// forgotten tells whether nothing of it matters any more.
func (h habit) forgotten(now time.Time) bool {
	return now.Sub(h.Last) >= habitForget && (h.Suspect == nil || !h.Suspect.Held)
}

// Result tells what became of a recipient of what a client submitted: whether
// it does not exist.
func (s *Server) Result(client queue.Client, unknown bool) {
	rules, now := &s.current.Load().Anomaly, time.Now()
	news := s.meter.result(rules, rules.who(client.User, client.Addr.Addr()), unknown, now)
	if news != nil {
		s.events.Anomaly(*news)
	}
}

// Suspects lists who does what they have never done.
func (s *Server) Suspects() []Suspect {
	return s.meter.suspects(&s.current.Load().Anomaly, time.Now())
}

// ErrNotOnHold: nothing odd is known of somebody.
var ErrNotOnHold = errors.New("not on hold")

// Release lifts the hold of a user, or of an address, and returns which it is. For a day
// nothing is odd that they do.
func (s *Server) Release(name string) (user bool, err error) {
	now := time.Now()
	if s.meter.release(userKey+name, now) {
		return true, nil
	}
	text := strings.TrimSuffix(name, "/64")
	if a, err := netip.ParseAddr(text); err == nil && s.meter.release("address "+addressKey(a), now) {
		return false, nil
	}
	return false, fmt.Errorf("%s is %w", safeText(name), ErrNotOnHold)
}
