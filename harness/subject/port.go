package subject

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports to choose from lie below those the kernel gives to clients (32768 and
// up), so that no connection of the load can sit on one between our look and
// the server's bind.
const (
	portMin   = 15_000
	portMax   = 30_000
	portTries = 100
)

// freePort returns a port of 127.0.0.1 that nobody listens on.
func freePort() (int, error) {
	var failed error
	for range portTries {
		port := portMin + rand.IntN(portMax-portMin)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
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
