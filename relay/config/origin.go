package config

import "strings"

// origin is where a value was written.
type origin struct {
	File         string
	Line, Column int
}

// origins knows the origin of each path that was written anywhere.
type origins map[string]origin

// at is the origin of a path or, if it was not written, of what it would stand
// in. Only a later layer that set the very path wins over the file.
func (o origins) at(path string) origin {
	for {
		if at, ok := o[path]; ok {
			return at
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return o[""]
		}
		path = path[:i]
	}
}

// Written tells whether the file, the environment or a flag sets a key.
func (c *Config) Written(path string) bool {
	_, written := c.origins[path]
	return written
}

// Problem is what a user of the configuration found wrong with the value at a
// path, with the place where it was written.
func (c *Config) Problem(path, message string, err error) Problem {
	p := c.origins.problem(path, message)
	p.Err = err
	return p
}

// problem is a Problem with the origin of the path.
func (o origins) problem(path, message string) Problem {
	at := o.at(path)
	return Problem{File: at.File, Line: at.Line, Column: at.Column, Path: path, Message: message}
}
