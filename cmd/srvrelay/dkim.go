package main

import (
	"fmt"

	"srvrelay/relay/config"
	"srvrelay/relay/dkim"
)

// dkimKeys reads the keys that the configuration names, in its order: those for a
// domain, or with "" all.
func dkimKeys(cfg *config.Config, domain string) (keys []dkim.Key, problems config.Problems) {
	for i, k := range cfg.DKIM {
		if domain != "" && k.Domain != domain {
			continue
		}
		text, err := k.Key()
		path := fmt.Sprintf("dkim[%d].key_file", i)
		if err != nil {
			problems = append(problems, cfg.Problem(path, err.Error(), err))
			continue
		}
		signer, err := dkim.ParseKey(text)
		if err != nil {
			problems = append(problems, cfg.Problem(path, fmt.Sprintf("%q cannot be used: %v", k.KeyFile, err), err))
			continue
		}
		keys = append(keys, dkim.NewKey(k.Domain, k.Selector, signer))
	}
	return keys, problems
}

// signReports signs what the relay itself writes, as its hostname; nil without
// a key for that.
func (cur *current) signReports(log maillog) func(report []byte) []byte {
	keys, host := cur.doors.Keys, cur.cfg.Hostname
	if len(keys[host]) == 0 {
		return nil
	}
	return func(report []byte) []byte {
		fields, err := keys.SignMessage(host, report)
		if err != nil { // a report without a signature is better than none
			log.Error("a report goes without a signature", "error", err)
		}
		return fields
	}
}
