package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"srvrelay/relay/acme"
	"srvrelay/relay/config"
)

// secretFiles are the files that nobody but the relay's user may read.
func secretFiles(c *config.Config) []string {
	files := []string{c.Auth.UsersFile, filepath.Join(c.DataDir, "tls-selfsigned.pem"), c.Admin.Socket}
	if c.TLS.Key != "" {
		files = append(files, c.TLS.Key)
	}
	if a := c.TLS.ACME; a.On() {
		files = append(files, acme.CertificateFile(c.DataDir), acme.AccountFile(c.DataDir))
		if a.Challenge == config.ACMEDNS {
			files = append(files, a.DNS.KeyFile)
		}
	}
	if f := c.Submission.OAuth.ClientSecretFile; f != "" {
		files = append(files, f)
	}
	if f := c.Tracing.HeadersFile; f != "" {
		files = append(files, f)
	}
	if c.Admin.TokenFile != "" {
		files = append(files, c.Admin.TokenFile)
	}
	for _, k := range c.DKIM {
		files = append(files, k.KeyFile)
	}
	for _, f := range c.Fetch {
		if f.PasswordFile != "" && !slices.Contains(files, f.PasswordFile) {
			files = append(files, f.PasswordFile)
		}
	}
	for _, r := range c.Routes {
		for _, t := range r.To {
			for _, f := range []string{t.PasswordFile, t.TokenFile} {
				if f != "" && !slices.Contains(files, f) {
					files = append(files, f)
				}
			}
		}
	}
	return files
}

// checkSecrets looks who else may read or replace them.
func checkSecrets(_ context.Context, e *Env) []Finding {
	var found []Finding
	seen := 0
	for _, path := range secretFiles(e.Config) {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			found = append(found, notForUs(e, path))
		case err == nil:
			seen++
			found = append(found, exposed(path, info)...)
		}
	}
	switch {
	case len(found) > 0:
		return found
	case seen == 0:
		return []Finding{ok("there is no file with a secret yet")}
	}
	return []Finding{ok("%s with secrets, and nobody else may read or replace them", number(seen, "file"))}
}

// exposed tells of a file that others may read or write, or whose folder lets
// them put another in its place.
func exposed(path string, info fs.FileInfo) (found []Finding) {
	socket := info.Mode()&fs.ModeSocket != 0
	switch mode := info.Mode().Perm(); {
	case mode&0o022 != 0 && !socket:
		found = append(found, Finding{
			Level: Error, What: fmt.Sprintf("%s can be written by other users of the machine (mode %04o)", path, mode),
			Why: "They can give themselves a password, or another key.", Fix: "chmod go-w,o-r " + path,
		})
	case mode&0o007 != 0:
		found = append(found, Finding{
			Level: Warning, What: fmt.Sprintf("%s can be read by every user of the machine (mode %04o)", path, mode),
			Why: "It holds a secret, or the way to the queue.", Fix: "chmod o-rwx " + path,
		})
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err == nil && folder.Mode().Perm()&0o002 != 0 && folder.Mode()&fs.ModeSticky == 0 {
		found = append(found, Finding{
			Level: Error, What: fmt.Sprintf("every user of the machine may replace %s", path),
			Why: "They may write to its folder.", Fix: "chmod o-w " + filepath.Dir(path),
		})
	}
	return found
}
