package queue

import (
	"testing"
	"time"
)

// TestNextID: what servers say when they take a message, and the id in it.
func TestNextID(t *testing.T) {
	for reply, want := range map[string]string{
		"250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q":                                         "4Xk0Yp1Fz7z1q",
		"250 2.0.0 queued as 01JD8KQ0T5Z6M1RV3NXE7W9ABC":                                "01JD8KQ0T5Z6M1RV3NXE7W9ABC",
		"250 OK id=1tG4Yb-00000000Abc-1xyz":                                             "1tG4Yb-00000000Abc-1xyz",
		"250 2.0.0 49N8hXYZ012345 Message accepted for delivery":                        "49N8hXYZ012345",
		"250 2.0.0 f3b6c7a1 Message accepted for delivery":                              "f3b6c7a1",
		"250 2.6.0 <a@b> [InternalId=123, Hostname=x.example] Queued mail for delivery": "123",
		"250 2.0.0 OK  1732873829 5b1f17b1804b1-434b0dbf1f5si57905545e9.164 - gsmtp":    "5b1f17b1804b1-434b0dbf1f5si57905545e9.164",
		"250 2.0.0 Message accepted for delivery":                                       "",
		"250 2.0.0 - gsmtp": "", "250 ok": "", "": "", "250 2.0.0 Ok: queued as ": "",
	} {
		r := Recipient{State: Delivered, Last: Status{Reply: reply}}
		if got := r.NextID(); got != want {
			t.Errorf("%q: %q, want %q", reply, got, want)
		}
	}
	if r := (Recipient{State: Deferred, Last: Status{Reply: "250 queued as 4711"}}); r.NextID() != "" {
		t.Errorf("nobody has taken it, and its id is %q", r.NextID())
	}
}

// TestTraceMeant: which words find a message.
func TestTraceMeant(t *testing.T) {
	came := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	m := &Traced{Gone: came.Add(time.Hour), Message: Message{
		Envelope:   Envelope{ID: "01KQS4EZ00ABCDEFGHJKMNPQRS", Sender: "Alice@A.example", MessageID: "X.1@client", Received: came},
		Recipients: []Recipient{{Address: "bob@bücher.example", Domain: "xn--bcher-kva.example", State: Delivered, Last: Status{Reply: "250 queued as 4Xk"}}},
	}}
	for term, want := range map[string]bool{
		"": true, "alice@a.example": true, "<ALICE@a.EXAMPLE>": true, "a.example": true, "@a.example": true, " a.example. ": true,
		"bob@bücher.example": true, "bob@xn--bcher-kva.example": true, "bücher.example": true,
		"x.1@CLIENT": true, "<X.1@client>": true, "01kqs4ez00abcdefghjkmnpqrs": true, "4xk": true,
		"alice": false, "bob@a.example": false, "example": false, "4x": false, "X.1": false, "<>": false, "alice@": false, "@": false,
	} {
		if got := (TraceQuery{Term: term}).Meant(m); got != want {
			t.Errorf("%q: %v", term, got)
		}
	}
	for _, c := range []struct {
		since, until time.Duration
		want         bool
	}{{-time.Hour, time.Hour, true}, {30 * time.Minute, 2 * time.Hour, true}, {2 * time.Hour, 3 * time.Hour, false}, {-2 * time.Hour, -time.Hour, false}} {
		if got := (TraceQuery{Since: came.Add(c.since), Until: came.Add(c.until)}).Meant(m); got != c.want {
			t.Errorf("%v to %v: %v", c.since, c.until, got)
		}
	}
}
