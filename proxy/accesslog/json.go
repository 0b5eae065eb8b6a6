package accesslog

import (
	"strconv"
	"time"
)

// appendJSON appends a record as one object on one line. Members that say nothing
// are left out; the others have the names of the variables.
func appendJSON(b []byte, e *Record, c *clock) []byte {
	n := &e.numbers
	t := texter{e, plain(e.text)}
	b = append(b, `{"time":"`...)
	b = c.append(b, n.time)
	b = append(b, '"')
	if e.spans[Client] == (span{}) {
		b = t.member(b, `,"client":`, Peer)
	} else {
		b = t.member(b, `,"client":`, Client)
		if string(e.of(Peer)) != string(e.of(Client)) {
			b = t.member(b, `,"peer":`, Peer)
		}
	}
	b = t.member(b, `,"method":`, Method)
	b = t.member(b, `,"target":`, Target)
	if n.proto != NoProto {
		b = append(append(append(b, `,"proto":"`...), n.proto.String()...), '"')
	}
	b = t.member(b, `,"host":`, Host)
	b = t.member(b, `,"referer":`, Referer)
	b = t.member(b, `,"agent":`, Agent)
	b = t.member(b, `,"request_id":`, RequestID)
	if n.status != 0 {
		b = appendInt(append(b, `,"status":`...), int64(n.status))
	}
	b = appendInt(append(b, `,"bytes":`...), n.bytes)
	b = appendInt(append(b, `,"sent":`...), n.sent)
	b = appendInt(append(b, `,"received":`...), n.received)
	if e.upstream != nil {
		b = appendTrip(b, e)
	}
	b = took(b, `,"body_ms":`, n.body)
	b = append(b, `,"total_ms":`...)
	b = appendMs(b, n.total)
	if n.version != 0 {
		b = appendTLS(b, e, t)
	}
	b = t.member(b, `,"error":`, Error)
	b = t.member(b, `,"details":`, Details)
	return append(b, '}', '\n')
}

// appendTrip appends what there is of upstreams.
func appendTrip(b []byte, e *Record) []byte {
	n, u := &e.numbers, e.upstream
	if u.members == nil {
		u.members = appendString(append(u.members, `,"upstream":`...), []byte(u.Name))
		u.members = appendString(append(u.members, `,"address":`...), []byte(u.Address))
		u.members = append(u.members, `,"tries":`...)
	}
	b = append(b, u.members...)
	b = appendInt(b, int64(n.tries))
	if n.reused {
		b = append(b, `,"reused":true`...)
	} else {
		b = append(b, `,"reused":false`...)
	}
	b = took(b, `,"queue_ms":`, n.queue)
	b = took(b, `,"connect_ms":`, n.connect)
	return took(b, `,"first_byte_ms":`, n.firstByte)
}

// appendTLS appends what there is of TLS.
func appendTLS(b []byte, e *Record, t texter) []byte {
	n := &e.numbers
	b = append(append(append(b, `,"tls":"`...), tlsVersion(n.version)...), '"')
	b = append(append(append(b, `,"cipher":"`...), cipherName(n.cipher)...), '"')
	b = append(b, `,"resumed":`...)
	b = strconv.AppendBool(b, n.resumed)
	b = t.member(b, `,"server_name":`, ServerName)
	b = t.member(b, `,"subject":`, Subject)
	return took(b, `,"handshake_ms":`, n.handshake)
}

// texter appends texts of a record.
type texter struct {
	record *Record
	plain  bool // all of them are: then no other look is taken at any
}

func (t texter) member(b []byte, name string, of Text) []byte {
	s := t.record.spans[of]
	if s.from == s.to {
		return b
	}
	value := t.record.text[s.from:s.to]
	b = append(b, name...)
	if !t.plain {
		return appendString(b, value)
	}
	b = append(b, '"')
	b = append(b, value...)
	return append(b, '"')
}

func took(b []byte, name string, d time.Duration) []byte {
	if d == 0 {
		return b
	}
	return appendMs(append(b, name...), d)
}
