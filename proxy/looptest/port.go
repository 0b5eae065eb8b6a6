package looptest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreePort is a port of 127.0.0.1 for a server that cannot be handed a listener.
// It lies below those the kernel gives to clients (32768 and up), so no connection
// of another test sits on it before the server binds.
func FreePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 100 {
		port := 20_000 + rand.IntN(12_000)
		var ln net.Listener
		if ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatalf("no free port in 100 tries: %v", err)
	return 0
}
