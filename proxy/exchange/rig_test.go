package exchange_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

const patience = 30 * time.Second

// rig is a worker that serves exchanges.
type rig struct {
	*looptest.Env
	address string
	stats   *stats.Stats
}

type handler func(x *exchange.Exchange)

func (h handler) Handle(x *exchange.Exchange) { h(x) }

// serve starts a worker whose exchanges h answers. Time-outs that cfg leaves out
// are patience.
func serve(t testing.TB, engine loop.Engine, cfg exchange.Config, h handler) *rig {
	t.Helper()
	for _, d := range []*time.Duration{&cfg.Header, &cfg.Body, &cfg.Write, &cfg.Idle} {
		if *d == 0 {
			*d = patience
		}
	}
	r := &rig{Env: looptest.New(t, loop.Config{Engine: engine, CPU: -1}), stats: new(stats.Stats)}
	cfg.Stats = r.stats
	r.address = r.Listen(exchange.NewServer(cfg, h))
	return r
}

// site answers by the path of the request, and reads bodies only where it says.
func site(x *exchange.Exchange) {
	switch path := string(x.Request.Path); path {
	case "/echo":
		body := readBody(x)
		text(x, body)
	case "/chunks":
		x.ReleaseHead()
		stream(x, h1.BodyChunked, "some", "more")
	case "/until-close":
		stream(x, h1.BodyClose, "some", "more")
	case "/nothing":
		x.Begin(204, nil)
		_ = x.SendHead(h1.BodyNone, nil)
	case "/silent":
	case "/abort":
		x.Abort()
	case "/panic":
		panic("handler is broken")
	default:
		text(x, path)
	}
}

// text answers 200.
func text(x *exchange.Exchange, body string) {
	x.Begin(200, nil)
	x.Date()
	x.Field([]byte("Content-Length"), fmt.Append(nil, len(body)))
	if x.SendHead(h1.BodyLength, nil) == nil && x.Method != h1.MethodHead {
		_, _ = x.Write([]byte(body)) // the exchange notices where it ends
	}
}

func stream(x *exchange.Exchange, kind h1.BodyKind, pieces ...string) {
	x.Begin(200, []byte("Fine"))
	if x.SendHead(kind, nil) != nil {
		return
	}
	for _, piece := range pieces {
		if _, err := x.Write([]byte(piece)); err != nil {
			return
		}
	}
	_ = x.End(nil)
}

func readBody(x *exchange.Exchange) string {
	var body strings.Builder
	p := make([]byte, 1000)
	for {
		n, err := x.ReadBody(p)
		body.Write(p[:n])
		if err == io.EOF {
			return body.String()
		}
		if err != nil {
			return "failed: " + err.Error()
		}
	}
}

// engines runs a test of the site on both engines.
func engines(t *testing.T, cfg exchange.Config, test func(t *testing.T, r *rig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) { test(t, serve(t, engine, cfg, site)) })
}

// gone waits until the worker has no client left.
func (r *rig) gone() {
	r.Helper()
	r.Eventually("the clients to go", func() bool { return r.Loop.Counters().Open.Load() == 0 })
}

// counted wants the worker to have refused so many requests for this reason.
func (r *rig) counted(want int64, why stats.ClientError) {
	r.Helper()
	assert.Equal(r, want, r.stats.ClientErrors[why].Load(), why.String())
}

func readAll(t *testing.T, resp *http.Response) string {
	body, err := io.ReadAll(resp.Body)
	assert.NoError(t, err)
	return string(body)
}
