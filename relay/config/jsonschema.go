package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// JSONSchema describes the file for editors (JSON Schema, draft 2020-12), from
// the same tags as the documentation. It knows the keys, words, bounds and
// shapes; what depends on several keys only check-config knows.
func JSONSchema() string {
	top := objectSchema(schema())
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "The configuration of srvrelay"
	b, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		panic(err) // maps of texts and numbers have a form in JSON
	}
	return string(b) + "\n"
}

func objectSchema(n *node) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, k := range n.Keys {
		properties[k.Name] = keySchema(k)
		if k.Required {
			required = append(required, k.Name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if n.Kind == section {
		s["type"] = []string{"object", "null"} // every key below may be commented out
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func keySchema(n *node) map[string]any {
	var s map[string]any
	switch n.Kind {
	case section:
		s = objectSchema(n)
	case objects:
		s = map[string]any{"type": "array", "items": objectSchema(n)}
	case list:
		s = map[string]any{"type": "array", "items": valueSchema(n)}
		if n.Check != "" {
			s["uniqueItems"] = true
		}
	default:
		s = valueSchema(n)
	}
	if n.NonEmpty {
		s["minItems"] = 1
	}
	s["description"] = n.Doc
	if d := schemaDefault(n); d != nil {
		s["default"] = d
	}
	return s
}

// valueSchema describes one value, or one element of a list.
func valueSchema(n *node) map[string]any {
	if len(n.Enum) > 0 {
		return map[string]any{"enum": n.Enum}
	}
	switch n.Type {
	case reflect.TypeFor[bool]():
		return map[string]any{"type": "boolean"}
	case reflect.TypeFor[uint16]():
		return map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}
	case reflect.TypeFor[int]():
		least, _ := strconv.Atoi(n.Min)
		most, _ := strconv.Atoi(n.Max)
		return map[string]any{"type": "integer", "minimum": least, "maximum": most}
	case reflect.TypeFor[int64]():
		return textSchema(`^[0-9]+(B|KiB|MiB|GiB)$`)
	case reflect.TypeFor[time.Duration]():
		return textSchema(`^([0-9]+d)?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))*$`)
	case reflect.TypeFor[netip.Prefix]():
		return textSchema(`^[0-9A-Fa-f:.]+/[0-9]+$`)
	}
	return textSchema(schemaPatterns[n.Check])
}

// schemaPatterns are the shapes that an editor can check of what the checks of
// the same names accept.
var schemaPatterns = map[string]string{
	"listen":       `:[0-9]+$`,
	"hostname":     `^[^\s@:/*_]*$`,
	"domain":       `^[^\s@:/*]+$`,
	"mailbox":      `^([^@\s]+@[^@\s]+)?$`,
	"replytext":    `^[ -~]{0,200}$`,
	"optpath":      `^(/.*)?$`,
	"path":         `^(/.*)?$`,
	"secretpath":   `^(/.*)?$`,
	"directoryurl": `^https://.*$`,
	"httpsurl":     `^(https?://.*)?$`,
	"envname":      `^([A-Z_][A-Z0-9_]*)?$`,
	"service":      `^_[A-Za-z0-9-]+\._[Tt][Cc][Pp]$`,
	"routename":    `^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$`,
	"relaydomain":  `^\.?[^\s@:/*.][^\s@:/*]*$`,
	"routedomain":  `^(\*|\.?[^\s@:/*.][^\s@:/*]*)$`,
	"sender":       `^<>$|@`,
	"rulesender":   `^\*$|@`,
	"rate":         `^([0-9]+/[smhd])?$`,
	"sizerate":     `^([0-9]+(B|KiB|MiB|GiB)/[smhd])?$`,
	"fetchurl":     `^[Aa][Tt][Rr][Nn][Ss]?://[^@]+$`,
	"deliverurl":   `^(smtp://[^@]+)?$`,
	"target":       `^(smtp|submissions?)(\+srv)?://[^@]+$|^lmtp://[^@]+$|^mx:/*$|^dns:/*$|^atrn:/*$`,
}

func textSchema(pattern string) map[string]any {
	s := map[string]any{"type": "string"}
	if pattern != "" {
		s["pattern"] = pattern
	}
	return s
}

// schemaDefault is the default in JSON's types, nil where it depends on others.
func schemaDefault(n *node) any {
	switch {
	case n.Kind == section || n.Kind == objects || n.Shown != "" || n.Required:
		return nil
	case n.Kind == list:
		return strings.Fields(n.Default)
	case n.Default == "":
		return nil
	}
	switch n.Type {
	case reflect.TypeFor[bool]():
		return n.Default == "true"
	case reflect.TypeFor[int](), reflect.TypeFor[uint16]():
		number, _ := strconv.Atoi(n.Default)
		return number
	}
	return n.Default
}
