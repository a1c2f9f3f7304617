//go:build linux

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// hook is a source file that opens net/http/pprof on a Unix socket. It is laid
// over the package srvrelay for the build, so that the product has no such door.
//
//go:embed profiled.go.txt
var hook []byte

// relayPackage is what is built.
const relayPackage = "srvrelay/cmd/srvrelay"

// pprofSocket is the variable that the hook reads.
const pprofSocket = "RELAYBENCH_PPROF"

// buildRelay builds srvrelay as it is released, or with the hook.
func buildRelay(dir string, profiled bool) (string, error) {
	binary := filepath.Join(dir, "srvrelay")
	args := []string{"build", "-trimpath", "-o", binary}
	if profiled {
		overlay, err := overlayHook(dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, relayPackage)...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s\n(or name a binary with -srvrelay)", err, out)
	}
	return binary, nil
}

func overlayHook(dir string) (string, error) {
	source, err := exec.Command("go", "list", "-f", "{{.Dir}}", relayPackage).Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	text := filepath.Join(dir, "profiled.go")
	if err := os.WriteFile(text, hook, 0o644); err != nil {
		return "", err
	}
	at := filepath.Join(string(source[:len(source)-1]), "relaybench_profiled.go")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {at: text}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o644)
}

// profiles fetches profiles of the relay behind a socket while it works, into
// files that begin with prefix. What is counted since the start (allocations,
// locks) is fetched as the difference over the same time.
func profiles(ctx context.Context, socket, prefix string, span time.Duration) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	web := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	kinds := map[string]string{"cpu": "profile", "allocs": "allocs", "mutex": "mutex", "block": "block"}
	failed := make(chan error, len(kinds))
	for name, page := range kinds {
		go func() {
			url := fmt.Sprintf("http://relay/debug/pprof/%s?seconds=%d", page, max(1, int(span.Seconds())))
			failed <- fetch(ctx, web, url, prefix+"."+name+".pprof")
		}()
	}
	var first error
	for range kinds {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func fetch(ctx context.Context, web *http.Client, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	answer, err := web.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, answer.Body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// startProfiles fetches profiles of srvrelay while the load runs, if they were asked for.
func (b *bench) startProfiles(ctx context.Context, p *running, n int) <-chan error {
	done := make(chan error, 1)
	if b.profile == "" || p.relay.name() != "srvrelay" {
		done <- nil
		return done
	}
	go func() {
		prefix := filepath.Join(b.profile, fmt.Sprintf("%s.%d", b.scenario, n+1))
		done <- profiles(ctx, filepath.Join(p.dir, "pprof"), prefix, b.each)
	}()
	return done
}
