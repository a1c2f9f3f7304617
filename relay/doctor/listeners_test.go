package doctor

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/config"
)

// TestProxiedListener: a door that wants a PROXY header from this machine gets
// one, and one that wants it from other machines gets none.
func TestProxiedListener(t *testing.T) {
	for _, network := range []string{"127.0.0.1/32", "192.0.2.10/32"} {
		from := []netip.Prefix{netip.MustParsePrefix(network)}
		srv, err := relay.New(relay.Config{
			Hostname: "relay.test", Queue: struct{ relay.Queue }{},
			Listeners: []relay.Listener{{Address: "127.0.0.1:0", Mode: queue.Inbound, ProxyFrom: from}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Listen(); err != nil {
			t.Fatal(err)
		}
		go srv.Serve()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := srv.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		})
		address := srv.Addrs()[0].String()
		e := &Env{Config: &config.Config{Hostname: "relay.test"}, Dial: new(net.Dialer).DialContext}
		l := config.Listener{Address: address, Mode: config.Inbound, TLS: config.TLSNone, ProxyFrom: from}
		if f := e.answers(t.Context(), l, address); f.Level != OK {
			t.Errorf("proxy_from %s: %+v", network, f)
		}
	}
}
