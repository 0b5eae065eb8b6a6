package forward

import (
	"bytes"

	"atlas/proxy/balance"
	"atlas/proxy/h1"
)

// Route says what of a request decides where it goes, beside the strategy: the
// values of the keys of [routing] with the same names.
type Route struct {
	Strategy balance.Strategy
	Hash     Hash   // of strategy "hash"
	Name     string // of the field or the cookie that Hash means
	Sticky   string // name of a cookie of ours; empty: none
}

// Hash is what strategy "hash" goes by.
type Hash uint8

// The kinds of Hash.
const (
	HashPath Hash = iota
	HashHeader
	HashCookie
)

// route notes what the choice of the upstream goes by, while the head is at hand.
func (t *transfer) route() {
	route := &t.handler.config.Route
	t.choice = balance.Request{Now: int64(t.x.Loop.Now())}
	switch route.Strategy {
	case balance.IPHash:
		t.choice.Key = balance.ClientKey(t.x.ClientAddr())
	case balance.Hash:
		t.choice.Key = balance.Key(route.value(t.x.Request))
	}
	if route.Sticky != "" {
		t.choice.Stick = balance.ParseID(cookie(t.x.Request, route.Sticky))
	}
}

// value is what strategy "hash" goes by; nil if the request has none of it.
func (r *Route) value(req *h1.Request) []byte {
	switch r.Hash {
	case HashCookie:
		return cookie(req, r.Name)
	case HashHeader:
		fields := req.Fields()
		for i := range fields {
			if h1.EqualFold(fields[i].Name, r.Name) {
				return fields[i].Value
			}
		}
		return nil
	}
	return req.Path
}

// cookie is the value of the first cookie with a name, or nil (RFC 6265 section
// 4.2.1: pairs, a semicolon and a space between them).
func cookie(req *h1.Request, name string) []byte {
	if !req.Has(h1.KeyCookie) {
		return nil
	}
	fields := req.Fields()
	for i := range fields {
		if fields[i].Key != h1.KeyCookie {
			continue
		}
		for rest := fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			key, value, found := bytes.Cut(pair, equal)
			if found && string(bytes.TrimSpace(key)) == name {
				return bytes.TrimSpace(value)
			}
		}
	}
	return nil
}

var semicolon, equal = []byte(";"), []byte("=")

// stick tells the client which upstream it had, where it does not say so itself.
func (t *transfer) stick() {
	name := t.handler.config.Route.Sticky
	if name == "" || t.choice.Stick == t.target.ID {
		return
	}
	b := append(append(t.scratch[:0], name...), '=')
	b = t.target.ID.Append(b)
	t.scratch = append(b, "; Path=/; HttpOnly; SameSite=Lax"...)
	t.x.Field(setCookie, t.scratch)
}

var setCookie = []byte("Set-Cookie")
