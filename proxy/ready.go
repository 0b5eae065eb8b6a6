package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"atlas/proxy/config"
)

const readyLong = `
Asks the Atlas that runs CONFIG, or ./atlas.toml, at the admin address that stands there:
is it ready for clients (/readyz), or with --live, do all of its workers go on (/healthz)?
Exit status 0: yes. 1: no, or nobody answers within five seconds. For a HEALTHCHECK, a
probe, or a script that waits.

Where CONFIG has no [admin] address, only whether its port takes a connection.
`

func readyCommand() verb {
	return verb{
		name: "ready", args: "[CONFIG]", short: "ask the atlas that runs CONFIG whether it is ready", long: readyLong,
		flags: []flag{
			{name: "live", short: "whether it is alive, which it is also while it drains"},
			{name: "admin", value: "ADDRESS", short: "the admin address, instead of that in CONFIG"},
		},
		run: func(c *call) int {
			admin, given := c.flags["admin"]
			if !given {
				reading, err := readConfig(c.arg(0))
				if err != nil {
					fmt.Fprintln(c.stderr, err)
					return exitUsage
				}
				if admin = reading.Config.Admin.Address; admin == "" {
					return c.connects(&reading.Config.Listen)
				}
			}
			path := "/readyz"
			if c.has("live") {
				path = "/healthz"
			}
			return c.asks(admin, path)
		},
	}
}

// readyPatience is how long an answer may take.
const readyPatience = 5 * time.Second

// asks prints what the admin listener answers.
func (c *call) asks(admin, path string) int {
	network, address := "tcp", admin
	if socket := config.UnixPath(admin); socket != "" {
		network, address = "unix", socket
	}
	client := &http.Client{
		Timeout: readyPatience,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		},
	}
	response, err := client.Get("http://localhost" + path)
	if err != nil {
		if request, ok := errors.AsType[*url.Error](err); ok {
			err = request.Err // its URL has another host than who was asked
		}
		fmt.Fprintf(c.stderr, "atlas: nobody answers at %s: %v\n", admin, err)
		return exitRuntime
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1024))
	if err != nil {
		fmt.Fprintf(c.stderr, "atlas: %s: %v\n", admin, err)
		return exitRuntime
	}
	if response.StatusCode != http.StatusOK {
		fmt.Fprintf(c.stderr, "atlas: %s: %s\n", admin, strings.TrimSpace(string(text)))
		return exitRuntime
	}
	fmt.Fprintln(c.stdout, strings.TrimSpace(string(text)))
	return exitOK
}

// connects is all that can be found out without an admin listener.
func (c *call) connects(listen *config.Listen) int {
	if listen.Port == 0 {
		fmt.Fprintln(c.stderr, "atlas: whom to ask? There is no [admin] address, and port 0 is any free one")
		return exitUsage
	}
	address := net.JoinHostPort(listen.Address, strconv.Itoa(listen.Port))
	conn, err := net.DialTimeout("tcp", address, readyPatience)
	if err != nil {
		fmt.Fprintf(c.stderr, "atlas: nobody answers at %s: %v\n", address, err)
		return exitRuntime
	}
	_ = conn.Close()
	fmt.Fprintf(c.stdout, "%s takes connections; with an [admin] address there would be more to tell\n", address)
	return exitOK
}
