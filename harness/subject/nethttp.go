package subject

import (
	"context"
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
		program: func(p Programs) (string, error) { return p.Harness, nil },
		argv: func(p place) []string {
			if p.Proxy() {
				return []string{"serve-peer", "-listen", p.Address(), "-upstream", p.Origin}
			}
			return []string{"serve-peer", "-listen", p.Address(), "-root", p.Root}
		},
	}
}

// upstreamConnsMax is what the nginx templates keep alive, too.
const upstreamConnsMax = 1024

// ServePeer is the process behind go-nethttp: it forwards to upstream, or
// serves the files below root if upstream is "", until ctx ends.
func ServePeer(ctx context.Context, address, root, upstream string) error {
	if upstream == "" {
		return origin.ServeHandler(ctx, address, http.FileServer(http.Dir(root)))
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: upstream})
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: upstreamConnsMax, DisableCompression: true},
	}
	return origin.ServeHandler(ctx, address, proxy)
}
