package relay

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// What new SCRAM keys cost whoever guesses, and each client at each login
// (PBKDF2, some 20 ms). Clients are known that take no more than 65536, and
// RFC 7677 4 asks for 4096 at least. argon2id costs a thief of the file more.
const scramIterations = 65536

// Bounds of the iterations of keys in a file.
const (
	minScramIterations = 4096 // clients refuse less
	maxScramIterations = 1_000_000
)

const scramName = "SCRAM-SHA-256"

// ScramKeys is what a server keeps of a password for SCRAM-SHA-256 (RFC 5802 3).
type ScramKeys struct {
	iterations     int
	salt           []byte
	stored, server []byte // StoredKey and ServerKey, of 32 bytes
}

// NewScramKeys makes the keys of a password with a fresh salt.
func NewScramKeys(password string) (ScramKeys, error) {
	salt := make([]byte, saltLen)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return deriveScram(password, salt, scramIterations)
}

// deriveScram makes keys. Where SASLprep (RFC 4013) refuses a password (emoji),
// it is taken as it is, as clients do that go on at all then.
func deriveScram(password string, salt []byte, iterations int) (ScramKeys, error) {
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		c, err = scram.SHA256.NewClientUnprepped("", password, "")
	}
	if err != nil {
		return ScramKeys{}, errors.New("SCRAM keys cannot be made of this password")
	}
	k, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return ScramKeys{}, fmt.Errorf("SCRAM keys: %w", err)
	}
	return ScramKeys{iterations: iterations, salt: salt, stored: k.StoredKey, server: k.ServerKey}, nil
}

// String is the form of RFC 5803: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
func (k ScramKeys) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramName, k.iterations, b64(k.salt), b64(k.stored), b64(k.server))
}

// ParseScramKeys reads the form of RFC 5803. Its errors never quote the keys.
func ParseScramKeys(s string) (ScramKeys, error) {
	f := strings.Split(s, "$")
	if len(f) != 3 || f[0] != scramName {
		return ScramKeys{}, errors.New("not SCRAM keys (SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey): set the password anew")
	}
	count, salt, ok1 := strings.Cut(f[1], ":")
	stored, server, ok2 := strings.Cut(f[2], ":")
	n, err := strconv.Atoi(count)
	if !ok1 || !ok2 || err != nil || n < minScramIterations || n > maxScramIterations {
		return ScramKeys{}, fmt.Errorf("SCRAM keys are not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey with %d to %d iterations",
			minScramIterations, maxScramIterations)
	}
	k := ScramKeys{iterations: n}
	var errs [3]error
	k.salt, errs[0] = base64.StdEncoding.DecodeString(salt)
	k.stored, errs[1] = base64.StdEncoding.DecodeString(stored)
	k.server, errs[2] = base64.StdEncoding.DecodeString(server)
	if errors.Join(errs[:]...) != nil || len(k.salt) < 8 || len(k.salt) > 64 || len(k.stored) != sha256.Size || len(k.server) != sha256.Size {
		return ScramKeys{}, errors.New("SCRAM salt (8 to 64 bytes) or keys (32 each) are not base64 of a right length")
	}
	return k, nil
}

// scramStandIn is what a name without keys is shown: always the same for one
// name and secret, and in nothing different from real keys, so that names
// cannot be tried out. No password is known to fit.
func scramStandIn(secret []byte, name string) ScramKeys {
	part := func(what string) []byte {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(what + "\x00" + name))
		return h.Sum(nil)
	}
	return ScramKeys{iterations: scramIterations, salt: part("salt")[:saltLen], stored: part("stored"), server: part("server")}
}

// credentials is the keys as the library wants them.
func (k ScramKeys) credentials() scram.StoredCredentials {
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(k.salt), Iters: k.iterations}, StoredKey: k.stored, ServerKey: k.server,
	}
}
