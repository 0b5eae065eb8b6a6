package exchange

import (
	"bytes"
	"net/netip"

	"atlas/proxy/h1"
)

// link is what an Exchange remembers about its connection.
type link struct {
	address netip.Addr // of the peer; invalid for a Unix socket
	text    []byte
	by      *networks // that say whether it is trusted
	trusted bool
	told    bool // an exchange was logged, and the handshake with it
	blank   bool // an empty line stood before the request that is to come
}

func (x *Exchange) link() *link {
	known, ok := x.Client.Attachment().(*link)
	if !ok {
		known = &link{address: x.Client.Remote().Addr(), text: []byte("unknown")} // RFC 7239 section 6.2
		if known.address.IsValid() {
			known.text = known.address.AppendTo(nil)
		}
		x.Client.Attach(known)
	}
	if known.by != x.server.trusted { // the configuration is another one now
		known.by = x.server.trusted
		known.trusted = known.address.IsValid() && known.by.contain(known.address)
	}
	return known
}

// Peer is the address at the other end of the connection without its port,
// "unknown" for a Unix socket. It stays valid for the exchange.
func (x *Exchange) Peer() []byte { return x.link().text }

// Trusted reports that the peer may say for whom it asks.
func (x *Exchange) Trusted() bool { return x.link().trusted }

// ClientAddr is the address of the client itself: the peer's, or, where that is
// trusted, the last one of X-Forwarded-For that is not. It is invalid for a Unix
// socket. Ask first while the head is here; then it is known for the exchange.
func (x *Exchange) ClientAddr() netip.Addr {
	if !x.clientAddr.IsValid() {
		x.clientAddr = x.findClient()
	}
	return x.clientAddr
}

func (x *Exchange) findClient() netip.Addr {
	peer := x.link()
	if !peer.trusted || x.headBytes == 0 || !x.Request.Has(h1.KeyXForwardedFor) {
		return peer.address
	}
	fields := x.Request.Fields()
	for i := len(fields) - 1; i >= 0; i-- {
		if fields[i].Key != h1.KeyXForwardedFor {
			continue
		}
		for rest := fields[i].Value; len(rest) > 0; {
			comma := bytes.LastIndexByte(rest, ',')
			item := bytes.Trim(rest[comma+1:], " \t")
			rest = rest[:max(comma, 0)]
			if len(item) == 0 {
				continue
			}
			address, ok := h1.ParseAddress(item)
			if !ok {
				return peer.address // who is in front of an unknown one may lie
			}
			if !x.server.trusted.contain(address) {
				return address
			}
		}
	}
	return peer.address
}

// networks are those of Config.Trusted. They are all that a connection keeps of a
// Server: it may outlive many.
type networks struct{ prefixes []netip.Prefix }

func (n *networks) contain(address netip.Addr) bool {
	for _, prefix := range n.prefixes {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
