package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"srvrelay/queue"
)

// Bounds of one request. The client asks for the next page.
const (
	pageSize   = 500      // messages of an answer, or to which something is done
	pageScan   = 5000     // messages looked at
	pageLines  = 10000    // recipients and attempts of an answer, up to the message that is one too many
	maxRequest = 1 << 20  // bytes
	maxRecord  = 64 << 20 // bytes of a message's envelope and state in an import
)

const importPath = "/queue/import" // the one that takes more than maxRequest

// errRequest is wrapped by what is the client's own fault.
var errRequest = errors.New("the request makes no sense")

// handleQueue adds what is about the queue.
func (b Backend) handleQueue(mux *routes) {
	mux.HandleFunc("POST /queue/list", withJSON(b.list))
	mux.HandleFunc("POST /queue/records", withJSON(b.records))
	mux.HandleFunc("POST /queue/act", withJSON(b.act))
	mux.HandleFunc("POST "+importPath, b.importMessage)
	mux.HandleFunc("GET /queue/summary", b.summary)
	mux.HandleFunc("GET /queue/count", func(w http.ResponseWriter, r *http.Request) {
		n, err := b.Store.Count(r.Context(), "")
		answer(w, n, err)
	})
	mux.HandleFunc("GET /queue/{id}", withID(func(w http.ResponseWriter, r *http.Request, id queue.ID) {
		m, err := b.Store.Get(r.Context(), id)
		if err != nil {
			answer(w, nil, err)
			return
		}
		v, err := b.view(r.Context())
		answer(w, v.message(m), err)
	}))
	mux.HandleFunc("GET /queue/{id}/body", withID(b.body))
}

// withJSON reads a request; the guard has bounded it.
func withJSON[T any](do func(context.Context, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req T
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&req); err != nil {
			answer(w, nil, fmt.Errorf("%w: %w", errRequest, err))
			return
		}
		v, err := do(r.Context(), req)
		answer(w, v, err)
	}
}

// withID checks the id of the path.
func withID(do func(http.ResponseWriter, *http.Request, queue.ID)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := queue.ParseID(r.PathValue("id"))
		if err != nil {
			answer(w, nil, fmt.Errorf("%w: %w", errRequest, err))
			return
		}
		do(w, r, id)
	}
}

// view is what a look at the queue is made with.
type view struct {
	routing queue.Routing
	parks   map[string]queue.HopInfo
	now     time.Time
}

func (b Backend) view(ctx context.Context) (view, error) {
	hops, err := b.Store.Hops(ctx)
	return b.viewOf(hops), err
}

func (b Backend) viewOf(hops []queue.HopInfo) view {
	v := view{b.Routing().WithDefaults(), map[string]queue.HopInfo{}, time.Now()}
	for _, h := range hops {
		if !h.Parked.IsZero() {
			v.parks[h.Hop] = h
		}
	}
	return v
}

func (v view) standing(sender string, r *queue.Recipient) queue.Standing {
	hop := v.routing.HopOf(sender, r)
	return queue.StandingOf(r, hop, v.parks[hop])
}

// chosen tells which recipients of a message a filter chooses.
func (v view) chosen(f queue.Filter, env *queue.Envelope, r *queue.Recipient) bool {
	return f.MatchEnvelope(env, v.now) && f.Match(r, v.standing(env.Sender, r))
}

func (v view) anyChosen(f queue.Filter, m *queue.Message) bool {
	for i := range m.Recipients {
		if v.chosen(f, &m.Envelope, &m.Recipients[i]) {
			return true
		}
	}
	return false
}

