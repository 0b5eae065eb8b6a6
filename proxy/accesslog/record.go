package accesslog

import (
	"net/netip"
	"time"

	"atlas/proxy/stats"
)

// Text is one of the strings of a Record.
type Text uint8

// The texts. What a client sends may be anything.
const (
	Client Text = iota // its address, if it is not Peer: see exchange.ClientAddr
	Peer               // the address at the other end of the connection
	Method
	Target
	Host
	Referer
	Agent
	RequestID
	ServerName // that the client asked for in TLS
	Subject    // of the client's certificate
	Error      // why the exchange failed: a type of RFC 9209, or ClientGone
	Details    // a word or two more
	texts
)

// ClientGone is the Error of an exchange whose client went away: RFC 9209 has
// none, for nobody is left to be told.
const ClientGone = "client_gone"

// textMax bounds a text, in bytes: what is longer is cut. Targets and referers may
// be a link that somebody wants to follow.
func textMax(t Text) int {
	if t == Target || t == Referer {
		return 8 << 10
	}
	return 1 << 10
}

// Upstream is one address of an upstream, and where a worker counts the times of
// the upstream.
type Upstream struct {
	Name    string
	Address string
	Times   *stats.Times

	members []byte // of a line of JSON; made for the first one
}

// Trip is the part of an exchange that is about upstreams.
type Trip struct {
	Upstream *Upstream // that was chosen last; nil: none was
	Tries    uint8     // connections that were asked for
	Reused   bool      // the last of them had been used before
	// What the phases took; 0: there was none.
	Queue, Connect, FirstByte time.Duration
}

// TLS is what is worth knowing of a TLS connection with a client.
type TLS struct {
	Version    uint16 // as in crypto/tls
	Cipher     uint16
	Resumed    bool
	ServerName string
	Subject    string        // of the client's certificate
	Handshake  time.Duration // what it took
}

// Proto is what a client speaks.
type Proto uint8

// The protocols.
const (
	NoProto Proto = iota // it was not understood
	HTTP10
	HTTP11
	TCP
)

// String is the protocol as it stands in a request line.
func (p Proto) String() string {
	switch p {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case TCP:
		return "TCP"
	}
	return ""
}

// numbers are what a Record has besides its texts.
type numbers struct {
	time      int64 // when it began: the wall clock, in nanoseconds
	status    uint16
	proto     Proto
	tries     uint8
	version   uint16 // of TLS; 0: plain
	cipher    uint16
	reused    bool
	resumed   bool
	bytes     int64
	sent      int64
	received  int64
	queue     time.Duration
	connect   time.Duration
	firstByte time.Duration
	body      time.Duration
	total     time.Duration
	handshake time.Duration
}

// Record is what a line is made of. It is filled as the exchange goes on, then
// pushed; Begin makes it ready for the next one.
type Record struct {
	numbers  numbers
	upstream *Upstream
	spans    [texts]span // of text
	text     []byte
}

// span is a text: text[from:to]. All texts together are less than 64 KiB.
type span struct{ from, to uint16 }

// Begin forgets the last exchange. at is when this one has begun.
func (r *Record) Begin(at time.Time, p Proto) {
	r.numbers = numbers{time: at.UnixNano(), proto: p}
	r.upstream = nil
	r.spans = [texts]span{}
	r.text = r.text[:0]
}

// SetProto corrects what Begin was told.
func (r *Record) SetProto(p Proto) { r.numbers.proto = p }

// Set sets a text, once.
func (r *Record) Set(t Text, value []byte) {
	from := len(r.text)
	r.text = append(r.text, value[:min(len(value), textMax(t))]...)
	r.spans[t] = span{uint16(from), uint16(len(r.text))}
}

// SetString is Set.
func (r *Record) SetString(t Text, value string) {
	from := len(r.text)
	r.text = append(r.text, value[:min(len(value), textMax(t))]...)
	r.spans[t] = span{uint16(from), uint16(len(r.text))}
}

// SetAddress sets a text to an address; an invalid one is that of a Unix socket.
func (r *Record) SetAddress(t Text, a netip.Addr) {
	if !a.IsValid() {
		r.SetString(t, "unknown")
		return
	}
	from := len(r.text)
	r.text = a.AppendTo(r.text)
	r.spans[t] = span{uint16(from), uint16(len(r.text))}
}

// SetTLS sets what there is of TLS. shook says that the handshake was for this
// exchange.
func (r *Record) SetTLS(t *TLS, shook bool) {
	n := &r.numbers
	n.version, n.cipher, n.resumed = t.Version, t.Cipher, t.Resumed
	if shook {
		n.handshake = t.Handshake
	}
	if t.ServerName != "" {
		r.SetString(ServerName, t.ServerName)
	}
	if t.Subject != "" {
		r.SetString(Subject, t.Subject)
	}
}

// SetTrip sets what there is of upstreams.
func (r *Record) SetTrip(t *Trip) {
	if t.Upstream == nil {
		return
	}
	r.upstream = t.Upstream
	n := &r.numbers
	n.tries, n.reused = t.Tries, t.Reused
	n.queue, n.connect, n.firstByte = t.Queue, t.Connect, t.FirstByte
}

// Fail says why the exchange failed.
func (r *Record) Fail(why, details string) {
	r.SetString(Error, why)
	if details != "" {
		r.SetString(Details, details)
	}
}

// Ending is what is known of an exchange in the end.
type Ending struct {
	Status   int           // 0: none
	Total    time.Duration // from the first byte of the request
	Body     time.Duration // from the head of the response; 0: there was none
	Bytes    int64         // of the response's body
	Sent     int64         // all, TLS aside
	Received int64
}

// End sets what is known in the end.
func (r *Record) End(e Ending) {
	n := &r.numbers
	n.status, n.total, n.body = uint16(e.Status), e.Total, e.Body
	n.bytes, n.sent, n.received = e.Bytes, e.Sent, e.Received
}

// Failed reports that the exchange did not go well: such are always logged.
func (r *Record) Failed() bool {
	return r.numbers.status >= 500 || r.spans[Error] != span{}
}

// of is a text, or nothing.
func (r *Record) of(t Text) []byte {
	s := r.spans[t]
	return r.text[s.from:s.to]
}

// client is its address: mostly it is the peer.
func (r *Record) client() []byte {
	if r.spans[Client] == (span{}) {
		return r.of(Peer)
	}
	return r.of(Client)
}
