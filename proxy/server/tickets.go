package server

import (
	"crypto/rand"
	"time"
)

const (
	// ticketLife is how long new session tickets are encrypted with one key.
	ticketLife = 24 * time.Hour
	// ticketKeys are kept: a session can go on for one to three days.
	ticketKeys = 3
)

// tickets are the keys of session tickets, the one for new tickets first.
type tickets struct {
	keys  [][32]byte
	since time.Time // when the first was made
}

// due reports that it is time for a new key.
func (t *tickets) due(now time.Time) bool { return now.Sub(t.since) >= ticketLife }

func (t *tickets) rotate(now time.Time) {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	t.keys = append([][32]byte{key}, t.keys[:min(len(t.keys), ticketKeys-1)]...)
	t.since = now
}

// forget drops all keys: no session goes on.
func (t *tickets) forget() {
	if t.keys != nil {
		t.keys = nil
		t.rotate(t.since)
	}
}

// TicketKeys are the keys of session tickets, for a process that takes over: its
// clients' sessions go on then. nil: this server speaks no TLS.
func (s *Server) TicketKeys() [][32]byte {
	if s.secure == nil {
		return nil
	}
	s.secure.mu.Lock()
	defer s.secure.mu.Unlock()
	return append([][32]byte(nil), s.secure.tickets.keys...)
}

// AdoptTicketKeys goes on with the keys of a process before this one, if they may
// be its.
func (s *Server) AdoptTicketKeys(keys [][32]byte) {
	if s.secure == nil || len(keys) == 0 {
		return
	}
	s.secure.mu.Lock()
	defer s.secure.mu.Unlock()
	s.secure.tickets.keys = append([][32]byte(nil), keys[:min(len(keys), ticketKeys)]...)
	s.secure.current.Load().SetSessionTicketKeys(s.secure.tickets.keys)
}
