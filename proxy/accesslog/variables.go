package accesslog

import (
	"crypto/tls"
	"strconv"
	"time"
)

// Variable is one that a template may have. In JSON the member has the same name.
type Variable struct {
	Name string
	Doc  string

	append appender
}

// Variables are all there are.
func Variables() []Variable { return variables }

func find(name string) *Variable {
	for i := range variables {
		if variables[i].Name == name {
			return &variables[i]
		}
	}
	return nil
}

var variables = []Variable{
	{"time", "When the exchange began, in UTC: 2006-01-02T15:04:05.000Z.",
		func(b []byte, e *Record, c *clock) []byte { return c.append(b, e.numbers.time) }},
	{"time_common", "The same as 02/Jan/2006:15:04:05 +0000.",
		func(b []byte, e *Record, c *clock) []byte { return c.appendCommon(b, e.numbers.time) }},
	{"client", "Address of the client: the last one that is no trusted proxy's.",
		func(b []byte, e *Record, _ *clock) []byte { return escapedOrDash(b, e.client()) }},
	{"peer", "Address at the other end of the connection.", text(Peer)},
	{"method", "Method of the request.", text(Method)},
	{"target", "Target of the request, as it was sent: path and query.", text(Target)},
	{"proto", "HTTP/1.1, HTTP/1.0 or TCP.",
		func(b []byte, e *Record, _ *clock) []byte { return orDash(b, e.numbers.proto.String()) }},
	{"request", "Request line: method, target and proto.", appendRequest},
	{"host", "Host that was asked for.", text(Host)},
	{"referer", "Referer of the request.", text(Referer)},
	{"agent", "User-Agent of the request.", text(Agent)},
	{"status", "Status of the response, 499 if the client went away before it; none in mode \"tcp\".", appendStatus},
	{"bytes", "Bytes of the response's body, or those to the client in mode \"tcp\".",
		number(func(e *Record) int64 { return e.numbers.bytes })},
	{"sent", "All bytes to the client, those of TLS aside.", number(func(e *Record) int64 { return e.numbers.sent })},
	{"received", "All bytes of the request, those of TLS aside.",
		number(func(e *Record) int64 { return e.numbers.received })},
	{"upstream", "Name of the upstream.", ofUpstream(func(u *Upstream) string { return u.Name })},
	{"address", "Address of the upstream.", ofUpstream(func(u *Upstream) string { return u.Address })},
	{"tries", "How many connections to upstreams were asked for.",
		number(func(e *Record) int64 { return int64(e.numbers.tries) })},
	{"reused", "Whether the connection to the upstream had been used before: true or false.",
		boolean(func(e *Record) (bool, bool) { return e.numbers.reused, e.numbers.tries > 0 })},
	{"handshake_ms", "Time of the TLS handshake, with the first request of a connection.",
		phase(func(e *Record) time.Duration { return e.numbers.handshake })},
	{"queue_ms", "Time until an upstream had room.", phase(func(e *Record) time.Duration { return e.numbers.queue })},
	{"connect_ms", "Time to connect to the upstream.",
		phase(func(e *Record) time.Duration { return e.numbers.connect })},
	{"first_byte_ms", "Time from the request that went to the upstream to the head of its response.",
		phase(func(e *Record) time.Duration { return e.numbers.firstByte })},
	{"body_ms", "Time from the head of the response to its last byte.",
		phase(func(e *Record) time.Duration { return e.numbers.body })},
	{"total_ms", "Time from the first byte of the request to the last one of the response.",
		func(b []byte, e *Record, _ *clock) []byte { return appendMs(b, e.numbers.total) }},
	{"tls", "Version of TLS that the client speaks: TLSv1.3.",
		func(b []byte, e *Record, _ *clock) []byte { return orDash(b, tlsVersion(e.numbers.version)) }},
	{"cipher", "Cipher suite of TLS.",
		func(b []byte, e *Record, _ *clock) []byte { return orDash(b, cipherName(e.numbers.cipher)) }},
	{"resumed", "Whether the handshake went on with an earlier session: true or false.",
		boolean(func(e *Record) (bool, bool) { return e.numbers.resumed, e.numbers.version != 0 })},
	{"server_name", "Name that the client asked for in TLS (SNI).", text(ServerName)},
	{"subject", "Subject of the client's certificate.", text(Subject)},
	{"error", "Why the exchange failed: an error type of RFC 9209, or client_gone.", text(Error)},
	{"details", "More about that.", text(Details)},
	{"request_id", "X-Request-ID of the request.", text(RequestID)},
}

