package config

import (
	"fmt"
	"net/netip"
)

// checkTLS holds the keys of [listen.tls] together.
func (r *reader) checkTLS(tls *TLS) {
	if _, there := r.seen[secured]; !there {
		r.seen[secured] = r.seen[certificates]
	}
	r.checkTable(secured, secured)
	for i := range tls.Certificates {
		r.checkTable(certificates, fmt.Sprintf("%s[%d]", certificates, i))
	}
	_, authority := r.seen[secured+".client_ca"]
	at, auth := r.seen[secured+".client_auth"]
	switch {
	case auth && !authority:
		r.fail(at, secured+".client_auth", fault{
			"`client_auth` needs to know whose certificates are good", "add client_ca = \"...\""})
	case authority && !auth:
		tls.ClientAuth = Require
	}
}

// checkUpstreamTLS wants TLS where there is something to say about it, and a name
// that a certificate can have.
func (r *reader) checkUpstreamTLS(u *Upstream, instance string) {
	for _, name := range []string{"server_name", "ca"} {
		if at, set := r.seen[instance+"."+name]; set && !u.TLS && !r.failed(instance+".tls") {
			r.fail(at, instance+"."+name, fault{
				fmt.Sprintf("`%s` is about TLS, which is off for this upstream", name),
				"add tls = true, or leave it out"})
		}
	}
	at, set := r.seen[instance+".tls"]
	if set && u.TLS && u.ServerName == "" && UnixPath(u.Address) != "" {
		r.fail(at, instance+".tls", fault{
			"a Unix socket is no name that a certificate could have", "add server_name = \"...\""})
	}
}

// checkServerName accepts what a certificate can be for.
func checkServerName(text string) *fault {
	if _, err := netip.ParseAddr(text); err == nil || hostName(text) {
		return nil
	}
	return &fault{fmt.Sprintf("%s is neither a host name nor an IP address", quoted(text)),
		`write one such as "app.example.com"`}
}

// checkProtocol accepts the name of a protocol (RFC 7301 section 3.1).
func checkProtocol(text string) *fault {
	if text == "" || len(text) > 255 {
		return &fault{"the name of a protocol has 1 to 255 bytes", `write one such as "h2" or "mqtt"`}
	}
	return nil
}
