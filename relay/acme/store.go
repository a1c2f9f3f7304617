package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Folder is where a relay's certificate is, in its data directory.
func Folder(dataDir string) string { return filepath.Join(dataDir, "acme") }

// CertificateFile has the chain and its key, in PEM: one file, so that they
// always fit together.
func CertificateFile(dataDir string) string { return filepath.Join(Folder(dataDir), certificateFile) }

// AccountFile has the key by which authorities know the relay.
func AccountFile(dataDir string) string { return filepath.Join(Folder(dataDir), accountFile) }

const (
	accountFile     = "account.pem"
	certificateFile = "certificate.pem"
	stateFile       = "state.json"
	asideSuffix     = ".damaged"
)

// State is what is known about the certificate beside itself.
type State struct {
	Directory string    `json:"directory"`          // that issued it
	Obtained  time.Time `json:"obtained,omitzero"`  // it came
	Wish      Wish      `json:"wish,omitzero"`      // of that authority
	Asked     time.Time `json:"asked,omitzero"`     // for that wish
	Failures  int       `json:"failures,omitempty"` // since then, in a row
	Since     time.Time `json:"since,omitzero"`     // of the first failure
	Tried     time.Time `json:"tried,omitzero"`     // the last time
	Next      time.Time `json:"next,omitzero"`      // try
	Error     string    `json:"error,omitempty"`    // of the last failure; may have words of the authority
	Fix       string    `json:"fix,omitempty"`      // what to do about it
}

// Wish is when an authority wishes a certificate to be renewed (RFC 9773); zero
// is no wish.
type Wish struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	At   time.Time `json:"at"` // drawn from between the two
}

// failed is the state after one more failure.
func (st State) failed(err error, fix string, now time.Time) State {
	if st.Failures++; st.Failures == 1 {
		st.Since = now
	}
	st.Tried, st.Next = now, now.Add(backOff(st.Failures))
	text := err.Error()
	st.Error, st.Fix = text[:min(len(text), 2000)], fix
	return st
}

// ReadState reads what the relay that has a data directory knows about its
// certificate. It is for others than that relay.
func ReadState(dataDir string) (State, error) {
	var st State
	text, err := os.ReadFile(filepath.Join(Folder(dataDir), stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	return st, err
}

// files is the folder with account key, certificate and state.
type files string

func (f files) path(name string) string { return filepath.Join(string(f), name) }

// aside is told of a file that cannot be used and has been renamed.
type aside func(file, aside string, err error)

// read reads a file with parse. One that is not there is nothing; one that is
// of no use is put aside. An error: it could not be read, and is as it was.
func (f files) read(name string, parse func([]byte) error, tell aside) error {
	path := f.path(name)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		tell(path, "", err)
		return err
	}
	if err = parse(text); err == nil {
		return nil
	}
	to := path + asideSuffix
	if rerr := os.Rename(path, to); rerr != nil {
		to = "" // it is written over
	}
	tell(path, to, err)
	return nil
}

func (f files) certificate(tell aside) (cert *tls.Certificate) {
	_ = f.read(certificateFile, func(text []byte) (err error) {
		cert, err = readPair(text)
		return err
	}, tell)
	return cert
}

func (f files) state(tell aside) (st State) {
	_ = f.read(stateFile, func(text []byte) error { return json.Unmarshal(text, &st) }, func(file, aside string, err error) {
		st = State{}
		tell(file, aside, err)
	})
	return st
}

func (f files) putCertificate(text []byte) error { return f.write(certificateFile, text) }

func (f files) putState(st State) error {
	text, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	return f.write(stateFile, append(text, '\n'))
}

// accountKey is the key by which an authority knows us. It is the same for all
// authorities: an account is found by it, or made.
type accountKey = ecdsa.PrivateKey

// account reads the key, or makes one.
func (f files) account(tell aside) (key *accountKey, err error) {
	err = f.read(accountFile, func(text []byte) (err error) {
		key, err = readKey(text)
		return err
	}, tell)
	if key != nil || err != nil { // a new account would not be the one that CAA names (RFC 8657)
		return key, err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, f.write(accountFile, text)
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func readKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of the type %T", key)
	}
	return ec, nil
}

// readPair reads a chain and its key from one text.
func readPair(text []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	return &cert, nil
}

// write replaces a file whole, readable by our user only, and on the disk when
// it returns.
func (f files) write(name string, text []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	t, err := os.CreateTemp(string(f), ".tmp-"+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // after the rename there is nothing to remove
	defer t.Close()
	if _, err := t.Write(text); err != nil {
		return err
	}
	if err := t.Sync(); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), f.path(name)); err != nil {
		return err
	}
	dir, err := os.Open(string(f))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
