package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader walks the nodes of a file beside the schema. It collects the canonical
// values, their positions, and all problems.
type reader struct {
	file     string
	origins  origins
	problems Problems
	broken   bool // the file as a whole could not be read
}

// readYAML reads the text of a file into nested maps and lists of canonical
// strings, as far as they are right.
func (r *reader) readYAML(text []byte) map[string]any {
	r.origins[""] = origin{r.file, 1, 1}
	root, problem := parseYAML(text)
	if problem != nil {
		problem.File, r.broken = r.file, true
		r.problems = append(r.problems, *problem)
		return nil
	}
	if root == nil {
		return nil // empty, or comments only
	}
	values, ok := r.value(schema(), root, "").(map[string]any)
	r.broken = !ok
	return values
}

func (r *reader) complain(at *yaml.Node, path, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: at.Line, Column: at.Column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// value reads the node y as the key n says, and is nil when that is impossible.
func (r *reader) value(n *node, y *yaml.Node, path string) any {
	r.origins[path] = origin{r.file, y.Line, y.Column}
	if y.Kind == yaml.AliasNode {
		// A few lines of aliases can stand for a terabyte; nobody needs them here.
		r.complain(y, path, "aliases (*%s) are not supported: write the value out", clean(y.Value))
		return nil
	}
	switch n.Kind {
	case section:
		return r.section(n, y, path)
	case list, objects:
		return r.list(n, y, path)
	}
	return r.scalar(n, y, path)
}

// isNull tells that a key has nothing behind it, or null.
func isNull(y *yaml.Node) bool { return y.Kind == yaml.ScalarNode && y.Tag == "!!null" }

func (r *reader) section(n *node, y *yaml.Node, path string) any {
	if isNull(y) && path != "" && n.Kind == section {
		return nil // every key below is commented out
	}
	if y.Kind != yaml.MappingNode {
		r.complain(y, path, "%s, want keys: %s", what(y), strings.Join(n.names(), ", "))
		return nil
	}
	values, lines := map[string]any{}, map[string]int{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		name, value := y.Content[i], y.Content[i+1]
		key := r.keyOf(n, name, path)
		if key == nil {
			continue
		}
		if first, again := lines[key.Name]; again {
			r.complain(name, join(path, key.Name), "is here twice, first in line %d", first)
			continue
		}
		lines[key.Name] = name.Line
		if v := r.value(key, value, join(path, key.Name)); v != nil {
			values[key.Name] = v
		}
	}
	r.fillIn(n, y, path, values, lines)
	return values
}

// keyOf finds the key that a node of a mapping names, or says what may have
// been meant.
func (r *reader) keyOf(n *node, name *yaml.Node, path string) *node {
	if name.Kind != yaml.ScalarNode {
		r.complain(name, path, "%s as a key, want one of %s", what(name), strings.Join(n.names(), ", "))
		return nil
	}
	key := n.key(name.Value)
	if key == nil {
		shown := name.Value
		if len(shown) > quoteMax || strings.ContainsAny(shown, " :") || shown == "" {
			shown = quote(shown)
		}
		hint := ""
		if len(r.problems) < maxHints {
			hint = keyMeant(n, name.Value)
		}
		r.complain(name, join(path, shown), "unknown key%s", hint)
	}
	return key
}

// maxHints is the number of problems after which unknown keys get no hint: that
// is some other file, and a hint costs a comparison with every key.
const maxHints = 100

// keyMeant is the hint for an unknown key of the section n.
func keyMeant(n *node, name string) string {
	if name == "<<" {
		return " (merging is not supported: write the keys out)"
	}
	if n.key("password_file") != nil && slices.Contains([]string{"password", "passwd", "pass", "secret"}, strings.ToLower(name)) {
		return " here: this file is shown to people and copied about (put the password into a file of its own and name it: password_file)"
	}
	if meant := didYouMean(name, n.names()); meant != "" {
		return meant
	}
	for _, k := range schema().leaves() {
		if k.Name == name && n.Path != k.Path {
			return " here (did you mean " + k.Path + "?)"
		}
	}
	return " (known here: " + strings.Join(n.names(), ", ") + ")"
}

// fillIn completes one object of a list: the layers know defaults for whole
// keys only.
func (r *reader) fillIn(n *node, y *yaml.Node, path string, values map[string]any, seen map[string]int) {
	if n.Kind != objects {
		return
	}
	for _, k := range n.Keys {
		switch {
		case seen[k.Name] > 0:
		case k.Required:
			r.complain(y, path, "%s is missing%s", k.Name, oneOf(k))
		case k.Default != "":
			values[k.Name] = k.Default
		}
	}
}

func oneOf(k *node) string {
	if len(k.Enum) > 0 {
		return " (one of " + strings.Join(k.Enum, ", ") + ")"
	}
	return " (for example " + k.Example + ")"
}

// list reads a sequence. Wrong elements are left out.
func (r *reader) list(n *node, y *yaml.Node, path string) any {
	switch {
	case isNull(y):
		r.complain(y, path, "has no value (write [] for an empty list, or remove the key for the default)")
		return nil
	case y.Kind != yaml.SequenceNode:
		r.complain(y, path, "%s, want a list%s", what(y), listMeant(n, y))
		return nil
	case len(y.Content) == 0 && n.NonEmpty:
		r.complain(y, path, "is empty, want at least one element (for example %s)", n.Example)
		return nil
	}
	values, lines := []any{}, map[any]int{}
	for i, e := range y.Content {
		v := r.element(n, e, fmt.Sprintf("%s[%d]", path, i))
		if v == nil && n.Kind == objects {
			v = map[string]any{} // the numbers of those behind it must not change
		}
		if text, ok := v.(string); ok && n.Check != "" {
			if first, again := lines[text]; again {
				r.complain(e, fmt.Sprintf("%s[%d]", path, i), "%s is in the list twice, first in line %d", quote(text), first)
				continue
			}
			lines[text] = e.Line
		}
		if v != nil {
			values = append(values, v)
		}
	}
	return values
}

// element reads one element of the list n.
func (r *reader) element(n *node, y *yaml.Node, path string) any {
	r.origins[path] = origin{r.file, y.Line, y.Column}
	switch {
	case y.Kind == yaml.AliasNode:
		r.complain(y, path, "aliases (*%s) are not supported: write the value out", clean(y.Value))
		return nil
	case n.Kind == objects:
		return r.section(n, y, path)
	}
	return r.scalar(n, y, path)
}

func listMeant(n *node, y *yaml.Node) string {
	if n.Kind == list && y.Kind == yaml.ScalarNode && len(y.Value) <= quoteMax {
		return " (write [" + clean(masked(y.Value)) + "])"
	}
	if n.Kind == objects && n.Example != "" {
		return " (for example " + n.Example + ")"
	}
	return ""
}

// scalar reads one value in its canonical form.
func (r *reader) scalar(n *node, y *yaml.Node, path string) any {
	if message := wrongKind(n, y); message != "" {
		r.complain(y, path, "%s", message)
		return nil
	}
	text, err := n.accept(y.Value)
	if err != nil {
		r.complain(y, path, "%s", err)
		return nil
	}
	return text
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
