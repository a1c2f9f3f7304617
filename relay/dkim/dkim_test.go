package dkim

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"go.uber.org/goleak"
)

// testKeys are one key of each algorithm; making RSA keys takes time.
var testKeys = sync.OnceValue(func() []Key {
	var keys []Key
	for _, algorithm := range []string{RSA, Ed25519} {
		signer, err := Generate(algorithm)
		if err != nil {
			panic(err)
		}
		keys = append(keys, NewKey("a.example", "s-"+algorithm, signer))
	}
	return keys
})

// verify returns the tag h of each signature, if all are good.
func verify(t *testing.T, msg string) (covered [][]string) {
	t.Helper()
	got, err := dkim.VerifyWithOptions(strings.NewReader(msg), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		for _, k := range testKeys() {
			if k.Name() == name {
				return []string{k.Record()}, nil
			}
		}
		return nil, fmt.Errorf("nothing at %s", name)
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range got {
		if v.Err != nil {
			t.Errorf("%s: %v", v.Domain, v.Err)
		}
		covered = append(covered, v.HeaderKeys)
	}
	return covered
}

const letter = "Received: x\r\nFrom: A <a@a.example>\r\nSUBJECT : x\r\n  y\r\nTo: b@b.example\r\nX-Other: z\r\nReferences: <1@x>\r\n\r\nHello  \r\n\r\n.dot\r\n\r\n"

func TestSignMessage(t *testing.T) {
	fields, err := NewKeys(testKeys()).SignMessage("a.example", []byte(letter))
	if err != nil {
		t.Fatal(err)
	}
	msg := string(fields) + letter
	covered := verify(t, msg)
	if len(covered) != 2 {
		t.Fatalf("%d signatures, want two", len(covered))
	}
	const want = "From:From:To:To:Cc:Subject:Subject:Date:Message-ID:Reply-To:MIME-Version:Content-Type:References"
	if got := strings.Join(covered[0], ":"); got != want {
		t.Errorf("it covers %s, want %s", got, want)
	}
	for line := range strings.Lines(string(fields)) {
		if len(line) > 998 || !strings.HasSuffix(line, "\r\n") || !strings.HasPrefix(line, "DKIM-Signature: ") && !strings.HasPrefix(line, " ") {
			t.Errorf("line %q", line)
		}
	}
	if fields, err := NewKeys(testKeys()).SignMessage("b.example", []byte(letter)); fields != nil || err != nil {
		t.Errorf("a stranger's mail got %q, %v", fields, err)
	}
}

// TestOversigned: nobody can add a field that readers would look at, but for what
// mailing lists add.
func TestOversigned(t *testing.T) {
	fields, err := NewKeys(testKeys()[:1]).SignMessage("a.example", []byte(letter))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"X-New", "List-Unsubscribe", "Received"}, oversigned...) {
		msg := name + ": new\r\n" + string(fields) + letter
		got, err := dkim.VerifyWithOptions(strings.NewReader(msg), &dkim.VerifyOptions{LookupTXT: func(string) ([]string, error) {
			return []string{testKeys()[0].Record()}, nil
		}})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		if broken := got[0].Err != nil; broken != Signs([]byte(name)) && name != "List-Unsubscribe" || name == "List-Unsubscribe" && broken {
			t.Errorf("with another %s: %v", name, got[0].Err)
		}
	}
}

func TestBeginIsBounded(t *testing.T) {
	many := strings.Repeat("To: b@b.example\r\n", maxNames/3)
	if _, err := NewKeys(testKeys()).Begin("a.example", []byte(many)); err != ErrTooMany {
		t.Errorf("error %v, want %v", err, ErrTooMany)
	}
}

