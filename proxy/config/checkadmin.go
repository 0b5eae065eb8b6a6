package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// checkAdminAddress accepts what may be listened on: an IP address or localhost,
// with a port, or a Unix socket.
func checkAdminAddress(text string) *fault {
	if strings.HasPrefix(text, unixPrefix) || strings.HasPrefix(text, "/") {
		return checkUpstreamAddress(text)
	}
	if port, local := strings.CutPrefix(text, "localhost:"); local {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return nil
		}
	}
	if _, err := netip.ParseAddrPort(text); err != nil {
		return &fault{fmt.Sprintf("%s is no IP address with a port", quoted(text)),
			`write one such as "127.0.0.1:9000", "[::1]:9000" or "unix:/run/atlas/admin.sock"`}
	}
	return nil
}

// checkAdmin keeps the admin listener and what answers clients apart. A process that
// takes another one's place shares ports with that one: there the system would not
// refuse it, and clients would get the admin listener.
func (r *reader) checkAdmin() {
	const key = "admin.address"
	listen, address := &r.config.Listen, r.config.Admin.Address
	if path := UnixPath(address); path != "" && path == listen.Handover {
		r.fail(r.seen[key], key, fault{"this is the socket of listen.handover as well", "choose another path"})
		return
	}
	host, port, found := cutPort(address)
	if !found || listen.Port == 0 || port != strconv.Itoa(listen.Port) || r.failed(key) {
		return
	}
	if overlap(host, unbracket(listen.Address)) {
		r.fail(r.seen[key], key, fault{fmt.Sprintf("clients connect to port %s here: see [listen]", port),
			"choose another port"})
	}
}

func cutPort(address string) (host, port string, found bool) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || UnixPath(address) != "" {
		return "", "", false
	}
	return unbracket(address[:i]), strings.TrimLeft(address[i+1:], "0"), true
}

// overlap reports that a connection may be to both of two addresses of listeners. Of a
// name only one is known here.
func overlap(a, b string) bool {
	const localhost = "localhost"
	if a == localhost {
		a = "127.0.0.1"
	}
	if b == localhost {
		b = "127.0.0.1"
	}
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return a == b
	}
	covers := func(x, y netip.Addr) bool { return x.IsUnspecified() && (x.Is6() || y.Is4()) }
	x, y = x.Unmap(), y.Unmap()
	return x == y || covers(x, y) || covers(y, x)
}
