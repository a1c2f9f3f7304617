package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseYAML is the one document of a file, nil when it is empty, or the
// problem of its syntax.
func parseYAML(text []byte) (*yaml.Node, *Problem) {
	if p := badEncoding(text); p != nil {
		return nil, p
	}
	first, second, err := documents(text)
	if err != nil {
		return nil, syntaxProblem(text, err)
	}
	if second != nil {
		line, column := within(splitLines(text), second.Line, second.Column)
		return nil, &Problem{Line: line, Column: column, Message: "a second document begins here (---): a configuration is one document"}
	}
	if first == nil || len(first.Content) == 0 || isNull(first.Content[0]) {
		return nil, nil
	}
	return first.Content[0], nil
}

// documents are the first two documents of a text, nil where there is none.
func documents(text []byte) (first, second *yaml.Node, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	for _, doc := range []**yaml.Node{&first, &second} {
		var y yaml.Node
		if err := d.Decode(&y); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, nil, err
		}
		*doc = &y
	}
	return first, second, nil
}

// badEncoding finds the first byte that is not UTF-8, and control characters,
// for which YAML has no place either.
func badEncoding(text []byte) *Problem {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark takes no column
	line, column := 1, 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &Problem{Line: line, Column: column, Message: "is not UTF-8 here (byte 0x" + strconv.FormatUint(uint64(text[i]), 16) + ")"}
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return &Problem{Line: line, Column: column, Message: "has a control character here (" + strconv.QuoteRune(r) + ")"}
		}
		i += size
		column++
		if isBreak(r) && !(r == '\r' && i < len(text) && text[i] == '\n') {
			line, column = line+1, 1
		}
	}
	return nil
}

// isBreak tells what ends a line for the YAML parser (YAML 1.1 5.4).
func isBreak(r rune) bool {
	return r == '\n' || r == '\r' || r == 0x85 || r == 0x2028 || r == 0x2029
}

// splitLines is the text without line ends; an end of line at the end of the
// file begins no line.
func splitLines(text []byte) []string {
	s := strings.TrimPrefix(string(text), "\ufeff")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.Map(func(r rune) rune {
		if isBreak(r) {
			return '\n'
		}
		return r
	}, s)
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// within moves a position to the nearest that exists; the column may be one
// behind the line.
func within(lines []string, line, column int) (int, int) {
	line = min(max(line, 1), len(lines))
	return line, min(max(column, 1), utf8.RuneCountInString(lines[line-1])+1)
}

var yamlLine = regexp.MustCompile(`^(yaml: )?(line ([0-9]+): )?`)

// syntaxProblem gives an error of the YAML parser a position. The parser names
// a line at best, and often that of the surrounding block.
func syntaxProblem(text []byte, err error) *Problem {
	lines := splitLines(text)
	m := yamlLine.FindStringSubmatch(err.Error())
	message := strings.TrimPrefix(err.Error(), m[0])
	line, _ := strconv.Atoi(m[3])
	if found := firstBadLine(lines); found > 0 {
		line = found
	}
	line, _ = within(lines, line, 1)
	content := lines[line-1]
	indent := content[:len(content)-len(strings.TrimLeft(content, " \t"))]
	column := len(indent) + 1
	if tab := strings.IndexByte(indent, '\t'); tab >= 0 {
		return &Problem{Line: line, Column: tab + 1, Message: "a tab cannot indent YAML: use spaces"}
	}
	if word, at := needsQuotes(content); word != "" {
		return &Problem{Line: line, Column: at, Message: clean(word) + " needs quotes in YAML (write " + quote(word) + ")"}
	}
	return &Problem{Line: line, Column: column, Message: "not YAML: " + message + syntaxHint(message)}
}

// firstBadLine is the line behind the longest beginning of the file that is
// right by itself: there the mistake is, or there the bracket or quote opens
// that is never closed. It is 0 for files so long that the search would be
// slow.
func firstBadLine(lines []string) int {
	text := strings.Join(lines, "\n")
	if len(lines) > 500 || len(text) > 64<<10 {
		return 0
	}
	for n := len(lines) - 1; n > 0; n-- {
		text = text[:len(text)-len(lines[n])-1]
		if _, _, err := documents([]byte(text + "\n")); err == nil {
			return n + 1
		}
	}
	return 1
}

// syntaxHint says in an operator's words what most often causes a message.
func syntaxHint(message string) string {
	switch {
	case strings.HasPrefix(message, "mapping values are not allowed"):
		return " (a second \": \" in the line, or a wrong indentation; put a value with \": \" in quotes)"
	case strings.HasPrefix(message, "could not find expected ':'"):
		return " (a key without \": \" behind it)"
	case strings.HasPrefix(message, "did not find expected key"):
		return " (the indentation differs from the lines above)"
	case strings.HasPrefix(message, "did not find expected ','"):
		return " (a bracket or brace is not closed)"
	case strings.HasPrefix(message, "found unexpected end of stream"):
		return " (a quote is not closed)"
	}
	return ""
}
