//go:build !linux

package main

import (
	"errors"
	"net"
	"net/netip"
)

// serve needs a ring.
func serve(*net.TCPListener, netip.AddrPort, []byte) error {
	return errors.New("io_uring is Linux's")
}
