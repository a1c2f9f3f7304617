package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Setting is the value of one key that is in force, and where it comes from.
type Setting struct {
	Key    string `json:"key"`    // routes[0].to[1].url
	Value  any    `json:"value"`  // as in the file: a text, a number, true or false, or a list of those
	Source string `json:"source"` // "default", FILE:LINE, "environment NAME" or "flag --NAME"
}

// Settings are all keys in force, in the order of the documentation. A key
// whose absence has a meaning of its own is left out.
func (c *Config) Settings() []Setting {
	var all []Setting
	for _, l := range c.lines() {
		if l.leaf {
			all = append(all, Setting{l.path, l.value, c.source(l.path)})
		}
	}
	return all
}

// commentColumn is where the sources stand, if the line leaves room.
const commentColumn = 48

// Effective is the configuration in force as a file, with the source of each
// value as a comment. Loading it gives the same configuration.
func (c *Config) Effective() string {
	var b strings.Builder
	b.WriteString("# The configuration in force; behind each value is where it comes from.\n")
	for _, l := range c.lines() {
		text := strings.Repeat("  ", l.depth) + l.name + ":"
		if l.first {
			text = strings.Repeat("  ", l.depth-1) + "- " + l.name + ":"
		}
		if l.leaf {
			text += " " + yamlValue(l.value)
			text += strings.Repeat(" ", max(1, commentColumn-utf8.RuneCountInString(text))) + "# " + clean(c.source(l.path))
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// source is where the value of a path was written.
func (c *Config) source(path string) string {
	at, written := c.origins[path]
	switch {
	case !written:
		return "default"
	case strings.HasPrefix(at.File, envPrefix) && at.Line == 0:
		return "environment " + at.File
	case strings.HasPrefix(at.File, "--") && at.Line == 0:
		return "flag " + at.File
	}
	return fmt.Sprintf("%s:%d", at.File, at.Line)
}

// line is one line of the file that Effective writes.
type line struct {
	depth int
	first bool // the first of an element: behind a dash
	name  string
	path  string
	leaf  bool
	value any // of a leaf
}

func (c *Config) lines() []line { return sectionLines(schema(), reflect.ValueOf(*c), "", 0) }

// sectionLines are the lines of the keys of n, whose values are fields of v.
func sectionLines(n *node, v reflect.Value, path string, depth int) []line {
	var all []line
	for _, k := range n.Keys {
		field := fieldOf(v, k.Name)
		at := line{depth: depth, name: k.Name, path: join(path, k.Name)}
		switch {
		case k.Kind == section:
			all = append(append(all, at), sectionLines(k, field, at.path, depth+1)...)
		case k.Kind == objects && field.Len() > 0:
			all = append(append(all, at), elementLines(k, field, at.path, depth+2)...)
		case !absent(n, k, field):
			at.leaf, at.value = true, inFile(field)
			all = append(all, at)
		}
	}
	return all
}

func elementLines(n *node, v reflect.Value, path string, depth int) []line {
	var all []line
	for i := range v.Len() {
		element := sectionLines(n, v.Index(i), fmt.Sprintf("%s[%d]", path, i), depth)
		element[0].first = true // every object has a key that is always there
		all = append(all, element...)
	}
	return all
}

// absent tells that a key is not in force at all: a nil list or pointer, and
// in an element of a list everything that is empty.
func absent(parent, k *node, v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil()
	case reflect.Slice:
		return v.IsNil() || v.Len() == 0 && k.Kind == objects && parent.Kind == objects
	case reflect.String:
		return parent.Kind == objects && v.Len() == 0
	}
	return false
}

func fieldOf(v reflect.Value, key string) reflect.Value {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("key") == key {
			return v.Field(i)
		}
	}
	panic("no field for the key " + key) // the schema is made of the fields
}

// inFile is a value as the file has it.
func inFile(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return inFile(v.Elem())
	case reflect.Slice:
		all := []any{}
		for i := range v.Len() {
			all = append(all, inFile(v.Index(i)))
		}
		return all
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case int64:
		return FormatSize(x)
	case netip.Prefix:
		return x.String()
	case netip.AddrPort:
		if x.Port() == 0 { // public_addresses without a port
			return x.Addr().String()
		}
		return x.String()
	}
	return v.Interface()
}

func yamlValue(v any) string {
	switch v := v.(type) {
	case string:
		return YAMLText(v)
	case []any:
		var words []string
		for _, e := range v {
			words = append(words, yamlValue(e))
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// plainText needs no quotes anywhere in YAML, unless it looks like a number.
var plainText = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./@+-]*$`)

// YAMLText is a text as one word of YAML, in quotes where it needs them.
func YAMLText(s string) string {
	var y yaml.Node
	if plainText.MatchString(s) && yaml.Unmarshal([]byte(s), &y) == nil && y.Content[0].Tag == "!!str" {
		return s
	}
	return strconv.Quote(s)
}
