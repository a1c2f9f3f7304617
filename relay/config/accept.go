package config

// Accept checks the text of one value, or of one element of a list, by the
// rules of a key (routes[].to[].url), and returns its canonical form.
func Accept(key, text string) (string, error) {
	return keyAt(schema(), key).accept(text)
}

func keyAt(n *node, path string) *node {
	for _, k := range n.Keys {
		if k.Path == path {
			return k
		}
		if below := keyAt(k, path); below != nil {
			return below
		}
	}
	return nil
}
