package config

import (
	"strings"

	"github.com/spf13/pflag"
)

const (
	envPrefix = "SRVRELAY_"
	// EnvFile is the environment variable that names the file.
	EnvFile = "SRVRELAY_CONFIG"
	// EnvSendmail says where the command sendmail hands mail in, and EnvAliases which
	// file it reads in place of /etc/aliases.
	EnvSendmail = "SRVRELAY_SENDMAIL_SERVER"
	EnvAliases  = "SRVRELAY_SENDMAIL_ALIASES"
)

// envName is the environment variable of a key: SRVRELAY_DELIVERY_MX_PORT.
func (n *node) envName() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(n.Path, ".", "_"))
}

// flagName is the flag of a key, without dashes: delivery-mx-port.
func (n *node) flagName() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(n.Path)
}

// foreignEnv tells which variables with our prefix are no keys: the file's own,
// sendmail's, and those of the tests.
func foreignEnv(name string) bool {
	return name == EnvFile || name == EnvSendmail || name == EnvAliases || name == envPrefix+"STRESS" || strings.HasPrefix(name, envPrefix+"TEST")
}

// setting is the canonical value of one key from a layer above the file.
type setting struct {
	key    *node
	value  string
	source string // the variable or the flag
}

// readEnv reads the scalars that the environment sets. An empty variable counts
// as not set.
func readEnv(environ []string) (settings []setting, problems Problems) {
	byName, seen := map[string]*node{}, map[string]bool{}
	var names []string
	for _, n := range schema().leaves() {
		byName[n.envName()] = n
		names = append(names, strings.TrimPrefix(n.envName(), envPrefix))
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		// Of a name that is there twice, the last entry counts.
		text := getenv(environ, name)
		if !strings.HasPrefix(name, envPrefix) || foreignEnv(name) || text == "" || seen[name] {
			continue
		}
		seen[name] = true
		n := byName[name]
		if n == nil {
			hint := ""
			if meant := nearest(strings.TrimPrefix(name, envPrefix), names); meant != "" {
				hint = " (did you mean " + envPrefix + meant + "?)"
			}
			problems = append(problems, Problem{File: name, Message: "no key of the configuration has this name" + hint})
			continue
		}
		settings, problems = set(n, name, text, settings, problems)
	}
	return settings, problems
}

// set adds what one variable or flag says.
func set(n *node, source, text string, settings []setting, problems Problems) ([]setting, Problems) {
	if n.Kind != scalar {
		return settings, append(problems, Problem{File: source, Path: n.Path, Message: n.Path + " is a list, which only the file can set"})
	}
	value, err := n.accept(text)
	if err != nil {
		return settings, append(problems, Problem{File: source, Path: n.Path, Message: err.Error()})
	}
	return append(settings, setting{n, value, source}), problems
}

// flagKey marks the flags that AddFlags made.
const flagKey = "srvrelay_key"

// AddFlags adds a flag for every scalar key (--delivery-mx-port for
// delivery.mx_port); the help shows the few that are of use every day.
func AddFlags(fs *pflag.FlagSet) {
	for _, n := range schema().leaves() {
		if n.Kind != scalar {
			continue
		}
		name := n.flagName()
		fs.String(name, "", "overrides "+n.Path)
		f := fs.Lookup(name)
		f.Hidden = !n.Common
		f.Annotations = map[string][]string{flagKey: {n.Path}}
		if n.Default == "true" || n.Default == "false" {
			f.NoOptDefVal = "true" // --dns-trust-ad
		}
	}
}

// readFlags reads the flags of AddFlags that were given; others in the set are
// none of the configuration.
func readFlags(fs *pflag.FlagSet) (settings []setting, problems Problems) {
	if fs == nil {
		return nil, nil
	}
	for _, n := range schema().leaves() {
		f := fs.Lookup(n.flagName())
		if f == nil || !f.Changed || f.Annotations[flagKey] == nil {
			continue
		}
		settings, problems = set(n, "--"+f.Name, f.Value.String(), settings, problems)
	}
	return settings, problems
}
