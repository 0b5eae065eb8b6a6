package tlsio

import (
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"io"
	"strings"

	"atlas/proxy/loop"
)

// Certificates chooses a certificate by the name that a client asks for. It
// never changes, so any worker may ask it.
type Certificates struct {
	first  *tls.Certificate // for names that no certificate has, and clients that name none
	byName map[string][]*tls.Certificate
}

// NewCertificates indexes certificates, whose Leaf is set, by their names. The
// first is the default.
func NewCertificates(certs []*tls.Certificate) *Certificates {
	s := &Certificates{first: certs[0], byName: make(map[string][]*tls.Certificate)}
	for _, cert := range certs {
		for _, name := range cert.Leaf.DNSNames {
			name = strings.ToLower(name)
			s.byName[name] = append(s.byName[name], cert)
		}
	}
	return s
}

// Choose is the GetCertificate of a tls.Config: an exact name goes before a
// wildcard, and of several certificates with a name, such as an RSA and an ECDSA
// one, the first that the client can check.
func (s *Certificates) Choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	found := s.byName[name]
	if found == nil {
		if _, domain, ok := strings.Cut(name, "."); ok {
			found = s.byName["*."+domain]
		}
	}
	cert := s.first
	if len(found) > 0 {
		cert = found[0]
	}
	for _, c := range found {
		if len(found) == 1 || hello.SupportsCertificate(c) == nil {
			cert = c
			break
		}
	}
	return offWorker(cert, hello), nil
}

// offWorker has an RSA key used by a helper: with 2048 bits a signature takes 0.6
// ms and more, for which the other connections of the worker would wait. One of
// ECDSA P-256 takes 20 us, about what the way to a helper and back takes.
func offWorker(cert *tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	key, slow := cert.PrivateKey.(*rsa.PrivateKey)
	w, ours := hello.Conn.(*wire)
	if !slow || !ours {
		return cert
	}
	moved := *cert
	moved.PrivateKey = &offSigner{key, w.conn.raw.Loop()}
	return &moved
}

// offSigner is a key whose Sign waits, in the task of a handshake, for a helper.
type offSigner struct {
	key  crypto.Signer
	loop loop.Loop
}

func (s *offSigner) Public() crypto.PublicKey { return s.key.Public() }

func (s *offSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	s.loop.Off(func() { sig, err = s.key.Sign(rand, digest, opts) })
	return sig, err
}
