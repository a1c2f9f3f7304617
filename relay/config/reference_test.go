package config

import (
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

const referenceFile = "../../docs/configuration.md"

// TestReference keeps docs/configuration.md true to the tags; -update writes
// it.
func TestReference(t *testing.T) {
	checkGolden(t, referenceFile, reference())
}

const referenceIntro = `# Configuration

This page is generated from the source: change ` + "`relay/config/config.go`" + ` and run
` + "`go test ./relay/config -update`" + `.

## Where it comes from

The file is the one that ` + "`--config FILE`" + ` names, else ` + "`$SRVRELAY_CONFIG`" + `, else
` + "`" + SystemFile + "`" + ` if it exists. Without any of them the relay starts on the
defaults below: it listens on 127.0.0.1:2525 and takes mail from this machine only.
The working directory is never searched.

Later layers win:

1. the defaults,
2. the file (YAML),
3. environment variables, for single values: the key in capitals, ` + "`delivery.mx_port`" + ` is
   ` + "`SRVRELAY_DELIVERY_MX_PORT`" + `. An empty variable counts as not set, and an unknown one is an error,
4. flags, for single values: ` + "`--delivery-mx-port`" + `.

` + "`srvrelay config init`" + ` writes a file for the task at hand. ` + "`srvrelay config show`" + ` shows what is in force and which
layer each value comes from. ` + "`srvrelay config schema`" + ` prints a JSON Schema (also ` + "[here](srvrelay.schema.json)" + `), with
which editors complete keys and check while you type: put
` + "`# yaml-language-server: $schema=FILE`" + ` into the first line of the configuration.

` + "`srvrelay check-config`" + ` reports everything that is wrong at once, with its place:

` + "```" + `
%s
` + "```" + `

## Notation

- **duration**: a number with its unit, ` + "`200ms`, `10s`, `5m`, `4h`, `5d`, or several: `1h30m`, `1d12h`" + `. A bare number is an error.
- **size**: a whole number with its unit, ` + "`512B`, `64KiB`, `50MiB`, `2GiB`" + `. A bare number is an error.
- **rate**: a number or a size, and a time behind a slash: ` + "`200/h`, `1GiB/d`" + `; the times are ` + "`s`, `m`, `h` and `d`" + `.
- **network**: an address and the length of the prefix, ` + "`192.0.2.0/24` or `\"2001:db8::/32\"`" + `, with no bits set behind the prefix.
- **path**: absolute, so that it does not depend on where the relay is started.
- **domain**: names with letters beyond ASCII may be written as they are (` + "`bücher.example`" + `).
- Text that begins with ` + "`:`, `*` or `[`" + ` needs quotes in YAML, as does an IPv6 address.
- ` + "`true` and `false`" + ` are the only truth values. Aliases and merge keys are not supported.

## Keys

%s
`

// chapters are texts that follow the doc of a key.
//
//go:embed routes.md
var routesChapter string

var chapters = map[string]string{"routes": routesChapter}

// reference is the whole page.
func reference() string {
	_, err := loadText("listeners:\n  - { address: \":587\", mode: submission, tls: startls }\ndelivery:\n  timeouts: { connect: 30 }\n")
	var b strings.Builder
	fmt.Fprintf(&b, referenceIntro, err, contents(schema(), ""))
	writeKeys(&b, schema())
	b.WriteString("## A complete example\n\n```yaml\n" + Example() + "```\n")
	return b.String()
}

// contents is the table of contents of the keys.
func contents(parent *node, indent string) string {
	var b strings.Builder
	for _, n := range parent.Keys {
		fmt.Fprintf(&b, "%s- [`%s`](#%s)", indent, n.Name, anchor(n.Path))
		var scalars []string
		for _, k := range n.Keys {
			if k.Keys == nil {
				scalars = append(scalars, fmt.Sprintf("[`%s`](#%s)", k.Name, anchor(k.Path)))
			}
		}
		if len(scalars) > 0 {
			b.WriteString(": " + strings.Join(scalars, ", "))
		}
		b.WriteString("\n")
		for _, k := range n.Keys {
			if k.Keys != nil {
				b.WriteString(contents(&node{Keys: []*node{k}}, indent+"  "))
			}
		}
	}
	return b.String()
}

// anchor is what GitHub makes of a heading: letters, digits, _ and - of it.
func anchor(heading string) string {
	return strings.NewReplacer(".", "", "[", "", "]", "").Replace(heading)
}

func writeKeys(b *strings.Builder, parent *node) {
	for _, n := range parent.Keys {
		fmt.Fprintf(b, "%s `%s`\n\n%s\n\n", strings.Repeat("#", 3+strings.Count(n.Path, ".")), n.Path, code(n.Doc))
		b.WriteString(chapters[n.Path])
		if n.Kind == section {
			writeKeys(b, n)
			continue
		}
		fmt.Fprintf(b, "- Type: %s\n- Default: %s\n", typeWords(n), defaultWords(n))
		if limits := limitWords(n); limits != "" {
			fmt.Fprintf(b, "- Accepted: %s\n", limits)
		}
		if n.Example != "" {
			fmt.Fprintf(b, "- Example: `%s: %s`\n", n.Name, n.Example)
		}
		if n.Kind == scalar && !strings.Contains(n.Path, "[]") {
			fmt.Fprintf(b, "- Also: `%s`, `--%s`\n", n.envName(), n.flagName())
		}
		b.WriteString("\n")
		writeKeys(b, n)
	}
}

var quotedWord = regexp.MustCompile(`(^|[ (,])'([^']+)'`)

func code(doc string) string { return quotedWord.ReplaceAllString(doc, "$1`$2`") }

func typeWords(n *node) string {
	word := map[reflect.Type]string{
		reflect.TypeFor[string](): "text", reflect.TypeFor[bool](): "`true` or `false`", reflect.TypeFor[int](): "number",
		reflect.TypeFor[int64](): "size", reflect.TypeFor[uint16](): "port", reflect.TypeFor[time.Duration](): "duration",
		reflect.TypeFor[netip.Prefix](): "network", reflect.TypeFor[netip.AddrPort](): "address, with or without a port",
	}[n.Type]
	if w := map[string]string{
		"hostname": "domain", "relaydomain": "domain", "path": "path", "optpath": "path", "mailbox": "mail address",
		"listen": "address:port", "target": "URL", "httpsurl": "URL", "directoryurl": "URL", "fetchurl": "URL", "deliverurl": "URL", "sender": "mail address, or a pattern of them", "rate": "rate", "sizerate": "rate of a size", "rulesender": "mail address, or a pattern of them", "routedomain": "domain, or a pattern of them",
		"secretpath": "path", "envname": "name of an environment variable", "domain": "domain", "server": "address, with or without a port", "service": "service",
	}[n.Check]; w != "" {
		word = w
	}
	switch n.Kind {
	case list:
		return "list of: " + word
	case objects:
		return "list of mappings, with the keys below"
	}
	return word
}

func defaultWords(n *node) string {
	switch {
	case n.Required:
		return "none, it must be set"
	case n.Shown != "":
		return code(n.Shown)
	case n.Kind != scalar && n.Default == "":
		return "`[]`"
	case n.Kind == list:
		return "`[" + strings.Join(strings.Fields(n.Default), ", ") + "]`"
	case n.Default == "":
		return "not set"
	}
	return "`" + n.Default + "`"
}

func limitWords(n *node) string {
	switch {
	case len(n.Enum) > 0:
		return "`" + strings.Join(n.Enum, "`, `") + "`"
	case n.Min != "":
		return "`" + n.Min + "` to `" + n.Max + "`"
	}
	return ""
}

// TestTags: every key is described, and its default, bounds and example are
// accepted by its own rules.
func TestTags(t *testing.T) {
	var walk func(parent *node)
	walk = func(parent *node) {
		for _, n := range parent.Keys {
			if n.Doc == "" {
				t.Errorf("%s has no doc", n.Path)
			}
			if (n.Min == "") != (n.Max == "") {
				t.Errorf("%s has one bound only", n.Path)
			}
			if n.Check != "" && checks(n.Check) == nil {
				t.Errorf("%s names a check that does not exist: %s", n.Path, n.Check)
			}
			words := strings.Fields(n.Default)
			if n.Kind == section || n.Kind == objects {
				words = nil
			}
			for _, w := range words {
				if _, err := n.accept(w); err != nil {
					t.Errorf("default of %s: %v", n.Path, err)
				}
			}
			if n.Example != "" {
				checkExample(t, n)
			}
			walk(n)
		}
	}
	walk(schema())
	if _, err := os.Stat(referenceFile); err != nil {
		t.Error(err)
	}
}

// checkExample reads the example as the value of its key.
func checkExample(t *testing.T, n *node) {
	root, problem := parseYAML([]byte("v: " + n.Example + "\n"))
	if problem != nil {
		t.Errorf("example of %s: %v", n.Path, problem)
		return
	}
	r := &reader{file: "example", origins: origins{}}
	if r.value(n, root.Content[1], n.Path); len(r.problems) > 0 {
		t.Errorf("example of %s: %v", n.Path, r.problems)
	}
}
