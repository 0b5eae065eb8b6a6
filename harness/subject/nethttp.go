package subject

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"

	"atlas/harness/origin"
)

// netHTTP returns the peer that every machine with the harness has.
func netHTTP(name, about string) Subject {
	return Subject{
		Name:    name,
		About:   about,
		kinds:   everything,
		program: func(p Programs) (string, error) { return p.Harness, nil },
		argv: func(p place) []string {
			argv := []string{"serve-peer", "-listen", p.Address(), "-root", p.Root}
			switch {
			case p.Proxy():
				argv = []string{"serve-peer", "-listen", p.Address(), "-upstream", p.Origin}
			case p.TCP():
				argv = []string{"serve-peer", "-listen", p.Address(), "-tunnel", p.Origin}
			}
			if p.Identity != nil {
				argv = append(argv, "-cert", p.Identity.Chain, "-key", p.Identity.Key)
			}
			return argv
		},
	}
}

// Peer is the process behind go-nethttp. It does the first kind of work whose
// field is set.
type Peer struct {
	Address   string // to listen on
	Tunnel    string // address to forward bytes to
	Upstream  string // address to forward requests to
	Root      string // directory of files to serve
	Cert, Key string // paths; "" for plain connections
}

// upstreamConnsMax is what the nginx templates keep alive, too.
const upstreamConnsMax = 1024

// Serve works until ctx ends.
func (p Peer) Serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", p.Address)
	if err != nil {
		return err
	}
	if p.Cert != "" {
		pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		listener = tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{pair}, CurvePreferences: []tls.CurveID{tls.X25519},
		})
	}
	if p.Tunnel != "" {
		return tunnel(ctx, listener, p.Tunnel)
	}
	if p.Upstream == "" {
		return origin.ServeHandler(ctx, listener, http.FileServer(http.Dir(p.Root)))
	}
	return origin.ServeHandler(ctx, listener, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: p.Upstream})
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: upstreamConnsMax, DisableCompression: true},
	})
}

// tunnel forwards every connection until ctx ends, which ends them all with
// the process.
func tunnel(ctx context.Context, listener net.Listener, upstream string) error {
	defer context.AfterFunc(ctx, func() {
		_ = listener.Close() // makes Accept return
	})()
	for {
		client, err := listener.Accept()
		if err != nil {
			return ctx.Err()
		}
		go forward(client, upstream)
	}
}

// forward copies both ways until each has ended; Go splices where both sides
// are plain TCP.
func forward(client net.Conn, upstream string) {
	defer client.Close()
	server, err := net.Dial("tcp", upstream)
	if err != nil {
		return // the client sees its connection closed
	}
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(server, client) // either side's end is the tunnel's
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server) // as above
	_ = client.Close()             // ends the other copy, too
	<-done
}
