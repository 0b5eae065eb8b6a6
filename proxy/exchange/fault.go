package exchange

import (
	"bytes"
	"net/netip"

	"atlas/proxy/h1"
)

// StatusGone is the status of an exchange whose client went away before it had
// its response. Nobody is told; the log calls it so, as nginx does.
const StatusGone = 499

// ErrorType is why a proxy answers itself, as RFC 9209 section 2.3 names it.
type ErrorType string

// The types that we use.
const (
	DNSError               ErrorType = "dns_error"
	DestinationUnavailable ErrorType = "destination_unavailable"
	ConnectionRefused      ErrorType = "connection_refused"
	ConnectionTimeout      ErrorType = "connection_timeout"
	ConnectionTerminated   ErrorType = "connection_terminated"
	ConnectionLimitReached ErrorType = "connection_limit_reached"
	TLSProtocolError       ErrorType = "tls_protocol_error"
	TLSCertificateError    ErrorType = "tls_certificate_error"
	RequestError           ErrorType = "http_request_error"
	ResponseTimeout        ErrorType = "http_response_timeout"
	ResponseIncomplete     ErrorType = "http_response_incomplete"
	ResponseHeaderSize     ErrorType = "http_response_header_section_size"
	ResponseCoding         ErrorType = "http_response_transfer_coding"
	UpgradeFailed          ErrorType = "http_upgrade_failed"
	ProtocolError          ErrorType = "http_protocol_error"
	LoopDetected           ErrorType = "proxy_loop_detected"
	InternalError          ErrorType = "proxy_internal_error"
)

// Side is who a fault is laid to.
type Side string

// The sides.
const (
	ClientSide   Side = "client"
	UpstreamSide Side = "upstream"
	ProxySide    Side = "proxy"
)

// Fault is what went wrong with an exchange: for the client, as far as it can
// still be told, and for the log.
type Fault struct {
	Status   int       // of the answer, or what it would have been
	Why      string    // a sentence
	Error    ErrorType // "": what goes with Status
	Details  string    // a word that says more, such as the label of an h1.Reason
	Upstream string    // its name, if one is involved
	Side     Side
	Step     string // what was under way: "read response head"
	Cause    error  // if there is one, for the log only
	// Request begins with the request line, for the log. It is needed where the
	// head was released.
	Request []byte
}

// Failure is the record of an exchange that ended in an error of ours.
type Failure struct {
	Fault
	Sent           int        // the status that the client had got already; 0 is none
	Client         netip.Addr // of the client; invalid for a Unix socket
	Method, Target string     // the latter may be cut
}

// targetMax is how much of a target a Failure has.
const targetMax = 256

// Fault answers with an error of our own, or breaks off what has begun to be an
// answer, and reports it. extra are pairs of field names and values.
func (x *Exchange) Fault(f Fault, extra ...string) {
	if f.Error == "" {
		f.Error = InternalError
		if f.Status < 500 {
			f.Error = RequestError
		}
	}
	x.report(&f)
	if x.begun || f.Status == StatusGone {
		x.Abort()
		return
	}
	x.answer(&f, extra)
}

// Fail is Fault where there is nothing to say but the status and a sentence.
func (x *Exchange) Fail(status int, why string, extra ...string) {
	f := Fault{Status: status, Why: why, Side: ProxySide, Step: "answer"}
	if status < 500 {
		f.Side = ClientSide
	}
	x.Fault(f, extra...)
}

// report tells the log, unless the client asked for what it got.
func (x *Exchange) report(f *Fault) {
	x.account.fail(f, x.begun)
	failed := x.server.config.Failed
	if failed == nil || f.Status < StatusGone && f.Status != 408 && !x.begun {
		return
	}
	failed(x.failure(f))
}

// failure is the record of a fault.
func (x *Exchange) failure(f *Fault) Failure {
	record := Failure{Fault: *f, Sent: x.status, Client: x.ClientAddr()}
	record.Request = nil
	switch r := x.Request; {
	case f.Request != nil:
		record.Method, record.Target = requestLine(f.Request)
	case x.headBytes > 0:
		record.Method = string(r.MethodName)
		record.Target = string(r.Target[:min(len(r.Target), targetMax)])
	}
	return record
}

// requestLine takes method and target from the start of a head, which need not
// be a valid one.
func requestLine(head []byte) (method, target string) {
	line, _, _ := bytes.Cut(bytes.TrimLeft(head[:min(len(head), 2*targetMax)], "\r\n"), []byte("\r\n"))
	first, rest, _ := bytes.Cut(line, []byte(" "))
	if version := bytes.LastIndex(rest, []byte(" HTTP/")); version >= 0 {
		rest = rest[:version]
	}
	return string(first[:min(len(first), targetMax)]), string(rest[:min(len(rest), targetMax)])
}

// answer sends f to the client.
func (x *Exchange) answer(f *Fault, extra []string) {
	text := h1.AppendDecimal(nil, int64(f.Status))
	text = append(append(text, ' '), h1.StatusText(f.Status)...)
	text = append(append(append(text, ": "...), f.Why...), '\n')
	if name := x.server.config.Name; name != "" {
		extra = append(extra[:len(extra):len(extra)], "Proxy-Status", string(appendProxyStatus(nil, name, f)))
	}
	x.Answer(f.Status, "text/plain; charset=utf-8", text, extra...)
}

// appendProxyStatus appends the value of RFC 9209 with the one member that is
// ours: we answer for an upstream, so there is none before us.
func appendProxyStatus(b []byte, name string, f *Fault) []byte {
	if first := name[0] | 0x20; h1.ValidName([]byte(name)) && 'a' <= first && first <= 'z' {
		b = append(b, name...) // a token of RFC 8941
	} else {
		b = appendString(b, name)
	}
	b = append(append(b, "; error="...), f.Error...)
	if f.Upstream != "" {
		b = appendString(append(b, "; next-hop="...), f.Upstream)
	}
	if f.Details != "" {
		b = appendString(append(b, "; details="...), f.Details)
	}
	return b
}

// appendString appends a string of RFC 8941 section 3.3.3, which has printable
// ASCII only: any other byte becomes a question mark.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
