package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay/admin"
)

// TestStatusOfALargeQueue: with much mail for many hops that do not answer,
// a status is there, how soon is in the log of the test, and says so first. With
// SRVRELAY_STRESS=1 it is a million messages.
func TestStatusOfALargeQueue(t *testing.T) {
	messages, hops := 4_000, 2_000
	if stressed() {
		messages, hops = 1_000_000, 50_000
	}
	dir := t.TempDir()
	config := configFile(t, "hostname: relay.test\ndata_dir: "+dir+"\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\ndns: { servers: [\"127.0.0.1:1\"] }\nlog: { format: json, level: error }\nhistory: { keep: 0s }\n")
	fillQueue(t, filepath.Join(dir, "queue"), messages, hops)
	startRelayQuietly(t, config, filepath.Join(dir, "admin.sock"))
	client := admin.NewClient(filepath.Join(dir, "admin.sock"))
	poll(t, time.Minute, "all messages are counted", func() bool {
		st, err := client.Status(context.Background())
		return err == nil && int(st.Door.Messages) == messages
	})
	for range 20 {
		begin := time.Now()
		st, err := client.Status(context.Background())
		took := time.Since(begin)
		if err != nil || int(st.Door.Messages) != messages {
			t.Fatal(st.Door.Messages, err)
		}
		if len(st.Findings) > admin.MaxFindings || len(st.Hops) > admin.MaxHopRows {
			t.Errorf("%d findings, %d hops", len(st.Findings), len(st.Hops))
		}
		t.Logf("%s: %s (%s), %d looked at, %d hops", took.Round(time.Millisecond), st.Summary, st.Reason, st.Queue.Seen, st.Queue.Hops)
	}
	poll(t, waitLimit, "it says that all hops have one reason", func() bool {
		_, out := invoke(t, config, "", "status")
		return strings.Contains(firstLine(out), "one reason: looking up _smtp._tcp.")
	})
}

// startRelayQuietly starts a relay whose log does not say that it is ready.
func startRelayQuietly(t *testing.T, config, socket string) {
	t.Helper()
	cmd := command(context.Background(), config, "serve")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	poll(t, time.Minute, "the relay answers", func() bool {
		_, err := admin.NewClient(socket).Hops(context.Background())
		return err == nil
	})
}

// fillQueue puts messages for so many hops into a store.
func fillQueue(t *testing.T, dir string, messages, hops int) {
	t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir, Hostname: "relay.test"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const writers = 500 // they share syncs
	for w := range writers {
		wg.Go(func() {
			for i := w; i < messages; i += writers {
				domain := fmt.Sprintf("hop%d.test", i%hops)
				env := &queue.Envelope{
					Sender: "a@client.test", Received: time.Now(), Mode: queue.Submission,
					To: []queue.Recipient{{Address: "you@" + domain, Domain: domain}},
				}
				if _, err := store.Put(context.Background(), env, strings.NewReader("Subject: x\r\n\r\nhello\r\n")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}
