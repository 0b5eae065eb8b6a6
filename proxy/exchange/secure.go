package exchange

import "atlas/proxy/accesslog"

// secure is a connection on which clients speak TLS. It is a thing of the
// connection, and not of the server: configurations come and go meanwhile.
type secure interface {
	ClientCert() []byte
	Session() *accesslog.TLS
}

// Scheme is what the client's connection speaks, as it stands in
// X-Forwarded-Proto.
func (x *Exchange) Scheme() string {
	if _, is := x.Client.(secure); is {
		return "https"
	}
	return "http"
}

// ClientCert is the certificate with which the client has proved who it is, as
// the value of the field Client-Cert (RFC 9440), or nil. It stays valid for the
// exchange.
func (x *Exchange) ClientCert() []byte {
	if c, is := x.Client.(secure); is {
		return c.ClientCert()
	}
	return nil
}
