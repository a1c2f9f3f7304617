package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Admin says who may ask the running relay, and where.
type Admin struct {
	Socket    string   `key:"socket" check:"optpath" default:"" shown:"admin.sock in data_dir" example:"/run/srvrelay/admin.sock" doc:"The Unix socket of the commands. Root, the user that runs the relay, and the members of group may use it, if its folder lets them come to it."`
	Group     string   `key:"group" check:"username" default:"" shown:"the group that the relay runs with" example:"mailadmin" doc:"The group whose members may use the socket: all that the commands can do, which includes reading queued mail. The user that runs the relay must be a member. data_dir is the relay's alone, so that socket should be in another folder; one that the relay makes itself is open to the group."`
	Listen    string   `key:"listen" check:"optlisten" default:"" example:"\"127.0.0.1:8025\"" doc:"Where the API is also to be had by HTTP, with a token. On any address but a loopback one by HTTPS only, with the certificate of tls, or a self-signed one. Empty: nowhere."`
	TokenFile string   `key:"token_file" check:"secretpath" secret:"true" default:"" example:"/etc/srvrelay/admin-token" doc:"The file that holds the token for listen, in one line, readable by the relay only; to make one: openssl rand -hex 32. Whoever has it may do all that the commands can. It is read at the start and at a reload."`
	Hosts     []string `key:"hosts" check:"domain" default:"" example:"[relay-admin.example.net]" doc:"More names by which clients ask at listen, beside hostname, localhost and addresses. Requests for other names are refused, so that no web site can lead a browser here (DNS rebinding)."`
}

// minAdminToken is what cannot be guessed, if it is random.
const minAdminToken = 16

// Token reads token_file. No error repeats any of it.
func (a Admin) Token() (string, error) {
	token, err := readSecret(a.TokenFile, "token", maxSecret)
	if err != nil {
		return "", err
	}
	token = strings.TrimSpace(token)
	switch {
	case len(token) < minAdminToken:
		return "", fmt.Errorf("%s has a token of %d characters, want %d or more: make one with openssl rand -hex 32", quote(a.TokenFile), len(token), minAdminToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s has a token with spaces or other characters that no HTTP header can carry: make one with openssl rand -hex 32", quote(a.TokenFile))
	}
	return token, nil
}

func (c *Config) checkAdmin(add func(path, message string, err error)) {
	if c.Admin.Listen == "" || c.Admin.TokenFile == "" {
		return
	}
	if _, err := c.Admin.Token(); err != nil {
		add("admin.token_file", err.Error(), err)
	}
	c.warnReadable("admin.token_file", c.Admin.TokenFile)
}

// admin checks what the keys mean together.
func (v *validator) admin() {
	a := v.Admin
	if v.bad("admin") {
		return
	}
	switch {
	case a.Listen != "" && a.TokenFile == "":
		v.add("admin.listen", "needs admin.token_file: without a token everybody could take the queue in hand (make one: openssl rand -hex 32)")
	case a.Listen == "" && a.TokenFile != "":
		v.add("admin.token_file", "is of no use without admin.listen: the socket needs no token (set both or none)")
	case a.Listen == "" && len(a.Hosts) > 0:
		v.add("admin.hosts", "is of no use without admin.listen (remove it)")
	}
	if a.Group != "" && filepath.Dir(a.Socket) == v.DataDir {
		v.warn("admin.group", "may use %s, but data_dir is the relay's alone: set admin.socket to a path in a folder that the group may enter, such as /run/srvrelay/admin.sock", quote(a.Socket))
	}
	v.adminCollision()
}

// adminCollision finds a listener on the address of the API.
func (v *validator) adminCollision() {
	host, port, err := splitPort(v.Admin.Listen)
	if err != nil || port == 0 {
		return
	}
	if i := slices.IndexFunc(v.Listeners, func(l Listener) bool {
		h, p, err := splitPort(l.Address)
		return err == nil && p == port && sameAddress(h, host)
	}); i >= 0 {
		v.add("admin.listen", "%s is taken by listeners[%d] (%s)", quote(v.Admin.Listen), i, v.Listeners[i].Address)
	}
}
