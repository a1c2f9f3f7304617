package dkim

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// Check compares what is published under the key's name, the texts of all TXT
// records there, with the key. It returns what is wrong and what to do; nothing
// when a verifier finds the key.
func (k Key) Check(records []string) (problem string) {
	publish := "publish: " + k.Record()
	switch len(records) {
	case 0:
		return "there is no TXT record at " + k.Name() + "; " + publish
	case 1:
	default:
		return fmt.Sprintf("there are %d TXT records at %s, and a verifier takes any of them; remove all but this one: %s", len(records), k.Name(), k.Record())
	}
	tags, fault := parseTags(records[0])
	if fault != "" {
		return fault + "; " + publish
	}
	return k.compare(tags)
}

// compare goes by RFC 6376 3.6.1.
func (k Key) compare(tags map[string]string) string {
	publish := "; publish: " + k.Record()
	if v, there := tags["v"]; there && v != "DKIM1" {
		return fmt.Sprintf("the version is %.20q, want v=DKIM1%s", v, publish)
	}
	algorithm, there := tags["k"]
	if !there {
		algorithm = RSA
	}
	p, there := tags["p"]
	switch {
	case !there:
		return "it has no key (p=)" + publish
	case p == "":
		return "the key is revoked (p= is empty): if that is meant, take the key out of the configuration" + publish
	case algorithm != k.Algorithm():
		return fmt.Sprintf("it is for a key of another kind (k=%.20s), ours is %s%s", algorithm, k.Algorithm(), publish)
	}
	public, err := base64.StdEncoding.DecodeString(p)
	want := base64.StdEncoding.EncodeToString(k.public())
	switch {
	case p != want && strings.HasPrefix(want, p):
		return "the key is cut off: the form of the DNS provider may have taken only the first string" + publish
	case err != nil:
		return "the key is damaged (p= is not base64)" + publish
	case !bytes.Equal(public, k.public()):
		return "another key is published than the one in the file" + publish
	}
	if h, there := tags["h"]; there && !listed(h, "sha256") {
		return "the record allows no signatures with sha256 (h=): leave h= out"
	}
	if s, there := tags["s"]; there && !listed(s, "email") && !listed(s, "*") {
		return "the record is not for mail (s=): leave s= out"
	}
	return ""
}

// Testing tells whether a record asks verifiers to treat signed mail as if it
// were not signed (t=y).
func Testing(record string) bool {
	tags, fault := parseTags(record)
	return fault == "" && listed(tags["t"], "y")
}

func listed(list, word string) bool {
	for _, w := range strings.Split(list, ":") {
		if strings.EqualFold(strings.TrimSpace(w), word) {
			return true
		}
	}
	return false
}

// parseTags reads a tag list (RFC 6376 3.2). White space in a value means nothing
// to any tag that is looked at here.
func parseTags(record string) (tags map[string]string, fault string) {
	tags = map[string]string{}
	for _, part := range strings.Split(record, ";") {
		name, value, found := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		switch {
		case strings.TrimSpace(part) == "":
			continue
		case !found:
			return nil, fmt.Sprintf("the record is not a list of tags (%.40q has no =)", strings.TrimSpace(part))
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Sprintf("the record has the tag %.20q twice", name)
		}
		tags[name] = strings.Join(strings.Fields(value), "")
	}
	if len(tags) == 0 {
		return nil, "the record is empty"
	}
	return tags, ""
}