// message is a stored message in the shape of the API.
func (v view) message(m *queue.Message) Message {
	out := Message{
		ID: m.ID, Sender: m.Sender, Size: m.Size, Received: m.Received, Mode: m.Mode, Client: m.Client,
		Attempts: m.Attempts, Recipients: []Recipient{},
	}
	for _, r := range m.Recipients {
		st := v.standing(m.Sender, &r)
		row := Recipient{
			Address: r.Address, Hop: st.Hop, State: r.State, Attempts: r.Attempts, NextAttempt: st.Next, Parked: st.Parked,
			LastStatus: st.Status.String(), Reason: st.Reason, Settled: r.Settled, Released: r.Released,
		}
		if r.State.Waits() {
			row.Expires = v.routing.Retry(st.Hop, r.Domain).Expires(m.Received, &r)
		}
		out.Recipients = append(out.Recipients, row)
	}
	return out
}

// scan calls fn for a page of the messages that a selection is about, whether
// the filter chooses anybody in them or not. It returns what was named and is
// not there, and where the next page begins.
func (b Backend) scan(ctx context.Context, p page, fn func(*queue.Message) (full bool)) (missing []queue.ID, next queue.ID, err error) {
	if err := p.Filter.Check(); err != nil {
		return nil, "", fmt.Errorf("%w: %w", errRequest, err)
	}
	if len(p.IDs) > pageSize {
		return nil, "", fmt.Errorf("%w: %d ids, %d at most", errRequest, len(p.IDs), pageSize)
	}
	for _, id := range p.IDs {
		m, err := b.Store.Get(ctx, id)
		switch {
		case errors.Is(err, queue.ErrNotFound):
			missing = append(missing, id)
		case err != nil:
			return missing, "", err
		default:
			fn(m)
		}
	}
	if len(p.IDs) > 0 {
		return missing, "", nil
	}
	seen := 0
	err = b.Store.List(ctx, p.After, func(m *queue.Message) bool {
		if seen++; fn(m) || seen == pageScan {
			next = m.ID
		}
		return next == ""
	})
	return nil, next, err
}

// list answers with the messages in which somebody is chosen, and of them with
// those who are.
func (b Backend) list(ctx context.Context, p page) (any, error) {
	v, err := b.view(ctx)
	if err != nil {
		return nil, err
	}
	out, rcpts := messages{Messages: []Message{}}, 0
	_, out.Next, err = b.scan(ctx, p, func(m *queue.Message) bool {
		m.Recipients = slices.DeleteFunc(m.Recipients, func(r queue.Recipient) bool { return !v.chosen(p.Filter, &m.Envelope, &r) })
		if len(m.Recipients) > 0 {
			out.Messages = append(out.Messages, v.message(m))
			rcpts += len(m.Recipients)
		}
		return len(out.Messages) == pageSize || rcpts >= pageLines
	})
	return out, err
}

// records answers with whole messages as they are stored, bodies aside, in
// which somebody is chosen who is not done.
func (b Backend) records(ctx context.Context, p page) (any, error) {
	v, err := b.view(ctx)
	if err != nil {
		return nil, err
	}
	out := records{Records: []*queue.Message{}}
	lines := 0
	out.Missing, out.Next, err = b.scan(ctx, p, func(m *queue.Message) bool {
		open := slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool { return !r.State.Final() })
		if open && v.anyChosen(p.Filter, m) {
			if whole, err := b.Store.Get(ctx, m.ID); err == nil { // with its attempts
				out.Records = append(out.Records, whole)
				lines += len(whole.Recipients) + len(whole.Attempts)
			}
		}
		return len(out.Records) == pageSize || lines >= pageLines
	})
	return out, err
}

// patience is how long a verb waits for the end of an attempt.
const patience = 2 * time.Second

