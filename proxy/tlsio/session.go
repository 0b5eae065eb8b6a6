package tlsio

import "atlas/proxy/accesslog"

// Session is what is worth logging of the connection. It is found out when it is
// asked for first.
func (c *Conn) Session() *accesslog.TLS {
	if c.session == nil {
		state := c.tls.ConnectionState()
		c.session = &accesslog.TLS{
			Version: state.Version, Cipher: state.CipherSuite, Resumed: state.DidResume,
			ServerName: state.ServerName, Handshake: c.shook,
		}
		if len(state.PeerCertificates) > 0 {
			c.session.Subject = state.PeerCertificates[0].Subject.String()
		}
	}
	return c.session
}
