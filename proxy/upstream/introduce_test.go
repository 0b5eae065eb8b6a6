package upstream

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/proxyhead"
)

// An upstream that wants to know is told for whom a connection is, before
// anything else; and that one which is kept for anybody is our own.
func TestIntroduce(t *testing.T) {
	const line, own = "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n", "PROXY UNKNOWN\r\n"
	client := proxyhead.Header{
		From: netip.MustParseAddrPort("192.0.2.7:40000"), To: netip.MustParseAddrPort("198.51.100.1:443"),
	}
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1, SendProxy: proxyhead.V1}}
		r.to(r.Script(func(p *looptest.Peer, nth int) {
			p.Expect([]string{line, own, own}[nth] + "hello")
			p.Send("hello yourself")
			p.Gone()
		}).Address)
		say := func(c *Conn, err error) {
			if !assert.NoError(t, err) {
				return
			}
			_, err = c.Write([]byte("hello"))
			assert.NoError(t, err)
			assert.NoError(t, c.Flush())
			assert.NoError(t, c.Fill())
			assert.Equal(t, "hello yourself", string(c.Peek()))
			c.Drop()
		}
		r.Task(func() {
			target := r.pool.targets[0]
			say(r.pool.TakeFor(target, client))
			say(r.pool.Take(target, false))
			say(r.pool.TakeFor(target, proxyhead.Header{}))
			assert.Zero(t, r.pool.Idle())
		})
	})
}

// A check without a path is a connection, which says that it is our own.
func TestCheckConnects(t *testing.T) {
	e := looptest.New(t, loop.Config{Engine: loop.Netpoll, CPU: -1})
	heads := make(chan string, 1)
	s := e.Script(func(p *looptest.Peer, _ int) {
		text, err := p.Rest()
		assert.NoError(t, err)
		heads <- text
	})
	m := &member{Upstream: Upstream{Check: &Check{Timeout: patience}}}
	at := &Endpoint{Address: s.Address}
	assert.NoError(t, ask(t.Context(), m, at))
	assert.Empty(t, <-heads)
	m.SendProxy = proxyhead.V2
	assert.NoError(t, ask(t.Context(), m, at))
	assert.Equal(t, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", <-heads)

	m.Check.Timeout = 50 * time.Millisecond
	assert.ErrorContains(t, ask(t.Context(), m, &Endpoint{Address: e.Full()}), "i/o timeout")
	refused := loop.Address{AddrPort: netip.MustParseAddrPort("127.0.0.1:1")}
	assert.ErrorContains(t, ask(t.Context(), m, &Endpoint{Address: refused}), "refused")
}