// TestAbandon: a message that breaks off leaves nothing running.
func TestAbandon(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := NewKeys(testKeys()).Begin("a.example", []byte("From: a@a.example\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(bytes.Repeat([]byte("x"), 100_000)); err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	s.Abandon()
}

// TestRotation: of each kind the first key of a domain signs.
func TestRotation(t *testing.T) {
	rsa, ed := testKeys()[0], testKeys()[1]
	next := NewKey("a.example", "next", rsa.signer)
	other := NewKey("b.example", "next", rsa.signer)
	ks := NewKeys([]Key{rsa, next, ed, other})
	for k, want := range map[string]bool{"s-rsa a.example": true, "next a.example": false, "s-ed25519 a.example": true, "next b.example": true} {
		for _, key := range []Key{rsa, next, ed, other} {
			if key.Selector+" "+key.Domain == k && ks.Sign(key) != want {
				t.Errorf("%s signs: %v", k, !want)
			}
		}
	}
	if n := len(ks["a.example"]); n != 2 {
		t.Errorf("%d keys sign", n)
	}
}

func TestKeyFile(t *testing.T) {
	for _, k := range testKeys() {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := WriteKey(file, k.signer); err != nil {
			t.Fatal(err)
		}
		if err := WriteKey(file, k.signer); !os.IsExist(err) {
			t.Errorf("a key was written over: %v", err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		signer, err := ParseKey(text)
		if err != nil || NewKey(k.Domain, k.Selector, signer).Record() != k.Record() {
			t.Errorf("read back: %v", err)
		}
	}
	one := x509.MarshalPKCS1PrivateKey(testKeys()[0].signer.(*rsa.PrivateKey))
	if signer, err := ParseKey(pemOf("RSA PRIVATE KEY", one)); err != nil || NewKey("a.example", "s-rsa", signer).Record() != testKeys()[0].Record() {
		t.Errorf("PKCS #1: %v", err)
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestBadKeys(t *testing.T) {
	der := func(key any, err error) []byte {
		if err == nil {
			var b []byte
			if b, err = x509.MarshalPKCS8PrivateKey(key); err == nil {
				return b
			}
		}
		t.Fatal(err)
		return nil
	}
	good := pemOf("PRIVATE KEY", der(testKeys()[1].signer, nil))
	weak, err := os.ReadFile("testdata/rsa1024.pem")
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string][]byte{
		"no key in PEM":             []byte("v=DKIM1; p=abc"),
		"more than one key":         append(good, good...),
		"1024 bits":                 weak,
		"neither RSA nor Ed25519":   pemOf("PRIVATE KEY", der(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))),
		"is damaged":                pemOf("PRIVATE KEY", []byte("secret")),
		"RSA key in it is damaged":  pemOf("RSA PRIVATE KEY", []byte("secret")),
		`"ENCRYPTED PRIVATE KEY"`:   pemOf("ENCRYPTED PRIVATE KEY", []byte("secret")),
		`it holds a "PUBLIC KEY", `: pemOf("PUBLIC KEY", []byte("secret")),
	} {
		_, err := ParseKey(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	rsa, ed := testKeys()[0], testKeys()[1]
	p := func(k Key) string { _, p, _ := strings.Cut(k.Record(), "p="); return p }
	for _, tc := range []struct {
		key     Key
		records []string
		want    string // "" = fine
	}{
		{rsa, []string{rsa.Record()}, ""},
		{ed, []string{ed.Record()}, ""},
		{rsa, []string{"p=" + p(rsa)}, ""},
		{rsa, []string{" v=DKIM1 ;k=rsa; h=sha1:sha256; s=* ; t=y;\tp=" + p(rsa)[:100] + " \r\n " + p(rsa)[100:] + ";"}, ""},
		{rsa, nil, "no TXT record at s-rsa._domainkey.a.example; publish: v=DKIM1; k=rsa; p="},
		{rsa, []string{rsa.Record(), rsa.Record()}, "2 TXT records"},
		{rsa, []string{""}, "empty"},
		{rsa, []string{"hello"}, "not a list of tags"},
		{rsa, []string{"v=DKIM1; v=DKIM1; p="}, "twice"},
		{rsa, []string{"v=DKIM2; p=" + p(rsa)}, "version"},
		{rsa, []string{"v=DKIM1; k=rsa"}, "no key"},
		{rsa, []string{"v=DKIM1; p="}, "revoked"},
		{ed, []string{"v=DKIM1; p=" + p(ed)}, "another kind"},
		{rsa, []string{ed.Record()}, "another kind"},
		{rsa, []string{rsa.Record()[:255]}, "cut off"},
		{rsa, []string{"v=DKIM1; p=%%%"}, "damaged"},
		{rsa, []string{"v=DKIM1; k=rsa; p=" + p(ed)}, "another key"},
		{rsa, []string{"v=DKIM1; h=sha1; p=" + p(rsa)}, "sha256"},
		{rsa, []string{"v=DKIM1; s=tlsrpt; p=" + p(rsa)}, "not for mail"},
	} {
		got := tc.key.Check(tc.records)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%q: %q, want %q", tc.records, got, tc.want)
		}
	}
	if !Testing("v=DKIM1; t=s:y; p=x") || Testing(rsa.Record()) {
		t.Error("t=y is not seen")
	}
}

// FuzzParseTags: what strangers publish cannot hurt.
func FuzzParseTags(f *testing.F) {
	f.Add("v=DKIM1; p=")
	f.Fuzz(func(_ *testing.T, record string) {
		testKeys()[1].Check([]string{record})
		Testing(record)
	})
}

// BenchmarkSign is what signing costs beside the rest of a message.
func BenchmarkSign(b *testing.B) {
	for _, keys := range [][]Key{testKeys()[:1], testKeys()[1:], testKeys()} {
		for _, size := range []int{4 << 10, 1 << 20} {
			kinds := ""
			for _, k := range keys {
				kinds += k.Algorithm() + " "
			}
			b.Run(fmt.Sprintf("%s%dKiB", kinds, size>>10), func(b *testing.B) {
				ks, body := NewKeys(keys), bytes.Repeat([]byte("Some words that make a line of usual length, and more.\r\n"), size/56)
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					s, err := ks.Begin("a.example", []byte("From: a@a.example\r\nTo: b@b.example\r\nSubject: x\r\n"))
					if err != nil {
						b.Fatal(err)
					}
					for piece := body; len(piece) > 0; {
						n := min(len(piece), 64<<10)
						_, _ = s.Write(piece[:n])
						piece = piece[n:]
					}
					if _, err := s.Seal(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
