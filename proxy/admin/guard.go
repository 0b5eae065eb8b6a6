package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// guard is in front of everything. What a browser might be made to ask for, by a
// page from elsewhere, is refused:
//
//   - by the name in Host, which is foreign where a page has its own name resolve to
//     a loopback address (DNS rebinding). An IP address cannot be had that way.
//   - by Sec-Fetch-Site and Origin, which a page cannot forge (CSRF).
//
// Programs send neither Origin nor Sec-Fetch-Site, and are let in.
func (d *desk) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "this comes from a page of another origin", http.StatusForbidden)
	}))
	next = crossOrigin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allow(w, writeTimeout)
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
			"img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		if !d.knows(r.Host) {
			http.Error(w, "the name in Host is not one of this listener: use an IP address, localhost,\n"+
				"or the name that the configuration has as host in [admin]", http.StatusForbidden)
			return
		}
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
			http.Error(w, "this comes from a page of another site", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytesMax)
		next.ServeHTTP(w, r)
	})
}

// knows reports that requests may come under a name.
func (d *desk) knows(host string) bool {
	if d.listener.path != "" {
		return true // no browser gets to a Unix socket
	}
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	own := d.config.Load().Host
	return strings.EqualFold(name, "localhost") || own != "" && strings.EqualFold(name, own)
}

// allow bounds how long an answer may take from now on. The deadline for reading
// moves along: when it passes, net/http takes the client for gone.
func allow(w http.ResponseWriter, d time.Duration) {
	control, until := http.NewResponseController(w), time.Now().Add(d)
	// Every connection here has deadlines, so there is no error to expect.
	_ = control.SetReadDeadline(until)
	_ = control.SetWriteDeadline(until)
}
