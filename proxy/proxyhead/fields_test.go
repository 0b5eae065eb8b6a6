package proxyhead

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// field is one as the specification writes it.
func field(kind byte, value string) string {
	return fmt.Sprintf("%c%c%c%s", kind, 0, byte(len(value)), value)
}

// proved has a state be that of a client with a certificate.
func proved(state tls.ConnectionState, name string) tls.ConnectionState {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	state.PeerCertificates = []*x509.Certificate{cert}
	state.VerifiedChains = [][]*x509.Certificate{{cert}}
	return state
}

// What a client's TLS has settled is written as section 2.2 of the specification
// has it, byte by byte, and read back by somebody else's parser.
func TestFields(t *testing.T) {
	const (
		version13 = "\x21\x00\x07TLSv1.3"
		cipher13  = "\x23\x00\x16TLS_AES_128_GCM_SHA256"
	)
	plain := tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	asks := plain
	asks.ServerName, asks.NegotiatedProtocol = "a.example", "mqtt"
	resumed := proved(plain, "me")
	resumed.DidResume = true
	unchecked := proved(plain, "me")
	unchecked.VerifiedChains = nil
	long := asks
	long.ServerName = strings.Repeat("n", 256)
	for name, row := range map[string]struct {
		state tls.ConnectionState
		want  string
	}{
		"nothing asked for": {plain, field(0x20, "\x01\x00\x00\x00\x01"+version13+cipher13)},
		"a name and a protocol": {asks, field(1, "mqtt") + field(2, "a.example") +
			field(0x20, "\x01\x00\x00\x00\x01"+version13+cipher13)},
		"a certificate": {proved(plain, "me"),
			field(0x20, "\x07\x00\x00\x00\x00"+version13+cipher13+field(0x22, "me"))},
		"a certificate of the session": {resumed,
			field(0x20, "\x05\x00\x00\x00\x00"+version13+cipher13+field(0x22, "me"))},
		"a certificate without a name": {proved(plain, ""), field(0x20, "\x07\x00\x00\x00\x00"+version13+cipher13)},
		"a name that is too long for a certificate": {proved(plain, strings.Repeat("n", 256)),
			field(0x20, "\x07\x00\x00\x00\x00"+version13+cipher13)},
		"a certificate that nobody has checked": {unchecked, field(0x20, "\x01\x00\x00\x00\x01"+version13+cipher13)},
		"a name that is too long": {long, field(1, "mqtt") +
			field(0x20, "\x01\x00\x00\x00\x01"+version13+cipher13)},
		"TLS 1.2": {tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
			field(0x20, "\x01\x00\x00\x00\x01"+field(0x21, "TLSv1.2")+field(0x23, "ECDHE-RSA-AES128-GCM-SHA256"))},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Append(nil, V2, Header{From: client4, To: server4, TLS: &row.state})
			require.NoError(t, err)
			assert.Equal(t, binary2(0x21, 0x11, addresses4+row.want), string(got))
			said, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(got)))
			require.NoError(t, err)
			fields, err := said.TLVs()
			require.NoError(t, err)
			client, found := tlvparse.FindSSL(fields)
			require.True(t, found)
			assert.True(t, client.ClientSSL())
			assert.Equal(t, row.state.VerifiedChains != nil, client.Verified() && client.ClientCertSess())
			assert.Equal(t, row.state.VerifiedChains != nil && !row.state.DidResume, client.ClientCertConn())
			var p Parser
			n, back, err := p.Parse(got)
			require.NoError(t, err)
			assert.Equal(t, len(got), n)
			assert.Equal(t, Header{From: client4, To: server4}, back, "nothing of it is believed")
		})
	}
}

// A health check is our own, whatever clients have.
func TestNoFields(t *testing.T) {
	got, err := Append(nil, V2, Header{})
	require.NoError(t, err)
	assert.Equal(t, binary2(0x20, 0, ""), string(got))
}

// The names of all cipher suites that a server may settle on are OpenSSL's.
func TestCipherNames(t *testing.T) {
	for _, suite := range tls.CipherSuites() {
		name := cipherName(suite.ID)
		if strings.Contains(suite.Name, "_CBC_") {
			continue // never offered
		}
		assert.NotContains(t, name, "_WITH_", "%s needs the name that OpenSSL has for it", suite.Name)
	}
}
