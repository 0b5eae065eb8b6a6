// Package limit keeps account of clients: how many connections each address has
// open, and how many requests each client has made of late.
//
// It refuses nobody, answers nothing and reads no clock: callers say when it is
// and what a refusal comes to. It never grows with the number of clients that
// there might be: the account of requests has one size, and that of connections
// has an entry only for addresses that have one open.
//
// All workers share both, and any goroutine may call at any time. A reload
// changes the bounds of what exists; what clients have used stays known.
package limit

import "net/netip"

// networkBits is how much of an IPv6 address counts: a host has a whole /64 to
// choose addresses from.
const networkBits = 64

// Client is the address that stands for a client: an IPv4 address, or the network
// of an IPv6 one.
func Client(address netip.Addr) netip.Addr {
	address = address.Unmap()
	if !address.Is6() {
		return address
	}
	network, err := address.WithZone("").Prefix(networkBits)
	if err != nil {
		return address // it has 128 bits, so there is no error
	}
	return network.Addr()
}
