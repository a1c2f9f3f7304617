package relay

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What new hashes cost: the first choice of OWASP for argon2id on small
// machines (19 MiB, 2 passes, 1 thread).
const (
	hashMemory  = 19456 // KiB
	hashTime    = 2
	hashThreads = 1
	saltLen     = 16
	keyLen      = 32
)

// What a hash in a file may cost at most: a mistyped one must not take the
// machine down.
const (
	maxHashMemory  = 256 << 10 // KiB
	maxHashTime    = 16
	maxHashThreads = 16
)

// Hash is a salted argon2id hash of a password (RFC 9106).
type Hash struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

// NewHash hashes a password with a fresh salt.
func NewHash(password string) (Hash, error) {
	if password == "" || len(password) > maxPassword {
		return Hash{}, fmt.Errorf("a password must have 1 to %d bytes", maxPassword)
	}
	if strings.ContainsRune(password, 0) {
		return Hash{}, errors.New("a password must not contain a NUL")
	}
	h := Hash{memory: hashMemory, time: hashTime, threads: hashThreads, salt: make([]byte, saltLen)}
	_, _ = rand.Read(h.salt) // never fails (crypto/rand)
	h.key = h.derive(password, keyLen)
	return h, nil
}

// Matches tells whether the hash is of this password, in constant time.
func (h Hash) Matches(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password, uint32(len(h.key))), h.key) == 1
}

func (h Hash) derive(password string, n uint32) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, n)
}

// String is the PHC form: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
func (h Hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		b64.EncodeToString(h.salt), b64.EncodeToString(h.key))
}

// ParseHash reads the PHC form. Its errors never quote the hash.
func ParseHash(s string) (Hash, error) {
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" {
		return Hash{}, errors.New("not an argon2id hash ($argon2id$v=19$m=...,t=...,p=...$salt$hash): set the password anew")
	}
	if f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return Hash{}, fmt.Errorf("argon2 version is not v=%d", argon2.Version)
	}
	var h Hash
	var extra string
	if n, _ := fmt.Sscanf(f[3]+" end", "m=%d,t=%d,p=%d %s", &h.memory, &h.time, &h.threads, &extra); n != 4 || extra != "end" {
		return Hash{}, errors.New("argon2 parameters are not of the form m=MEMORY,t=TIME,p=THREADS")
	}
	if h.memory < 8*uint32(h.threads) || h.memory > maxHashMemory || h.time < 1 || h.time > maxHashTime ||
		h.threads < 1 || h.threads > maxHashThreads {
		return Hash{}, fmt.Errorf("argon2 parameters out of bounds (m up to %d, t up to %d, p up to %d)",
			maxHashMemory, maxHashTime, maxHashThreads)
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.DecodeString(f[4])
	h.key, err2 = base64.RawStdEncoding.DecodeString(f[5])
	if err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64 {
		return Hash{}, errors.New("argon2 salt (8 to 64 bytes) or hash (16 to 64) is not unpadded base64 of a right length")
	}
	return h, nil
}
