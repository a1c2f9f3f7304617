// Package config owns the configuration: the keys with their documentation,
// defaults and limits, the layers (file, environment, flags), and every check
// that can be made before the relay starts. It does not know who uses a value:
// it hands out plain typed fields and imports no part of the relay.
//
// Read in this order:
//
//   - config.go, route.go: the keys, each with its doc, default and limits in its tags;
//   - schema.go: the tags read into a tree;
//   - scalar.go, units.go, names.go, nets.go, routenames.go, target.go: one text to one value;
//   - file.go, syntax.go: the YAML file, with the position of every value;
//   - layers.go: environment variables and flags;
//   - load.go: the layers put together;
//   - validate.go, validate_route.go, coverage.go: what must hold between values;
//   - files.go, secret.go: what must hold on the disk;
//   - effective.go, jsonschema.go: the configuration and the schema, printed;
//   - problem.go: what the operator reads when something is wrong.
package config
