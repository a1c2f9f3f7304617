package config

import (
	"os"
	"strings"
	"testing"
)

// TestHomes: what is wrong with homes is said with its place and what to do.
func TestHomes(t *testing.T) {
	const relay = "relay_domains: [home.example.org, .example.com]\n"
	for text, want := range map[string]string{
		relay + "homes: [{ user: a, domains: [home.example.org, x.example.com, .example.com, .y.example.com] }]\n": "",
		"homes: []\n": "",
		relay + "homes: [{ user: a, domains: [HOME.example.org] }, { user: b, domains: [home.example.org, x.example.com] }]\n": `srvrelay.yaml:2:72: homes[1].domains[0]: "home.example.org" is a domain of homes[0] already`,
		relay + "homes: [{ user: a, domains: [example.com] }]\n":                                                               `srvrelay.yaml:2:30: homes[0].domains[0]: "example.com" is not one of relay_domains, so that no mail is carried home for it (add it there)`,
		relay + "homes: [{ user: a, domains: [.home.example.org] }]\n":                                                         `srvrelay.yaml:2:30: homes[0].domains[0]: ".home.example.org" is not one of relay_domains, so that no mail is carried home for it (add it there)`,
		relay + "homes: [{ user: a, domains: [home.example.org] }, { user: a, domains: [x.example.com] }]\n":                   `srvrelay.yaml:2:59: homes[1].user: "a" has a home already, homes[0] (make them one)`,
		relay + "homes: [{ user: a }]\n":                                 `srvrelay.yaml:2:9: homes[0]: domains is missing: say whose mail it is (for example domains: [home.example.org])`,
		relay + "homes: [{ domains: [home.example.org] }]\n":             `homes[0]`,
		relay + "homes: [{ user: \"\", domains: [home.example.org] }]\n": `homes[0].user`,
		relay + "homes: [{ user: a, domains: [] }]\n":                    `homes[0].domains`,
		relay + "homes: [{ user: a, domains: [\"*\"] }]\n":               `homes[0].domains[0]: "*" would make an open relay`,
	} {
		_, err := loadText(text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

// TestHomesWithoutUser: a home that cannot log in is a warning, as users come
// and go without a reload.
func TestHomesWithoutUser(t *testing.T) {
	users := t.TempDir() + "/users"
	if err := os.WriteFile(users, []byte("# people\nanna:$argon2id$x\n home : x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "relay_domains: [home.example.org, x.example.org]\nauth: { users_file: " + users + " }\nhomes: [{ user: anna, domains: [home.example.org] }, { user: bert, domains: [x.example.org] }]\n"
	c, err := loadText(text)
	if err != nil {
		t.Fatal(err)
	}
	c.CheckFiles()
	all := strings.Join(c.Warnings, "\n")
	for _, want := range []string{
		`homes[1].user: "bert" is not in "` + users + `", so the server cannot log in (srvrelay user add bert)`,
		`homes: is of no use: no submission listener has TLS, so nobody can log in`,
	} {
		if strings.Count(all, want) != 1 {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	if strings.Contains(all, "anna") {
		t.Error(all)
	}
}
