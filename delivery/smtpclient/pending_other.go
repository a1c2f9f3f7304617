//go:build !unix

package smtpclient

import "syscall"

// peek cannot be had here; the caller waits a moment instead.
func peek(syscall.RawConn) (ready, known bool) { return false, false }
