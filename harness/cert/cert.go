// Package cert makes the certificate that every subject of a run serves, and
// the load's side of it: TLS 1.3 with one cipher and one curve, so that no
// subject is measured with cheaper cryptography than another. It refuses to
// verify chains: the load knows the one certificate that is right, byte for
// byte. An Identity is immutable and may be shared between goroutines.
package cert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"atlas/scenarios"
)

// What every handshake agrees on, in OpenSSL's words. The load offers nothing
// else, and the configurations of the subjects ask for the same.
const (
	Protocol = "TLSv1.3"
	Cipher   = "TLS_AES_128_GCM_SHA256"
	Curve    = "X25519"
)

// cipher is Cipher as Go knows it. Go's client cannot offer one cipher alone:
// an answer with another is an error.
const cipher = tls.TLS_AES_128_GCM_SHA256

// validity is long enough for no server to warn of the end.
const validity = 90 * 24 * time.Hour

// Identity is one certificate with its key, as files.
type Identity struct {
	Kind   scenarios.Key
	Chain  string // path of the certificate
	Key    string // path of the private key
	Bundle string // path of both in one file, as HAProxy wants them
	leaf   []byte
}

// Make writes a fresh self-signed certificate for 127.0.0.1 and localhost into
// dir, which exists.
func Make(dir string, kind scenarios.Key) (*Identity, error) {
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "Atlas lab"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	i := &Identity{
		Kind:   kind,
		Chain:  filepath.Join(dir, string(kind)+".crt"),
		Key:    filepath.Join(dir, string(kind)+".key"),
		Bundle: filepath.Join(dir, string(kind)+".pem"),
		leaf:   leaf,
	}
	chainText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return i, errors.Join(
		os.WriteFile(i.Chain, chainText, 0o644),
		os.WriteFile(i.Key, keyText, 0o600),
		os.WriteFile(i.Bundle, append(chainText, keyText...), 0o600),
	)
}

const rsaBits = 2048

func newKey(kind scenarios.Key) (crypto.Signer, error) {
	switch kind {
	case scenarios.ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case scenarios.RSA:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return nil, fmt.Errorf("no key of kind %q", kind)
}

// Client returns a configuration that accepts this certificate and nothing
// else, and only the handshake that the lab measures. It resumes no session
// unless the caller gives it a cache.
func (i *Identity) Client() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
		// The chain is not looked at because the leaf itself is known.
		InsecureSkipVerify: true,
		VerifyConnection:   i.check,
	}
}

// check runs in full and in resumed handshakes.
func (i *Identity) check(state tls.ConnectionState) error {
	if len(state.PeerCertificates) != 1 || !bytes.Equal(state.PeerCertificates[0].Raw, i.leaf) {
		return errors.New("a certificate other than the lab's")
	}
	if state.CipherSuite != cipher {
		return fmt.Errorf("cipher %s, want %s", tls.CipherSuiteName(state.CipherSuite), Cipher)
	}
	return nil
}

// OpenSSL returns a configuration file for a client on OpenSSL that can be
// told no settings of its own, wrk for one: OPENSSL_CONF names it.
func OpenSSL() string {
	return fmt.Sprintf(`openssl_conf = lab
[lab]
ssl_conf = modules
[modules]
system_default = client
[client]
MinProtocol = %s
Ciphersuites = %s
Groups = %s
`, Protocol, Cipher, Curve)
}
