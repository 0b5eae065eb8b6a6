package subject

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"
)

// loopback is where servers listen unless other hosts are to reach them.
const loopback = "127.0.0.1"

// Ports to choose from lie below those the kernel gives to clients (32768 and
// up), so that no connection of the load can sit on one between our look and
// the server's bind.
const (
	portMin   = 15_000
	portMax   = 30_000
	portTries = 100
)

// freePort returns a port of an address that nobody listens on. At another host
// nobody can look: a server that meets one in use ends, and says why.
func freePort(address string) (int, error) {
	var failed error
	for range portTries {
		port := portMin + rand.IntN(portMax-portMin)
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return port, nil
		}
		if err != nil {
			failed = err
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, err
		}
		return port, nil
	}
	return 0, errors.Join(fmt.Errorf("no free port in %d tries", portTries), failed)
}

// answerTimeout is how long another host may take to a connection.
const answerTimeout = 5 * time.Second

// Answers says whether a host answers at an address, if only by refusing.
func Answers(address string) error {
	port, err := freePort(address)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, strconv.Itoa(port)), answerTimeout)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err == nil {
		err = conn.Close()
	}
	return err
}
