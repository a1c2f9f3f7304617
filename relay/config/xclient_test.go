package config

import (
	"strings"
	"testing"
)

// TestXClientFrom: which networks may be believed, and that their listener does
// not trust this machine for want of a list.
func TestXClientFrom(t *testing.T) {
	for network, want := range map[string]string{
		"192.0.2.11/32": "", "2001:db8::/32": "", "0.0.0.0/0": "only your own mail servers", "::/0": "only your own mail servers", "192.0.2.11": "192.0.2.11/32",
	} {
		_, err := loadText("listeners: [{ address: \":25\", mode: inbound, xclient_from: [\"" + network + "\"] }]\n")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "srvrelay.yaml:1:")) {
			t.Errorf("%s: %v, want %q", network, err, want)
		}
	}
	_, err := loadText("listeners: [{ address: \"127.0.0.1:2525\", mode: submission, tls: none, authentication_results: true }]\n")
	if err == nil || !strings.Contains(err.Error(), "authentication_results: is for inbound listeners") {
		t.Errorf("results for submission: %v", err)
	}
	_, err = loadText("listeners: [{ address: \"127.0.0.1:2525\", mode: submission, tls: none, xclient_from: [127.0.0.1/32] }]\n")
	if err == nil || !strings.Contains(err.Error(), "nobody could submit here") {
		t.Errorf("trust by default of those whom XCLIENT names: %v", err)
	}
}

// TestRouteOrigin: who may be told of clients, and how.
func TestRouteOrigin(t *testing.T) {
	const login = `, username: u, password_env: P`
	for _, c := range []struct{ route, want string }{
		{`{ domains: [a.example], to: [{ url: "smtp://home.example:2525", origin: xclient }] }`, ""},
		{`{ domains: [a.example], to: [{ url: "dns:", origin: xclient }, { url: "mx:", origin: proxy }] }`, ""},
		{`{ domains: ["*"], to: [{ url: "smtp://home.example", origin: proxy }] }`, ""},
		{`{ domains: ["*"], to: [{ url: "dns:", origin: none }] }`, ""},
		{`{ domains: [a.example], to: [{ url: "smtp://home.example", origin: proxy` + login + ` }] }`, ""},
		{`{ domains: [a.example], to: [{ url: "smtp://home.example", origin: xclient` + login + ` }] }`, "routes[0].to[0].origin: xclient with a username: XCLIENT would end the login"},
		{`{ domains: ["*"], to: [{ url: "dns:", origin: xclient }] }`, `routes[0].to[0].origin: xclient is for servers of yours`},
		{`{ senders: ["@a.example"], to: [{ url: "mx:", origin: proxy }] }`, `routes[0].to[0].origin: proxy is for servers of yours`},
		{`{ domains: [a.example], to: [{ url: "smtp://home.example", origin: xforward }] }`, `is not one of none, xclient, proxy`},
	} {
		_, err := loadText("routes: [" + c.route + "]\n")
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "srvrelay.yaml:1:")) {
			t.Errorf("%s: %v, want %q", c.route, err, c.want)
		}
	}
}
