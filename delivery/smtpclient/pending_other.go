//go:build !unix

package smtpclient

// peek cannot be had here; the caller waits a moment instead.
func (g *glimpse) peek() (ready, known bool) { return false, false }
