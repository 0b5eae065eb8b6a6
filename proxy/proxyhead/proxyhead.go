// Package proxyhead is the PROXY protocol, versions 1 and 2: the few bytes in
// front of a connection in which a proxy says between whom it has been asked to
// connect (HAProxy's doc/proxy-protocol.txt).
//
// It trusts nobody by itself: whose word counts is configured. It does not read
// what a header says beside addresses, and passes nothing of it on.
//
// Parsing and writing bytes is go-proxyproto's; that reads from a stream that may
// block, so here it only ever gets a header that is complete. A Parser and a
// Handler belong to one worker. Nothing of the bytes that are parsed is kept.
package proxyhead

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// Version is one of the protocol, by its number; 0 is none.
type Version uint8

// The versions.
const (
	V1 Version = 1 // a line
	V2 Version = 2 // binary
)

// Header is what a header says. Where the addresses are invalid the connection is
// the proxy's own, or it does not know them.
type Header struct {
	From, To netip.AddrPort // the client, and what it has connected to
	// TLS is what the client has asked for and proved in its handshake; nil: it speaks
	// plain. It is written only, by version 2.
	TLS *tls.ConnectionState
}

const (
	lineMax  = 107 // of version 1, with its CRLF
	fixed    = 16  // of version 2, before what it says the length of
	bytesMax = fixed + 4096
)

var (
	lineStart  = []byte("PROXY ")
	signature2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// Errors of Parse.
var (
	ErrShort   = errors.New("the PROXY header has not arrived completely")
	errNone    = errors.New("no PROXY header")
	errLong    = errors.New("the PROXY header is too long")
	errFields  = errors.New("the PROXY header has broken fields behind its addresses")
	errChanged = errors.New("the PROXY header has another checksum than it says")
)

// Parser reads headers.
type Parser struct {
	source bytes.Reader
	in     *bufio.Reader
}

// Parse reads the header at the start of b.
//
//	n > 0, nil     it is b[:n]
//	0, ErrShort    valid so far; call again with the same bytes plus more
//	0, another     never to become valid
func (p *Parser) Parse(b []byte) (n int, h Header, err error) {
	n, err = length(b)
	if err != nil {
		return 0, Header{}, err
	}
	head := b[:n]
	if head[0] == signature2[0] {
		const proxied, unknown = 0x21, 0x00
		if head[12] == proxied && head[13] == unknown {
			return n, Header{}, nil // HAProxy says so of a client on a Unix socket
		}
		if err := checkFields(head); err != nil {
			return 0, Header{}, err
		}
	}
	if p.in == nil {
		p.in = bufio.NewReaderSize(&p.source, lineMax)
	}
	p.source.Reset(head)
	p.in.Reset(&p.source)
	said, err := proxyproto.Read(p.in)
	if err != nil {
		return 0, Header{}, fmt.Errorf("PROXY header: %w", err)
	}
	if from, to, ok := said.TCPAddrs(); ok && said.Command.IsProxy() {
		h.From, h.To = unmapped(from), unmapped(to)
	}
	return n, h, nil
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	at := a.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// length is how long the header is.
func length(b []byte) (int, error) {
	switch {
	case begins(b, lineStart):
		if end := bytes.IndexByte(b[:min(len(b), lineMax)], '\n'); end >= 0 {
			return end + 1, nil
		}
		if len(b) >= lineMax {
			return 0, errLong
		}
		return 0, ErrShort
	case begins(b, signature2):
		if len(b) < fixed {
			return 0, ErrShort
		}
		n := fixed + int(binary.BigEndian.Uint16(b[fixed-2:]))
		switch {
		case n > bytesMax:
			return 0, errLong
		case len(b) < n:
			return 0, ErrShort
		}
		return n, nil
	}
	return 0, errNone
}

// begins reports that b begins with a start, or may come to.
func begins(b, start []byte) bool {
	n := min(len(b), len(start))
	return bytes.Equal(b[:n], start[:n])
}

// checkFields looks at what follows the addresses of a version 2 header: types,
// lengths, values; and at the checksum, if one of them is that.
func checkFields(head []byte) error {
	const local, checksum = 0, 0x03
	if head[12]&0xf == local {
		return nil // all of it is to be ignored
	}
	at := fixed + [16]int{1: 12, 2: 36, 3: 216}[head[13]>>4] // addresses of IPv4, IPv6, Unix
	for at < len(head) {
		if at+3 > len(head) {
			return errFields
		}
		size := int(binary.BigEndian.Uint16(head[at+1:]))
		value := at + 3
		if at = value + size; at > len(head) {
			return errFields
		}
		if head[value-3] == checksum && size == 4 {
			sum := crc32.Update(0, castagnoli, head[:value])
			sum = crc32.Update(sum, castagnoli, make([]byte, 4))
			sum = crc32.Update(sum, castagnoli, head[at:])
			if sum != binary.BigEndian.Uint32(head[value:]) {
				return errChanged
			}
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends a header. One without addresses says that the connection is our
// own.
func Append(b []byte, v Version, h Header) ([]byte, error) {
	said := &proxyproto.Header{
		Version: byte(v), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC,
	}
	if h.From.IsValid() && h.To.IsValid() {
		said = proxyproto.HeaderProxyFromAddrs(byte(v), net.TCPAddrFromAddrPort(h.From), net.TCPAddrFromAddrPort(h.To))
	}
	if v == V2 && h.TLS != nil {
		fields, err := fieldsOf(h.TLS)
		if err == nil {
			err = said.SetTLVs(fields)
		}
		if err != nil {
			return b, err
		}
	}
	text, err := said.Format()
	return append(b, text...), err
}
