package forward

import (
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/upstream"
)

// exchangeUpload is exchange with a request body that is still on its way. It
// runs in a task of its own, because an upstream may answer before it has all.
func (t *transfer) exchangeUpload() error {
	c, x := t.up, t.x
	if err := x.Continue(); err != nil { // here, for only one task may send to the client
		return clientLost{sendResponse, err}
	}
	c.SetReadDeadline(0) // until the upload is complete it owes us nothing
	t.uplink.Start(c.Conn, x.Framing.Kind == h1.BodyChunked)
	t.uploading = true
	upload := x.Loop.Go(func() {
		t.upload(c)
		t.uploading = false
	})
	err := t.respond()
	if t.switched && err == nil {
		if err = t.endUpload(upload); err == nil {
			t.tunnel()
		}
		return err
	}
	// An answer that is complete before the request: the rest of that is not
	// wanted. An upload that has ended does not mind.
	broken := t.uploadErr
	t.answered = true
	x.Body.Interrupt()
	t.uplink.Interrupt()
	if joined := upload.Join(); joined != nil {
		return joined
	}
	if err == loop.ErrDeadline && broken != nil {
		return broken
	}
	return err
}

// upload moves the request body, then watches the client, as Guard does where
// there is no upload. A client that is lost, or whose body is no good, ends the
// wait for the response.
func (t *transfer) upload(c *upstream.Conn) {
	x, cfg := t.x, &t.handler.config
	stuck, err := t.sendBody(c)
	if stuck && !x.Begun() && !t.answered {
		c.SetReadDeadline(loop.Past) // it takes nothing, and has had its time
		return
	}
	if err == nil && !t.answered {
		t.sent = x.Loop.Now()
		c.SetReadDeadline(t.sent.After(cfg.Upstream))
		x.Client.SetReadDeadline(0)
		t.watching = true
		for err == nil && len(x.Client.Peek()) < watchMax { // what comes is its next request
			err = x.Client.Fill()
		}
		if t.watching = false; err == nil {
			return
		}
		if !t.answered && !t.switched && t.hurry() {
			return
		}
	} else if err != nil && t.switched {
		t.uploadErr = clientLost{readBody, err}
	}
	if t.answered {
		return
	}
	t.uploadErr = clientLost{readBody, err}
	if x.Begun() && !t.switched {
		t.body.Interrupt()
	}
	c.SetReadDeadline(loop.Past)
}

// watchMax is how much a client may send behind its request while it is watched:
// beyond, its end is not looked for.
const watchMax = 16 << 10

// sendBody returns errors of the client. If it is the upstream that breaks off, it
// may have answered already and closed: whatever it said is for respond to find.
// One that is stuck has taken nothing for as long as it may.
func (t *transfer) sendBody(c *upstream.Conn) (stuck bool, err error) {
	x, cfg := t.x, &t.handler.config
	buffer := t.handler.buffers.Take()
	defer t.handler.buffers.Put(buffer)
	x.Body.Demand(cfg.RateMin, cfg.RateGrace)
	readErr, writeErr := relay.Copy(&t.uplink, &x.Body, buffer, cfg.Body, cfg.Upstream)
	if readErr != nil || writeErr != nil {
		return writeErr == loop.ErrDeadline, readErr
	}
	section := trailer(&x.Body, t.trailers)
	countUnderscores(x.Stats, section)
	if t.uplink.End(section, false) == nil {
		t.uploaded = c.Flush() == nil
	}
	return false, nil
}
