package main

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

// socket is one connection. What comes in is answered on it, or goes out on
// another.
type socket struct {
	fd        int
	number    int
	to        *socket // where its bytes go; nil: they are answered
	receiving bool    // a receive is armed
	busy      bool    // it connects or sends
	ended     bool    // it has sent its last byte
	failed    bool
	shut      bool // both directions, by us
	closed    bool
	due       int     // answers to send
	matched   int     // bytes of headEnd that were the last ones
	queue     []chunk // to send on it, the first on its way while busy
}

// chunk is bytes in one of the ring's buffers.
type chunk struct {
	id    uint16
	bytes []byte // alias the buffer
}

var headEnd = []byte("\r\n\r\n")

func (s *socket) userData(o op) uint64 { return uint64(s.number)<<opBits | uint64(o) }

func (s *socket) fail() {
	s.failed = true
	if s.to != nil {
		s.to.failed = true
	}
}

// done says whether nothing more is to be received or sent.
func (s *socket) done() bool {
	if s.failed {
		return true
	}
	if s.to == nil {
		return s.ended && s.due == 0
	}
	return s.ended && s.to.ended && len(s.queue) == 0 && len(s.to.queue) == 0
}

// received takes what a receive brought: bytes, the end, or an error.
func (f *floor) received(s *socket, c uring.Completion) {
	id, filled := c.Buffer()
	switch {
	case c.Result > 0 && filled:
		f.take(s, chunk{id, f.buffers.Take(id, int(c.Result))})
		if !s.receiving {
			f.receive(s)
		}
	case unix.Errno(-c.Result) == unix.ENOBUFS:
		f.starved = append(f.starved, s)
	case c.Result == 0:
		s.ended = true
		if s.to != nil && len(s.to.queue) == 0 {
			_ = unix.Shutdown(s.to.fd, unix.SHUT_WR) // it may have ended by itself
		}
	default:
		s.fail()
	}
}

// take answers the requests that end in a chunk, or relays it.
func (f *floor) take(s *socket, c chunk) {
	if s.to != nil {
		s.to.queue = append(s.to.queue, c)
		f.send(s.to)
		return
	}
	s.due += s.heads(c.bytes)
	f.buffers.Put(c.id)
	f.send(s)
}

// heads counts the heads that end in b.
func (s *socket) heads(b []byte) int {
	if at := bytes.Index(b, headEnd); s.matched == 0 && at >= 0 && at == len(b)-len(headEnd) {
		return 1 // as always without pipelining
	}
	n := 0
	for _, c := range b {
		switch {
		case c == headEnd[s.matched]:
			s.matched++
		case c == headEnd[0]:
			s.matched = 1
		default:
			s.matched = 0
		}
		if s.matched == len(headEnd) {
			s.matched = 0
			n++
		}
	}
	return n
}

// send sends what is next, unless it sends already.
func (f *floor) send(s *socket) {
	switch {
	case s.busy || s.failed:
	case s.to == nil && s.due > 0:
		s.busy = true
		f.ring.Send(s.fd, f.answer, s.userData(opSend))
	case len(s.queue) > 0:
		s.busy = true
		f.ring.Send(s.fd, s.queue[0].bytes, s.userData(opSend))
	}
}

// sent takes how a send ended: the whole of it, or short because of an error.
func (f *floor) sent(s *socket, n int) {
	if s.to == nil {
		if n != len(f.answer) {
			s.fail()
			return
		}
		s.due--
		f.send(s)
		return
	}
	if n != len(s.queue[0].bytes) {
		s.fail()
		return
	}
	f.buffers.Put(s.queue[0].id)
	s.queue = slices.Delete(s.queue, 0, 1)
	if len(s.queue) == 0 && s.to.ended {
		_ = unix.Shutdown(s.fd, unix.SHUT_WR) // it may have ended by itself
	}
	f.send(s)
}