// act does a verb to a page of messages.
func (b Backend) act(ctx context.Context, req actRequest) (any, error) {
	v, err := b.view(ctx)
	if err != nil {
		return nil, err
	}
	a := queue.Action{Verb: req.Verb, Text: queue.Safe(req.Text, 500), First: len(req.IDs) > 0}
	if _, known := verbs[req.Verb]; !known {
		return nil, fmt.Errorf("%w: the verb %.20q", errRequest, string(req.Verb))
	}
	if !req.Filter.Empty() || len(req.IDs) == 0 {
		a.Pick = func(env *queue.Envelope, r *queue.Recipient) bool { return v.chosen(req.Filter, env, r) }
	}
	out := Acted{}
	ids := req.IDs
	if len(ids) == 0 {
		_, out.Next, err = b.scan(ctx, req.page, func(m *queue.Message) bool {
			if out.Seen++; v.anyChosen(req.Filter, m) {
				ids = append(ids, m.ID)
			}
			return len(ids) == pageSize
		})
	} else if out.Seen = len(ids); len(ids) > pageSize {
		err = fmt.Errorf("%w: %d ids, %d at most", errRequest, len(ids), pageSize)
	} else {
		err = req.Filter.Check()
	}
	if err != nil {
		return nil, err
	}
	done, err := b.actPatiently(ctx, ids, a)
	out.Messages, out.Recipients, out.Leased = done.Messages, done.Recipients, done.Leased
	if len(req.IDs) > 0 { // else they have gone since the scan
		out.Missing = done.Missing
	}
	return out, err
}

var verbs = map[queue.Verb]struct{}{queue.VerbRetry: {}, queue.VerbHold: {}, queue.VerbRelease: {}, queue.VerbFail: {}, queue.VerbDelete: {}}

// actPatiently tries again for a moment where an attempt is under way.
func (b Backend) actPatiently(ctx context.Context, ids []queue.ID, a queue.Action) (sum queue.Acted, err error) {
	first := true
	for until := time.Now().Add(patience); ; {
		done, err := b.Store.Act(ctx, ids, a)
		if err := errors.Join(err, b.announce(ctx, done)); err != nil {
			return sum, err
		}
		sum.Messages += done.Messages
		sum.Recipients += done.Recipients
		sum.Leased = done.Leased
		if first {
			sum.Missing = done.Missing // later it is: delivered meanwhile
		}
		if len(done.Leased) == 0 || time.Now().After(until) {
			return sum, nil
		}
		ids, first = done.Leased, false
		select {
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// announce writes the log and has the hops tried where something is due now.
func (b Backend) announce(ctx context.Context, done queue.Acted) error {
	if b.Acted != nil {
		b.Acted(done.Effects)
	}
	for _, hop := range done.Hops {
		if err := b.Unpark(ctx, hop); err != nil {
			return err
		}
	}
	return nil
}

// body answers with the bytes of a message.
func (b Backend) body(w http.ResponseWriter, r *http.Request, id queue.ID) {
	body, err := b.Store.Body(r.Context(), id)
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "message/rfc822")
	w.Header().Set("Content-Disposition", `attachment; filename="`+string(id)+`.eml"`)
	if _, err := io.Copy(w, body); err != nil {
		panic(http.ErrAbortHandler) // else a part would look like the whole
	}
}

// importMessage takes a record, as long as the parameter says, and a body.
func (b Backend) importMessage(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("record") // FormValue might read the body
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 || n > maxRecord {
		answer(w, nil, fmt.Errorf("%w: a record of %.20q bytes", errRequest, text))
		return
	}
	var m queue.Message
	record := make([]byte, n)
	if _, err = io.ReadFull(r.Body, record); err == nil {
		err = json.Unmarshal(record, &m)
	}
	if err != nil {
		answer(w, nil, fmt.Errorf("%w: %w", errRequest, err))
		return
	}
	err = b.Store.Import(r.Context(), &m, r.Body)
	_, _ = io.Copy(io.Discard, r.Body) // else the client may be cut off before it sees the answer
	answer(w, struct{}{}, err)
}

// Retry has all that a filter chooses tried now, a page after the other.
func (b Backend) Retry(ctx context.Context, f queue.Filter) (sum Acted, err error) {
	req := actRequest{Verb: queue.VerbRetry, page: page{Selection: Selection{Filter: f}}}
	for {
		out, err := b.act(ctx, req)
		if err != nil {
			return sum, err
		}
		done := out.(Acted)
		sum.Messages += done.Messages
		sum.Recipients += done.Recipients
		if req.After = done.Next; done.Next == "" {
			return sum, nil
		}
	}
}
