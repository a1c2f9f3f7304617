package config

import _ "embed"

//go:embed example.yaml
var example string

// Example is a complete configuration with a comment at every key.
func Example() string { return example }
