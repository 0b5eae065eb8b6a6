// Floor is what the kernel costs: a constant HTTP answer, or a blind relay of
// bytes, on one bare ring and one thread, with nothing of a server around it.
// What a server costs beyond it is the server's own. It refuses nothing: it
// knows no limits, no time-outs, and of HTTP only where a head without a body
// ends, so it is for the lab and not for a network. All is on the goroutine
// that calls serve, which keeps its thread.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
)

// bodyBytes is the length of the body unless a file has another.
const bodyBytes = 1024

func main() {
	if err := run(os.Stdout, os.Stderr, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "floor: %v\n", err)
		os.Exit(2)
	}
}

// run serves until the process is ended; what it returns is why it cannot.
func run(stdout, stderr io.Writer, args []string) error {
	flags := flag.NewFlagSet("floor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:8080", "`address` to listen on")
	upstream := flags.String("upstream", "", "`address` to relay bytes to, instead of answering")
	file := flags.String("body", "", "`file` with the body of the answer, instead of 1 KB")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var to netip.AddrPort
	if *upstream != "" {
		var err error
		if to, err = netip.ParseAddrPort(*upstream); err != nil {
			return fmt.Errorf("-upstream: %w", err)
		}
	}
	body := []byte(strings.Repeat("x", bodyBytes))
	if *file != "" {
		var err error
		if body, err = os.ReadFile(*file); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Fprintf(stdout, "listening on %s\n", listener.Addr())
	return serve(listener.(*net.TCPListener), to, answer(body))
}

// answer is the whole of every answer.
func answer(body []byte) []byte {
	return append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
}