// text appends a text, escaped, or a dash.
func text(t Text) appender {
	return func(b []byte, e *Record, _ *clock) []byte { return escapedOrDash(b, e.of(t)) }
}

func escapedOrDash(b, value []byte) []byte {
	if len(value) == 0 {
		return append(b, '-')
	}
	return appendEscaped(b, value)
}

// ofUpstream appends a text of the upstream, if there is one.
func ofUpstream(of func(*Upstream) string) appender {
	return func(b []byte, e *Record, _ *clock) []byte {
		if e.upstream == nil {
			return append(b, '-')
		}
		return appendEscaped(b, []byte(of(e.upstream)))
	}
}

func number(of func(*Record) int64) appender {
	return func(b []byte, e *Record, _ *clock) []byte { return appendInt(b, of(e)) }
}

func boolean(of func(*Record) (value, known bool)) appender {
	return func(b []byte, e *Record, _ *clock) []byte {
		value, known := of(e)
		if !known {
			return append(b, '-')
		}
		return strconv.AppendBool(b, value)
	}
}

// phase appends a time, or a dash where there was no such phase.
func phase(of func(*Record) time.Duration) appender {
	return func(b []byte, e *Record, _ *clock) []byte {
		d := of(e)
		if d == 0 {
			return append(b, '-')
		}
		return appendMs(b, d)
	}
}

func appendStatus(b []byte, e *Record, _ *clock) []byte {
	if e.numbers.status == 0 {
		return append(b, '-')
	}
	return appendInt(b, int64(e.numbers.status))
}

// appendRequest appends the request line, or what is known of one.
func appendRequest(b []byte, e *Record, _ *clock) []byte {
	method, target, proto := e.of(Method), e.of(Target), e.numbers.proto.String()
	if len(method) == 0 {
		return orDash(b, proto)
	}
	b = appendEscaped(b, method)
	if len(target) > 0 {
		b = append(b, ' ')
		b = appendEscaped(b, target)
	}
	if proto != "" {
		b = append(b, ' ')
		b = append(b, proto...)
	}
	return b
}

func orDash(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	return append(b, s...)
}

// appendInt is strconv.AppendInt, quicker where a number has few digits, as most do.
func appendInt(b []byte, n int64) []byte {
	switch {
	case uint64(n) < 10:
		return append(b, byte('0'+n))
	case uint64(n) < 100:
		return append(b, byte('0'+n/10), byte('0'+n%10))
	case uint64(n) < 1000:
		return append(b, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
	case uint64(n) < 10_000:
		return append(b, byte('0'+n/1000), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
	}
	return strconv.AppendInt(b, n, 10)
}

// appendMs appends milliseconds, with three digits behind the point.
func appendMs(b []byte, d time.Duration) []byte {
	us := int64(max(d, 0)+500) / 1000
	b = appendInt(b, us/1000)
	us %= 1000
	return append(b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
}

// tlsVersion is how nginx and OpenSSL write it.
func tlsVersion(v uint16) string {
	switch v {
	case 0:
		return ""
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(v)
}

func cipherName(suite uint16) string {
	if suite == 0 {
		return ""
	}
	return tls.CipherSuiteName(suite)
}

// clock writes times, most of which are of the same second as the one before.
type clock struct {
	second       int64 // that the texts are of
	text, common []byte
}

func (c *clock) set(second int64) {
	if c.second == second && c.text != nil {
		return
	}
	c.second = second
	t := time.Unix(second, 0).UTC()
	c.text = t.AppendFormat(c.text[:0], "2006-01-02T15:04:05")
	c.common = t.AppendFormat(c.common[:0], "02/Jan/2006:15:04:05 +0000")
}

func (c *clock) append(b []byte, at int64) []byte {
	c.set(at / 1e9)
	b = append(b, c.text...)
	ms := at / 1e6 % 1000
	return append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

func (c *clock) appendCommon(b []byte, at int64) []byte {
	c.set(at / 1e9)
	return append(b, c.common...)
}
