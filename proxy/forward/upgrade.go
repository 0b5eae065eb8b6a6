package forward

import (
	"bytes"
	"errors"
	"io"
	"time"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
)

const (
	// tunnelIdleDefault is how long a tunnel may be silent.
	tunnelIdleDefault = time.Hour
	// tunnelGrace is the same once one direction has ended: who has nothing left
	// to say mostly is gone.
	tunnelGrace = 30 * time.Second
)

var (
	// errUpgraded is an upstream that switches protocols although we have not
	// asked it to.
	errUpgraded = errors.New("101 without a request to upgrade")
	// errUpgrade is one that does not say to which of those that we asked for.
	errUpgrade = errors.New("101 that switches to nothing that was asked for")
)

// appendUpgrade asks the upstream to switch to what the client offers (RFC 9110
// section 7.8), but for HTTP/2: its requests would go past us.
func (t *transfer) appendUpgrade(b []byte, r *h1.Request) []byte {
	start := len(b)
	b = append(b, "Connection: upgrade\r\nUpgrade: "...)
	offer := len(b)
	for _, f := range r.Fields() {
		if f.Key != h1.KeyUpgrade {
			continue
		}
		for l := h1.Items(f.Value); l.Next(); {
			if !isOffer(l.Item) {
				continue
			}
			if len(b) > offer {
				b = append(b, ", "...)
			}
			b = append(b, l.Item...)
		}
	}
	if len(b) == offer {
		return b[:start]
	}
	t.offer, t.offerEnd = offer, len(b)
	return append(b, "\r\n"...)
}

// isOffer reports that a member of Upgrade is a protocol that we may switch to:
// anything but another HTTP, whatever version of HTTP/2 it names.
func isOffer(protocol []byte) bool {
	name, version, hasVersion := bytes.Cut(protocol, []byte("/"))
	if !h1.ValidName(name) || hasVersion && !h1.ValidName(version) {
		return false
	}
	isHTTP2 := len(name) >= 2 && h1.EqualFold(name[:2], "h2")
	return !isHTTP2 && !h1.EqualFold(name, "http")
}

// switches relays a 101 whose head is the first n bytes of the upstream's Peek.
func (t *transfer) switches(n int) error {
	resp := &t.handler.response
	if t.offer == 0 {
		return errUpgraded
	}
	if !resp.Upgrade || !t.offered(resp) {
		return errUpgrade
	}
	t.x.Trip.FirstByte = time.Duration(t.x.Loop.Now() - t.sent)
	t.handler.pool.Succeeded(t.target, t.x.Trip.FirstByte)
	t.switched, t.reusable = true, false
	if err := t.x.Switch(resp); err != nil {
		return clientLost{sendResponse, err}
	}
	t.up.Consume(n)
	return nil
}

// offered reports that a 101 switches to what was asked for.
func (t *transfer) offered(resp *h1.Response) (some bool) {
	for _, f := range resp.Fields() {
		if f.Key != h1.KeyUpgrade {
			continue
		}
		for l := h1.Items(f.Value); l.Next(); {
			if !h1.HasItem(t.request[t.offer:t.offerEnd], l.Item) {
				return false
			}
			some = true
		}
	}
	return some
}

// endUpload lets the rest of a request body go to an upstream that has switched
// already, and ends the watch for the client that follows.
func (t *transfer) endUpload(upload loop.Task) error {
	t.answered = true
	if t.watching {
		t.x.Client.SetReadDeadline(loop.Past)
	}
	err := t.x.Flush() // the client may have to see the 101 first
	if joined := upload.Join(); joined != nil {
		return joined
	}
	if err != nil {
		return clientLost{sendResponse, err}
	}
	t.x.Body.End()
	switch {
	case t.uploaded:
		return nil
	case t.uploadErr != nil:
		return t.uploadErr
	}
	return io.ErrUnexpectedEOF // the upstream does not take it
}

// tunnel passes on what both sides say in the other protocol. That one of them
// breaks it off is between the two; we only count it.
func (t *transfer) tunnel() {
	x := t.x
	t.request = nil // a tunnel may be silent for an hour, and there may be many
	ending := relay.Tunnel([2]loop.Conn{x.Client, t.up.Conn}, &t.handler.buffers,
		relay.Silence{Idle: t.handler.config.Tunnel, Grace: tunnelGrace})
	x.Tunnelled(ending.Moved[0], ending.Moved[1])
	if ending.Err == nil {
		return
	}
	switch {
	case ending.Err == loop.ErrDeadline, ending.Err == loop.ErrStopped:
	case ending.Side == 0:
		x.Stats.FailClient(stats.ClientReset)
	default:
		x.Stats.FailUpstream(stats.UpstreamReset)
	}
	x.Abort()
}
