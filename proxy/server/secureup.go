package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"atlas/proxy/config"
	"atlas/proxy/tlsio"
)

// authorities reads those of a file, or the system's: the first verification would
// do that on a worker. id is another one for others.
func authorities(file string) (pool *x509.CertPool, id string, err error) {
	if file == "" {
		pool, err = x509.SystemCertPool()
		return pool, "", err
	}
	text, err := readRegular(file)
	if err != nil {
		return nil, "", err
	}
	pool, err = parsePool(text)
	return pool, fmt.Sprintf("%x", sha256.Sum256(text)), err
}

// trustOf are the files with the authorities of all upstreams.
func trustOf(cfg *config.Config) (f source) {
	for i := range cfg.Upstreams {
		if u := &cfg.Upstreams[i]; cfg.Listen.Mode != config.Static && u.TLS && u.CA != "" {
			f.files = append(f.files, u.CA)
		}
	}
	return f
}

// upstreamTLS is how an upstream is spoken to; nil is in plain. trust says what its
// certificate has to be.
func upstreamTLS(c *config.Upstream, mode config.Mode) (client *tlsio.Client, trust string, err error) {
	if !c.TLS {
		return nil, "", nil
	}
	pool, id, err := authorities(c.CA)
	if err != nil {
		return nil, "", fmt.Errorf("[[upstreams]] %s: ca: %w", c.Name, err)
	}
	cfg := &tls.Config{
		RootCAs: pool, ServerName: c.ServerName, MinVersion: tls.VersionTLS12,
	}
	if mode == config.HTTP {
		cfg.NextProtos = alpnHTTP
	}
	if cfg.ServerName == "" {
		cfg.ServerName = c.Address
	}
	return tlsio.NewClient(cfg), cfg.ServerName + " " + id, nil
}
