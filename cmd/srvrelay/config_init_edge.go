package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"
)

// edgeDir is where the files of an edge are once they have been copied there.
const edgeDir = "/etc/srvrelay"

// edgeQuestions are what init home must know besides to write the edge's files too.
func edgeQuestions() []question {
	under := func(name string) func(answers) string {
		return func(a answers) string { return "/etc/letsencrypt/live/" + a["edge"] + "/" + name }
	}
	return []question{
		{flag: "edge-address", prompt: "The edge's public addresses", help: "public addresses of the edge, with commas between them", key: "public_addresses", many: true},
		{flag: "edge-cert", help: "the edge's certificate with its chain, in PEM", key: "tls.certificate", fallback: under("fullchain.pem")},
		{flag: "edge-key", help: "private key of the edge's certificate, in PEM", key: "tls.key", fallback: under("privkey.pem")},
		{flag: "postmaster", help: "who gets reports that nobody else gets, at the edge", key: "postmaster", optional: true},
	}
}

// edgeFlags lets init home write both sides.
func edgeFlags(c *cobra.Command) {
	f := c.Flags()
	f.String("edge-files", "", "write the edge's files too, into `FOLDER`")
	for _, q := range edgeQuestions() {
		f.String(q.flag, "", q.help)
	}
	f.Bool("self-signed", false, "make a certificate for the edge that only this home trusts")
}

// edgeFolder is where the edge's files go; "" = they are not written.
func edgeFolder(c *cobra.Command) string {
	if f := c.Flags().Lookup("edge-files"); f != nil {
		return f.Value.String()
	}
	return ""
}

// askEdge adds what the edge's side needs to the answers of home's.
func askEdge(c *cobra.Command, in *interview, home answers) error {
	folder := edgeFolder(c)
	if folder == "" {
		return withoutEdge(c)
	}
	if home["domain"] == "" {
		return usage(errors.New("--edge-files: an edge takes mail for domains: name them with --domain"))
	}
	more, err := in.answers(profile{questions: edgeQuestions()}, home)
	if err != nil {
		return err
	}
	for name, text := range more {
		home[name] = text
	}
	home["edgefiles"], err = filepath.Abs(folder)
	if selfSigned, _ := c.Flags().GetBool("self-signed"); selfSigned {
		if home["cafile"] != "" {
			return usage(errors.New("--self-signed makes the certificate that home trusts: leave out --ca-file"))
		}
		home["selfsigned"] = "yes"
	}
	return err
}

// withoutEdge refuses what says something about files that are not written.
func withoutEdge(c *cobra.Command) error {
	if c.Flags().Lookup("edge-files") == nil {
		return nil // not the home profile
	}
	names := []string{"self-signed"}
	for _, q := range edgeQuestions() {
		names = append(names, q.flag)
	}
	for _, name := range names {
		if c.Flags().Changed(name) {
			return usage(fmt.Errorf("--%s: only with --edge-files", name))
		}
	}
	return nil
}

// edgeOf is the other side of home: the edge's answers, with its files in a
// folder here and their places there in its configuration.
func edgeOf(home answers) (side, error) {
	folder := home["edgefiles"]
	a := answers{
		"profile": "edge", "hostname": home["edge"], "address": home["edgeaddress"], "domain": home["domain"],
		"home": net.JoinHostPort(home["hostname"], home["port"]), "fetch": home["fetch"], "user": home["user"], "password": home["password"],
		"postmaster": home["postmaster"], "datadir": "/var/lib/srvrelay",
		"out": filepath.Join(edgeDir, "srvrelay.yaml"), "usersfile": filepath.Join(edgeDir, "users"),
		"certificate": home["edgecert"], "key": home["edgekey"],
	}
	text, err := fillTemplate("edge.yaml", a)
	if err != nil {
		return side{}, err
	}
	s := side{folder: folder, users: filepath.Join(folder, "users"), user: home["user"], password: home["password"]}
	if home["selfsigned"] == "" {
		s.files = []newFile{{filepath.Join(folder, "srvrelay.yaml"), 0o644, text}}
		return s, nil
	}
	cert, key, err := selfSignedPair(home["edge"])
	if err != nil {
		return side{}, err
	}
	a["certificate"], a["key"] = filepath.Join(edgeDir, "tls.crt"), filepath.Join(edgeDir, "tls.key")
	if text, err = fillTemplate("edge.yaml", a); err != nil {
		return side{}, err
	}
	s.files = []newFile{
		{filepath.Join(folder, "srvrelay.yaml"), 0o644, text},
		{filepath.Join(folder, "tls.crt"), 0o644, cert},
		{filepath.Join(folder, "tls.key"), 0o600, key},
		{home["cafile"], 0o644, cert}, // what home trusts
	}
	return s, nil
}
