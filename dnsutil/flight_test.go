package dnsutil

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// gated returns a client whose resolver answers when the gate is closed.
func gated(t *testing.T) (*Client, *scripted, chan struct{}) {
	gate := make(chan struct{})
	c, s := scriptedClient(t, func(question) (*dns.Msg, error) {
		<-gate
		return message(t, 0, "a.example. 0 IN MX 1 t.example."), nil
	})
	return c, s, gate
}

func TestSameQuestionIsAskedOnceAndSurvivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, gate := gated(t)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 11)
		look := func(ctx context.Context) {
			a, err := c.MX(ctx, "a.example")
			if err == nil && len(a.Records) != 1 {
				err = errors.New("no record")
			}
			errs <- err
		}
		go look(ctx)
		synctest.Wait()
		for range 10 {
			go look(t.Context())
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Fatalf("the cancelled caller got %v", err)
		}
		close(gate)
		for range 10 {
			if err := <-errs; err != nil {
				t.Errorf("a caller that stayed got %v", err)
			}
		}
		if s.count() != 1 {
			t.Errorf("%d questions, want 1", s.count())
		}
	})
}

func TestLookupEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scriptedClient(t, nil)
		ended := make(chan error, 2)
		c.exchange = func(ctx context.Context, _ string, _ question) (*dns.Msg, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		for range 2 {
			go func() { _, err := c.MX(ctx, "a.example"); errs <- err }()
		}
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("caller got %v", err)
			}
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the look-up ended with %v", err)
		}
		synctest.Wait()
		// A cancelled look-up is no fact: the next caller asks anew.
		c.exchange = func(context.Context, string, question) (*dns.Msg, error) {
			return message(t, 0, "a.example. 60 IN MX 1 t.example."), nil
		}
		if _, err := c.MX(t.Context(), "a.example"); err != nil {
			t.Errorf("the next caller got %v", err)
		}
	})
}

func TestWholeLookupIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scriptedClient(t, nil)
		c.exchange = func(ctx context.Context, _ string, _ question) (*dns.Msg, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began := time.Now()
		_, err := c.MX(t.Context(), "a.example")
		wantProblem(t, err, "timeout")
		// One server, one round: 3 s for UDP and 3 s for TCP.
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("the look-up took %v, want 6s", took)
		}
	})
}

func TestPanicOfTheParserFailsOneQuestion(t *testing.T) {
	c, _ := scriptedClient(t, func(q question) (*dns.Msg, error) {
		if q.name == "bad.example" {
			panic("boom")
		}
		return message(t, 0, "a.example. 60 IN MX 1 t.example."), nil
	})
	_, err := c.MX(t.Context(), "bad.example")
	wantProblem(t, err, "internal error")
	if _, err := c.MX(t.Context(), "a.example"); err != nil {
		t.Error(err)
	}
}
