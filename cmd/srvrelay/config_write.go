package main

import (
	"bytes"
	"crypto/x509"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"srvrelay/relay"
	"srvrelay/relay/config"
)

//go:embed profiles
var profileTexts embed.FS

// fillTemplate fills a template of the folder profiles with answers.
func fillTemplate(name string, a answers) (string, error) {
	t, err := template.New(name).Funcs(template.FuncMap{
		"words": func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) },
		"zone":  zoneLines,
		"mail":  mailLines,
		"spf":   spfLine,
		"quote": config.YAMLText,
		"host":  func(s string) string { host, _ := splitHome(s); return host },
		"port":  func(s string) string { _, port := splitHome(s); return port },
	}).Option("missingkey=zero").ParseFS(profileTexts, "profiles/"+name)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, a); err != nil {
		return "", err
	}
	return b.String(), nil
}

// splitHome splits host:port; without a port it is 2525, as providers block 25.
func splitHome(s string) (host, port string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return strings.Trim(s, "[]"), "2525"
	}
	return host, port
}

// newFile is a file to write.
type newFile struct {
	path string
	mode fs.FileMode
	text string
}

// side is what is written for one machine.
type side struct {
	folder         string    // made if it is not there; "" = it is
	files          []newFile // the configuration is the first
	users          string    // the users file; "" = none
	user, password string    // for it
}

// side has all files of a profile.
func (p profile) side(a answers) (side, error) {
	text, err := fillTemplate(p.name+".yaml", a)
	if err != nil {
		return side{}, err
	}
	s := side{files: []newFile{{a["out"], 0o644, text}}, users: a["usersfile"], user: a["user"], password: a["password"]}
	if p.login {
		s.files = append(s.files, newFile{a["passwordfile"], 0o600, a["password"] + "\n"})
	}
	if !p.user || a["selfsigned"] == "" {
		return s, nil
	}
	cert, key, err := selfSignedPair(a["hostname"])
	if err != nil {
		return side{}, err
	}
	s.files = append(s.files, newFile{a["certificate"], 0o644, cert}, newFile{a["key"], 0o600, key})
	return s, nil
}

// selfSignedPair is a certificate and its key in PEM.
func selfSignedPair(name string) (certificate, key string, err error) {
	dir, err := os.MkdirTemp("", "srvrelay-init-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	pair, err := relay.SelfSigned(dir, name)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return "", "", err
	}
	certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return certificate, key, nil
}

// inTheWay is the error about everything that is there already, unless it may
// be replaced.
func inTheWay(sides []side, force bool) error {
	if force {
		return nil
	}
	var there []string
	for _, s := range sides {
		for _, f := range s.files {
			if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
				there = append(there, f.path+" exists already")
			}
		}
		if s.users == "" {
			continue
		}
		names, err := relay.ListUsers(s.users)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &exitError{exitData, err}
		}
		if slices.Contains(names, s.user) {
			there = append(there, "the user "+s.user+" exists already in "+s.users)
		}
	}
	if there == nil {
		return nil
	}
	return &exitError{exitData, fmt.Errorf("%s\nNothing was written: --force replaces, --out FILE writes elsewhere", strings.Join(there, "\nsrvrelay: "))}
}

// write writes everything. The configuration is loaded before it gets its
// name, so that no wrong one is ever there.
func (s side) write() error {
	if s.folder != "" {
		if err := os.MkdirAll(s.folder, 0o700); err != nil {
			return &exitError{exitData, err}
		}
	}
	for i, f := range slices.Backward(s.files) { // the configuration is the last
		check := func(string) error { return nil }
		if i == 0 {
			check = func(temporary string) error {
				_, err := config.Load(temporary, nil, nil)
				return err
			}
		}
		if err := placeFile(f, check); err != nil {
			return err
		}
	}
	if s.users != "" {
		return relay.AddUser(s.users, s.user, s.password)
	}
	return nil
}

// placeFile replaces a file whole, after a check of what was written.
func placeFile(f newFile, check func(temporary string) error) error {
	t, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // after the rename there is nothing to remove
	defer t.Close()
	if _, err := t.WriteString(f.text); err != nil {
		return err
	}
	if err := t.Chmod(f.mode); err != nil {
		return err
	}
	if err := check(t.Name()); err != nil {
		return err
	}
	if err := t.Sync(); err != nil {
		return err
	}
	return os.Rename(t.Name(), f.path)
}
