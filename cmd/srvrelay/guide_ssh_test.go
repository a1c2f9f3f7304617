//go:build linux

package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
)

// sshd lets root of other machines run commands on this one: the other end of
// testdata/guides/bin/ssh. Who may reach port 22 may log in.
func (m *guideMachine) sshd() {
	m.net.Helper()
	var l net.Listener
	m.net.within(m.netns, func() (err error) { l, err = net.Listen("tcp", ":22"); return err })
	m.net.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.login(c)
		}
	}()
}

// login runs one command, with its standard input, and answers with a line of
// its status and what it prints.
func (m *guideMachine) login(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	command, input := decodedLine(r), decodedLine(r)
	status := 0
	out, err := m.tryWith(command, input)
	if err != nil {
		status = 1
	}
	fmt.Fprintf(c, "%d\n%s", status, out)
}

// decodedLine reads a line of base64; what cannot be read is empty.
func decodedLine(r *bufio.Reader) string {
	line, _ := r.ReadString('\n')
	b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
	return string(b)
}
