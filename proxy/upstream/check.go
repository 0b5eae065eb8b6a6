package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Check is how an upstream's health is checked: by a GET to each of its
// addresses, on a connection of its own, that is answered with a status of 200
// to 399.
type Check struct {
	Path     string
	Interval time.Duration // give or take a tenth
	Timeout  time.Duration
	Fall     int // failures in a row until an endpoint is down
	Rise     int // successes in a row until it is up again
}

// check checks all endpoints of an upstream, again and again. It runs on a
// goroutine beside the workers, with Go's own client: what it costs does not
// matter, and that it is somebody else's HTTP does.
func (g *Group) check(ctx context.Context, u *Upstream) {
	for {
		var probes sync.WaitGroup
		for _, e := range g.Endpoints() {
			if e.upstream == u {
				probes.Go(func() { g.probe(ctx, e) })
			}
		}
		probes.Wait()
		// Several proxies that were started at once must not ask at once for ever.
		jitter := 0.9 + rand.Float64()/5
		wait := time.NewTimer(time.Duration(float64(u.Check.Interval) * jitter))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// probe checks one endpoint once and notes what came of it.
func (g *Group) probe(ctx context.Context, e *Endpoint) {
	check := e.upstream.Check
	err := ask(ctx, e)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		e.misses = 0
		if e.passes++; e.passes >= check.Rise {
			g.settle(e, false, nil)
		}
	default:
		e.passes = 0
		if e.misses++; e.misses >= check.Fall {
			g.settle(e, true, err)
		}
	}
}

// ask says what is wrong with an endpoint, or nil.
func ask(ctx context.Context, e *Endpoint) error {
	check := e.upstream.Check
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()
	network, address, host := "tcp", e.Address.AddrPort.String(), e.Address.AddrPort.String()
	switch {
	case e.Address.Path != "":
		network, address, host = "unix", e.Address.Path, "localhost"
	case e.upstream.Host != "":
		host = net.JoinHostPort(e.upstream.Host, strconv.Itoa(int(e.upstream.Port)))
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	scheme := "http://"
	if client := e.upstream.TLS; client != nil {
		scheme, transport.TLSClientConfig = "https://", client.Config().Clone()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+host+check.Path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "atlas health check")
	resp, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // the connection ends with it
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
