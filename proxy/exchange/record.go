package exchange

import (
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

// account is what is noted of an exchange on its way, for the access log and for
// the histograms. All of it is from clocks and numbers that are at hand: it costs
// a few stores where nobody reads it.
type account struct {
	began    loop.Instant // when the first byte of its request was there
	headed   loop.Instant // when the head of the response was sent; 0: it was not
	answered int          // status that the client got, or 499; 0: none
	bytes    int64        // of the response's body, but those of writer
	sent     int64        // of the response, but those of writer
	received int64        // of the request's head, and in a tunnel
	tunnel   bool
	closed   bool              // it was told of
	record   *accesslog.Record // nil: the log does not want it
}

// open begins the account of an exchange whose first byte is here.
func (x *Exchange) open() {
	x.Trip = accesslog.Trip{}
	x.account = account{began: x.Loop.Now()}
	x.writer.Sent, x.writer.Wire = 0, 0
	if x.server.config.Log.On() {
		if x.paper == nil {
			x.paper = new(accesslog.Record)
		}
		x.account.record = x.paper
		x.paper.Begin(x.Loop.Clock(), accesslog.NoProto)
	}
}

// write notes what is only known as long as the head is here.
func (a *account) write(x *Exchange, head int) {
	a.received = int64(head)
	record := a.record
	if record == nil {
		return
	}
	r := x.Request
	proto := accesslog.HTTP10
	if x.Minor > 0 {
		proto = accesslog.HTTP11
	}
	record.SetProto(proto)
	record.Set(accesslog.Method, r.MethodName)
	record.Set(accesslog.Target, r.Target)
	record.Set(accesslog.Host, r.Host)
	if x.link().trusted {
		record.SetAddress(accesslog.Client, x.ClientAddr())
	}
	fields := r.Fields()
	for i := range fields {
		switch f := &fields[i]; f.Key {
		case h1.KeyReferer:
			record.Set(accesslog.Referer, f.Value)
		case h1.KeyUserAgent:
			record.Set(accesslog.Agent, f.Value)
		case h1.KeyXRequestID:
			record.Set(accesslog.RequestID, f.Value)
		}
	}
}

// writeRaw notes what can be read of bytes that are not a whole request, or none.
func (a *account) writeRaw(raw []byte) {
	a.received = int64(len(raw))
	if a.record == nil || len(raw) == 0 {
		return
	}
	method, target := requestLine(raw)
	a.record.SetString(accesslog.Method, method)
	if target != "" {
		a.record.SetString(accesslog.Target, target)
	}
}

// fail notes why the exchange fails. What a client asks for and does not get is no
// failure.
func (a *account) fail(f *Fault, sent bool) {
	if !sent {
		a.answered = f.Status
	}
	if a.record == nil || a.closed || f.Status < StatusGone && f.Details == "" && f.Status != 408 && !sent {
		return
	}
	why := string(f.Error)
	if f.Status == StatusGone {
		why = accesslog.ClientGone
	}
	a.record.Fail(why, f.Details)
}

// Tunnelled notes what a tunnel has moved that the connection became: bytes from
// the client and to it.
func (x *Exchange) Tunnelled(received, sent int64) {
	x.account.received += received
	x.account.sent += sent
	x.account.bytes += sent
}

// tell closes the account: the exchange is over, but for what is still on its way
// to the client.
func (x *Exchange) tell() {
	a := &x.account
	if a.closed {
		return
	}
	a.closed = true
	now := x.Loop.Now()
	total := time.Duration(now - a.began)
	if x.server.config.Timed && !a.tunnel {
		x.count(total)
	}
	if a.record == nil {
		return
	}
	e := accesslog.Ending{
		Status: a.answered, Total: total,
		Bytes: a.bytes + x.writer.Sent, Sent: a.sent + x.writer.Wire, Received: a.received + x.Body.Taken(),
	}
	if a.headed != 0 {
		e.Body = time.Duration(now - a.headed)
	}
	a.record.End(e)
	log := x.server.config.Log
	if !a.record.Failed() && !log.Draw() {
		return
	}
	peer := x.link()
	a.record.Set(accesslog.Peer, peer.text)
	a.record.SetTrip(&x.Trip)
	if s, is := x.Client.(secure); is {
		a.record.SetTLS(s.Session(), !peer.told)
	}
	peer.told = true
	log.Push(a.record)
}

// count adds to the histograms.
func (x *Exchange) count(total time.Duration) {
	t := &x.Trip
	if t.Queue > 0 {
		x.Stats.Observe(stats.Queue, t.Queue)
	}
	if t.Connect > 0 {
		x.Stats.Observe(stats.Connect, t.Connect)
	}
	if t.Upstream == nil {
		x.Stats.Observe(stats.Total, total)
		return
	}
	if t.FirstByte > 0 {
		t.Upstream.Times.FirstByte.Observe(t.FirstByte)
	}
	t.Upstream.Times.Total.Observe(total)
}
