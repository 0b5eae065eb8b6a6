//go:build !linux

package loop

import "errors"

var errNoRing = errors.New("io_uring is a part of Linux; this system has none")

func probeRing() error { return errNoRing }

func startRing(Config) (Loop, error) { return nil, errNoRing }
