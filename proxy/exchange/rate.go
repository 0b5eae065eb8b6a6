package exchange

import (
	"strconv"
	"strings"
	"time"

	"atlas/proxy/h1"
	"atlas/proxy/limit"
	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

// rateLogged is how often a worker tells the log of clients that ask too much:
// each of their requests would be a line.
const rateLogged = time.Second

// RateLimit is how many requests each client may make. It never changes, but what
// it counts with may.
type RateLimit struct {
	rate   *limit.Rate
	field  string // the name of the field whose value tells clients apart; "": the address does
	policy string // RateLimit-Policy
}

// NewRateLimit makes the limit that rate has been set to. Clients are told apart by
// the value of a request field, or with "" by their address, as are those without
// the field.
func NewRateLimit(rate *limit.Rate, perSecond, burst int, field string) *RateLimit {
	window := (burst + perSecond - 1) / perSecond // seconds in which an empty bucket fills
	policy := `"requests";q=` + strconv.Itoa(burst) + ";w=" + strconv.Itoa(window)
	return &RateLimit{rate: rate, field: strings.ToLower(field), policy: policy} // as h1.EqualFold wants it
}

// admit reports that the client may make this request, or answers that it may not.
// The connection goes on: opening another one would cost both sides more.
func (x *Exchange) admit(l *RateLimit) bool {
	key, known := l.key(x)
	if !known {
		return true
	}
	wait := l.rate.Take(key, int64(x.Loop.Now()))
	if wait == 0 {
		return true
	}
	x.Stats.FailClient(stats.RateLimited)
	f := Fault{
		Status: 429, Why: "this client makes more requests than it may", Error: RequestError,
		Side: ClientSide, Step: "admit request",
	}
	x.logRate(f)
	// draft-ietf-httpapi-ratelimit-headers-11, and whole seconds, as for all of them.
	seconds := strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
	x.answer(&f, []string{
		"Retry-After", seconds, "RateLimit-Policy", l.policy, "RateLimit", `"requests";r=0;t=` + seconds,
	})
	return false
}

// key is who makes the request. A client of a Unix socket has no address, and is
// not known.
func (l *RateLimit) key(x *Exchange) (key limit.Key, known bool) {
	if l.field != "" {
		fields := x.Request.Fields()
		for i := range fields {
			if h1.EqualFold(fields[i].Name, l.field) {
				return l.rate.Text(fields[i].Value), true
			}
		}
	}
	client := x.ClientAddr()
	return l.rate.Address(client), client.IsValid()
}

// logRate tells the log of one refusal in a while, and how many there were
// meanwhile.
func (x *Exchange) logRate(f Fault) {
	s := x.server
	now := x.Loop.Now()
	if s.config.Failed == nil {
		return
	}
	if now < s.rateNext {
		s.rateUntold++
		return
	}
	if s.rateUntold > 0 {
		f.Details = strconv.Itoa(s.rateUntold) + " more since the last line"
	}
	s.rateNext, s.rateUntold = now.After(rateLogged), 0
	s.config.Failed(x.failure(&f))
}

// rateLog is when the log may be told of the next refusal, and what it was not
// told.
type rateLog struct {
	rateNext   loop.Instant
	rateUntold int
}
