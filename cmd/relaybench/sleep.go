//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm is what an open loop sleeps by.
type alarm interface {
	// until sleeps until then, or the end of ctx.
	until(ctx context.Context, then time.Time) error
	close()
}

// timer is an alarm that wakes a goroutine more exactly than time.Sleep, which in an idle
// runtime is late by up to a millisecond and would blur the schedule of an open
// loop. It is a timer of the kernel's that the runtime polls like a socket: to
// sleep in a system call would hold one of its few processors for as long as
// nobody notices, with the sink and all other clients waiting behind it.
type timer struct {
	file *os.File
	raw  func(func(fd uintptr)) error
}

func newTimer() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	a := &timer{file: os.NewFile(uintptr(fd), "timer")}
	raw, err := a.file.SyscallConn()
	if err != nil {
		a.close()
		return nil, err
	}
	a.raw = raw.Control
	return a, nil
}

func (a *timer) close() { a.file.Close() }

func (a *timer) until(ctx context.Context, then time.Time) error {
	rest := time.Until(then)
	if rest <= 0 {
		return nil
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(rest))}
	var err error
	if failed := a.raw(func(fd uintptr) { err = unix.TimerfdSettime(int(fd), 0, &at, nil) }); failed != nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("timerfd_settime: %w", err)
	}
	defer context.AfterFunc(ctx, func() { a.file.SetReadDeadline(time.Unix(1, 0)) })()
	var expired [8]byte
	if _, err := a.file.Read(expired[:]); err != nil && ctx.Err() == nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	return nil
}
