package config

import (
	"reflect"
	"slices"
	"strings"
)

// kind is the shape that a key has in the file.
type kind int

const (
	scalar  kind = iota // one value
	list                // [a, b]
	section             // a mapping with keys of its own
	objects             // a list of sections
)

// node is one key, as its tags describe it.
type node struct {
	Name string // in its section
	Path string // dotted from the top: delivery.mx_port, listeners[].address
	Kind kind
	Type reflect.Type // of the value, or of one element
	Keys []*node      // of a section, or of one of objects

	Default  string   // text as in the file; elements of a list by spaces
	Enum     []string // the accepted words
	Check    string   // name in the table of checks
	Min, Max string   // bounds, in the notation of the value

	Required bool // no default makes sense
	NonEmpty bool // a list with at least one element
	Common   bool // its flag is worth a line in the help
	Secret   bool // a wrong value is not repeated: it may be a password in the wrong place

	Doc, Example string // for the reference
	Shown        string // the default in words, where it depends on others
}

// schema is the tree of all keys. It is built from constants of the source,
// so that building it anew each time is only a matter of microseconds.
func schema() *node {
	return &node{Kind: section, Keys: fields(reflect.TypeFor[Config](), "")}
}

func fields(t reflect.Type, prefix string) []*node {
	var nodes []*node
	for f := range t.Fields() {
		name, ok := f.Tag.Lookup("key")
		if !ok || name == "-" {
			continue
		}
		nodes = append(nodes, newNode(f, name, prefix+name))
	}
	return nodes
}

func newNode(f reflect.StructField, name, path string) *node {
	tag := f.Tag.Get
	n := &node{
		Name: name, Path: path, Type: f.Type,
		Default: tag("default"), Enum: strings.Fields(tag("enum")), Check: tag("check"),
		Min: tag("min"), Max: tag("max"),
		Required: tag("required") == "true", NonEmpty: tag("nonempty") == "true",
		Common: tag("flag") == "common", Secret: tag("secret") == "true",
		Doc: tag("doc"), Example: tag("example"), Shown: tag("shown"),
	}
	switch n.Type.Kind() {
	case reflect.Slice:
		n.Kind, n.Type = list, n.Type.Elem()
	case reflect.Pointer: // nil when the key is absent
		n.Type = n.Type.Elem()
	}
	// Prefixes and addresses are structs to Go, but one word in the file.
	if n.Type.Kind() == reflect.Struct && !isWord(n.Type) {
		if n.Kind == list {
			n.Kind, path = objects, path+"[]"
		} else {
			n.Kind = section
		}
		n.Keys = fields(n.Type, path+".")
	}
	return n
}

// key finds the key with a name in the section n.
func (n *node) key(name string) *node {
	i := slices.IndexFunc(n.Keys, func(k *node) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return n.Keys[i]
}

// names of the keys of the section n, in the order of declaration.
func (n *node) names() []string {
	var names []string
	for _, k := range n.Keys {
		names = append(names, k.Name)
	}
	return names
}

// leaves are the scalars and lists below n, without those inside of objects:
// what a layer other than the file could name.
func (n *node) leaves() []*node {
	var all []*node
	for _, k := range n.Keys {
		if k.Kind == section {
			all = append(all, k.leaves()...)
		} else {
			all = append(all, k)
		}
	}
	return all
}

// viperKey is the path with the delimiter that viper is told to use: dots are
// left alone, as they occur in names of domains.
func (n *node) viperKey() string { return strings.ReplaceAll(n.Path, ".", delimiter) }

const delimiter = "::"
