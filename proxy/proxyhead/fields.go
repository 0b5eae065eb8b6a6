package proxyhead

import (
	"crypto/tls"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// valueMax bounds what a client has a say in: names of hosts have 253 bytes and
// protocols 255, HAProxy takes no longer ones, and nobody takes a header of any
// length. What is longer is left out, not cut: half of a name is another name.
const valueMax = 255

// fieldsOf are what version 2 says of a client's TLS (sections 2.2.1, 2.2.2 and
// 2.2.6 of the specification).
func fieldsOf(state *tls.ConnectionState) ([]proxyproto.TLV, error) {
	var fields []proxyproto.TLV
	fields = addField(fields, proxyproto.PP2_TYPE_ALPN, state.NegotiatedProtocol)
	fields = addField(fields, proxyproto.PP2_TYPE_AUTHORITY, state.ServerName)
	said, err := clientOf(state).Marshal()
	return append(fields, said), err
}

// unverified is no reason of anybody's: the specification wants what is not zero.
const unverified = 1

// clientOf is the field about TLS itself. A certificate that is there is a good
// one: with another the handshake fails.
func clientOf(state *tls.ConnectionState) tlvparse.PP2SSL {
	said := tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: unverified}
	said.TLV = addField(said.TLV, proxyproto.PP2_SUBTYPE_SSL_VERSION, versionNames[state.Version])
	said.TLV = addField(said.TLV, proxyproto.PP2_SUBTYPE_SSL_CIPHER, cipherName(state.CipherSuite))
	if len(state.VerifiedChains) == 0 {
		return said
	}
	said.Verify = 0
	said.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
	if !state.DidResume {
		said.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN
	}
	said.TLV = addField(said.TLV, proxyproto.PP2_SUBTYPE_SSL_CN, state.PeerCertificates[0].Subject.CommonName)
	return said
}

func addField(fields []proxyproto.TLV, kind proxyproto.PP2Type, value string) []proxyproto.TLV {
	if value == "" || len(value) > valueMax {
		return fields
	}
	return append(fields, proxyproto.TLV{Type: kind, Value: []byte(value)})
}

// Versions and cipher suites have the names that OpenSSL has for them, as in
// the specification and in what HAProxy sends.

var versionNames = map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}

func cipherName(id uint16) string {
	if name, differs := cipherNames12[id]; differs {
		return name
	}
	return tls.CipherSuiteName(id) // those of TLS 1.3 have one name only
}

var cipherNames12 = map[uint16]string{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         "ECDHE-RSA-AES128-GCM-SHA256",
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       "ECDHE-ECDSA-AES256-GCM-SHA384",
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         "ECDHE-RSA-AES256-GCM-SHA384",
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-RSA-CHACHA20-POLY1305",
}
