package server

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
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

// rotate makes a new key where it is time for one, or there is none.
func (h *handshakes) rotate(now time.Time) (rotated bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tickets.keys != nil && !h.tickets.due(now) {
		return false
	}
	h.tickets.rotate(now)
	return true
}

// publish has handshakes begin with cfg from now on. With other authorities of
// clients the sessions end that were begun under the old ones.
func (h *handshakes) publish(cfg *tls.Config, authorities [sha256.Size]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if authorities != h.authorities {
		h.authorities = authorities
		h.tickets.forget()
	}
	cfg.SetSessionTicketKeys(h.tickets.keys)
	h.current.Store(cfg)
}

// ticketsNote is what a process leaves of its handshakes to the next: clients go on
// with their sessions then, for as long as they could here.
type ticketsNote struct {
	Keys        [][32]byte
	Since       time.Time
	Authorities [sha256.Size]byte // of clients: with others the sessions end
}

func (h *handshakes) note() ticketsNote {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ticketsNote{append([][32]byte(nil), h.tickets.keys...), h.tickets.since, h.authorities}
}

// adopt begins with what another process left. It is for before the first use.
func (h *handshakes) adopt(n ticketsNote) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(n.Keys) > 0 && h.tickets.keys == nil {
		h.tickets.keys, h.tickets.since = n.Keys[:min(len(n.Keys), ticketKeys)], n.Since
		h.authorities = n.Authorities
	}
}
