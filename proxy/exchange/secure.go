package exchange

// Scheme is what the client's connection speaks, as it stands in
// X-Forwarded-Proto.
func (x *Exchange) Scheme() string {
	if x.server.config.Secure {
		return "https"
	}
	return "http"
}

// ClientCert is the certificate with which the client has proved who it is, as
// the value of the field Client-Cert (RFC 9440), or nil. It stays valid for the
// exchange.
func (x *Exchange) ClientCert() []byte {
	if c, ok := x.Client.(interface{ ClientCert() []byte }); ok {
		return c.ClientCert()
	}
	return nil
}
