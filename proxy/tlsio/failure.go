package tlsio

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

// reasonOf sorts the errors of a handshake. crypto/tls has types for few of them:
// the others are told by their words, which TestReasons compares with those of
// the Go version at hand. Words that are not known are a reason of their own.
func reasonOf(err error) stats.HandshakeError {
	var header tls.RecordHeaderError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case err == loop.ErrDeadline:
		return stats.HandshakeTimeout
	case err == loop.ErrStopped, err == loop.ErrClosed, err == io.EOF, err == io.ErrUnexpectedEOF:
		return stats.HandshakeGone
	case errors.As(err, &header) && strings.Contains(header.Msg, "does not look like"):
		return stats.HandshakePlain
	case errors.As(err, &header) && (strings.Contains(header.Msg, "version") || strings.Contains(header.Msg, "SSLv2")):
		return stats.HandshakeVersion
	case errors.As(err, &header):
		return stats.HandshakeMalformed
	case errors.As(err, &op) && op.Op == "remote error":
		return stats.HandshakeRefused
	case errors.As(err, &cert), errors.As(err, &authority):
		return stats.HandshakeCertificate
	}
	text := err.Error()
	for _, row := range reasonWords {
		if strings.Contains(text, row.words) {
			return row.reason
		}
	}
	if !strings.Contains(text, "tls: ") {
		return stats.HandshakeGone // an errno of the connection below
	}
	return stats.HandshakeMalformed
}

var reasonWords = []struct {
	words  string
	reason stats.HandshakeError
}{
	{"unsupported versions", stats.HandshakeVersion},
	{"protocol version", stats.HandshakeVersion},
	{"application protocol", stats.HandshakeProtocol},
	{"no cipher suite supported", stats.HandshakeCipher},
	{"no key exchanges supported", stats.HandshakeCipher},
	{"no supported elliptic curves", stats.HandshakeCipher},
	{"didn't provide a certificate", stats.HandshakeCertificate},
	{"client certificate", stats.HandshakeCertificate},
	{"any of the certificate's signature algorithms", stats.HandshakeCipher},
	{"failed to sign", stats.HandshakeOurs},
}

// speaksHTTP reports that what came instead of a handshake begins like a request.
func speaksHTTP(err error) bool {
	var header tls.RecordHeaderError
	if !errors.As(err, &header) {
		return false
	}
	switch string(header.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO", "PATCH":
		return true
	}
	return false
}
