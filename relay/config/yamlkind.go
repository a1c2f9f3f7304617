package config

import (
	"reflect"

	"go.yaml.in/yaml/v3"
)

// what names the kind of a node, as the subject of a complaint.
func what(y *yaml.Node) string {
	switch y.Kind {
	case yaml.MappingNode:
		return "is a mapping"
	case yaml.SequenceNode:
		return "is a list"
	case yaml.AliasNode:
		return "is an alias"
	}
	if isNull(y) {
		return "has no value"
	}
	return "is the single value " + quote(y.Value)
}

// wrongKind says why a node cannot be the scalar n, or "". YAML guesses types
// from the look of a word; a guess that does not fit is an error here rather
// than a surprise later.
func wrongKind(n *node, y *yaml.Node) string {
	switch {
	case isNull(y):
		return "has no value (remove the key for the default)"
	case y.Kind != yaml.ScalarNode:
		return what(y) + ", want a single value"
	}
	isText := n.Type.Kind() == reflect.String || isWord(n.Type)
	isNumber := n.Type == reflect.TypeFor[int]() || n.Type == reflect.TypeFor[uint16]()
	switch y.Tag {
	case "!!str":
		if isNumber && digits.MatchString(y.Value) {
			return quote(y.Value) + " is text, want a number (write it without quotes)"
		}
		if n.Type.Kind() == reflect.Bool && (y.Value == "true" || y.Value == "false") {
			return quote(y.Value) + " is text, want true or false without quotes"
		}
	case "!!int", "!!float", "!!bool", "!!timestamp":
		if n.Check == "rate" || n.Check == "sizerate" {
			return "" // a number without a time: the check says what is missing
		}
		if isText && len(n.Enum) == 0 && n.Check != "listen" {
			return n.quote(y.Value) + " is a " + tagWords[y.Tag] + " to YAML, want text (put it in quotes if it is meant)"
		}
	default:
		return "has the tag " + quote(y.Tag) + ", want a plain value"
	}
	return ""
}

// quote shows a wrong value, unless it may be a secret.
func (n *node) quote(value string) string {
	if n.Secret {
		return "this"
	}
	return quote(value)
}

var tagWords = map[string]string{"!!int": "number", "!!float": "number", "!!bool": "truth value", "!!timestamp": "date"}
