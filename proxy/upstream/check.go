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

	"atlas/proxy/proxyhead"
)

// Check is how an upstream's health is checked: by a GET to each of its
// addresses, on a connection of its own, that is answered with a status of 200
// to 399. Without a Path it is enough that there is a connection.
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
func (g *Group) check(ctx context.Context, name string) {
	for {
		g.mu.Lock()
		m := g.member(name)
		g.mu.Unlock()
		if m == nil {
			return // ctx has just ended
		}
		var probes sync.WaitGroup
		for _, e := range g.Endpoints() {
			if e.Name == name {
				probes.Go(func() { g.probe(ctx, m, e) })
			}
		}
		probes.Wait()
		// Several proxies that were started at once must not ask at once for ever.
		jitter := 0.9 + rand.Float64()/5
		wait := time.NewTimer(time.Duration(float64(m.Check.Interval) * jitter))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// probe checks one endpoint once and notes what came of it.
func (g *Group) probe(ctx context.Context, m *member, e *Endpoint) {
	check := m.Check
	err := ask(ctx, m, e)
	if ctx.Err() == nil {
		e.past.note(err)
	}
	switch {
	case ctx.Err() != nil: // the upstream has ended, too
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
func ask(ctx context.Context, m *member, e *Endpoint) error {
	check := m.Check
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()
	if check.Path == "" {
		conn, err := dialCheck(ctx, m, e)
		if err == nil {
			_ = conn.Close() // it has told all that it could
		}
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialCheck(ctx, m, e) },
	}
	defer transport.CloseIdleConnections()
	scheme := "http://"
	if client := m.TLS; client != nil {
		scheme, transport.TLSClientConfig = "https://", client.Config().Clone()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+hostOf(m, e)+check.Path, nil)
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

// hostOf is how the upstream is called in a request.
func hostOf(m *member, e *Endpoint) string {
	switch {
	case e.Address.Path != "":
		return "localhost"
	case m.Host != "":
		return net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port)))
	}
	return e.Address.AddrPort.String()
}

// dialCheck connects, and says that it does so for nobody where that has to be
// said.
func dialCheck(ctx context.Context, m *member, e *Endpoint) (net.Conn, error) {
	network, address := "tcp", e.Address.AddrPort.String()
	if e.Address.Path != "" {
		network, address = "unix", e.Address.Path
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil || m.SendProxy == 0 {
		return conn, err
	}
	head, err := proxyhead.Append(nil, m.SendProxy, proxyhead.Header{})
	if err == nil {
		_, err = conn.Write(head)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
