package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checks are the named checks of the tags. Each takes the text of a value and
// returns its canonical form, or says what is wrong.
func checks(name string) func(string) (string, error) {
	switch name {
	case "hostname":
		return hostname
	case "mailbox":
		return mailbox
	case "relaydomain":
		return relayDomain
	case "recipient":
		return recipient
	case "service":
		return service
	case "path", "optpath":
		return optional(absolute)
	case "domain":
		return domain
	case "target":
		return targetURL
	case "fetchurl":
		return fetchURL
	case "deliverurl":
		return deliverURL
	case "routedomain":
		return routeDomain
	case "sender":
		return sender
	case "routename":
		return optional(routeName)
	case "replytext":
		return replyText
	case "ruleuser":
		return ruleUser
	case "rate":
		return optional(rate)
	case "sizerate":
		return optional(sizeRate)
	case "rulesender":
		return ruleSender
	case "username":
		return username
	case "envname":
		return optional(envName)
	case "selector":
		return Selector
	case "keypath":
		return keyPath
	case "secretpath":
		return optional(secretPath)
	case "httpsurl":
		return optional(httpsURL)
	case "collector":
		return optional(collectorURL)
	case "argument":
		return argument
	case "network":
		return network
	case "trusted":
		return trusted
	case "proxy":
		return proxy
	case "xclient":
		return xclient
	case "listen":
		return listenAddress
	case "optlisten":
		return optional(listenAddress)
	case "optserver":
		return optional(server)
	case "keyname":
		return optional(keyName)
	case "directoryurl":
		return directoryURL
	case "publicaddr":
		return publicAddress
	case "server":
		return server
	}
	return nil
}

func isAbs(s string) bool       { return filepath.IsAbs(s) }
func cleanPath(s string) string { return filepath.Clean(s) }
func isWord(t reflect.Type) bool {
	return t == reflect.TypeFor[netip.Prefix]() || t == reflect.TypeFor[netip.AddrPort]()
}

// accept checks the text of one value (or of one element of a list) and
// returns its canonical form, which parse turns into the value. All layers go
// through it, so a value is right or wrong wherever it is written.
func (n *node) accept(text string) (string, error) {
	if len(n.Enum) > 0 && !slices.Contains(n.Enum, text) {
		return "", fmt.Errorf("%s is not one of %s%s", quote(text), strings.Join(n.Enum, ", "), didYouMean(text, n.Enum))
	}
	if check := checks(n.Check); check != nil {
		var err error
		if text, err = check(text); err != nil {
			return "", err
		}
	}
	v, err := parse(n.Type, text)
	if err != nil {
		return "", err
	}
	return text, n.within(v, text)
}

// parse turns canonical text into a value of one of the types that Config
// uses.
func parse(t reflect.Type, text string) (any, error) {
	switch t {
	case reflect.TypeFor[string]():
		return text, nil
	case reflect.TypeFor[bool]():
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%s is not one of true, false%s", quote(text), boolMeant(text))
		}
		return text == "true", nil
	case reflect.TypeFor[int]():
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s is not a whole number", quote(text))
		}
		return int(n), nil
	case reflect.TypeFor[uint16]():
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%s is not a port from 1 to 65535", quote(text))
		}
		return uint16(n), nil
	case reflect.TypeFor[int64]():
		return ParseSize(text)
	case reflect.TypeFor[time.Duration]():
		return ParseDuration(text)
	case reflect.TypeFor[netip.Prefix]():
		return netip.ParsePrefix(text)
	case reflect.TypeFor[netip.AddrPort]():
		return netip.ParseAddrPort(text)
	}
	return nil, fmt.Errorf("no value of a configuration has the type %s", t)
}

// boolMeant is the hint for words that other formats take for a bool.
func boolMeant(text string) string {
	switch strings.ToLower(text) {
	case "yes", "on", "1", "y", "true":
		return " (did you mean true?)"
	case "no", "off", "0", "n", "false":
		return " (did you mean false?)"
	}
	return ""
}

// within checks the bounds of the tags.
func (n *node) within(v any, text string) error {
	below := n.Min != "" && n.compare(v, n.Min) < 0
	above := n.Max != "" && n.compare(v, n.Max) > 0
	if below || above {
		return fmt.Errorf("%s is not from %s to %s", quote(text), n.Min, n.Max)
	}
	return nil
}

func (n *node) compare(v any, bound string) int {
	b, err := parse(n.Type, bound)
	if err != nil {
		panic("bound of " + n.Path + ": " + err.Error()) // a wrong tag, which any test finds
	}
	switch v := v.(type) {
	case int:
		return cmp.Compare(v, b.(int))
	case int64:
		return cmp.Compare(v, b.(int64))
	case time.Duration:
		return cmp.Compare(v, b.(time.Duration))
	}
	panic("bound of " + n.Path + ": its type has no order")
}
