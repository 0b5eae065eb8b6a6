package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// message is what can be made of the bytes of one message. It is read as far
// as it can be, like a lenient recipient would, and doubts say where another
// recipient could find another end.
type message struct {
	line     string // the start line
	fields   []field
	body     []byte // without its chunks
	trailers []field

	begun    bool // the head is complete
	complete bool // so is the message, or it cannot be read on
	toClose  bool // the body ends with the connection
	size     int  // bytes, once complete
	doubts   []string
}

type field struct{ name, value string }

// word returns the n-th word of the start line, or "".
func (m *message) word(n int) string {
	words := strings.SplitN(m.line, " ", 3)
	if n >= len(words) {
		return ""
	}
	return words[n]
}

// status returns the status code of a response, or 0.
func (m *message) status() int {
	if !strings.HasPrefix(m.line, "HTTP/") {
		return 0
	}
	status, err := strconv.Atoi(m.word(1))
	if err != nil {
		return 0
	}
	return status
}

// values returns the values of every field of a name.
func (m *message) values(name string) (all []string) {
	for _, f := range m.fields {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

func (m *message) doubt(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(m.doubts, text) {
		m.doubts = append(m.doubts, text)
	}
}

// side says who sent a message.
type side int

const (
	fromClient side = iota
	fromServer
	fromServerToHead // a response without a body
)

// readMessage reads the message at the start of b.
func readMessage(b []byte, from side) *message {
	m := &message{}
	end := headEnd(b)
	if end < 0 {
		return m
	}
	m.begun = true
	lines := m.lines(b[:end])
	m.line = lines[0]
	m.checkLine(from)
	m.fields = m.readFields(lines[1:])
	chunked, length := m.framing(from)
	m.size = end + m.readBody(b[end:], from, chunked, length)
	return m
}

// readResponse reads the final response at the start of b, and the interim
// ones before it.
func readResponse(b []byte, from side) (final *message, interim []*message) {
	for {
		m := readMessage(b, from)
		if status := m.status(); !m.complete || status < 100 || status > 199 || status == 101 {
			return m, interim
		}
		interim = append(interim, m)
		b = b[m.size:]
	}
}

// headEnd returns where the head ends for whoever takes LF for a line's end,
// or -1. For what is written strictly that is where it ends for everybody.
func headEnd(b []byte) int {
	for i := range b {
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("\n\r\n")):
			return i + 3
		case bytes.HasPrefix(rest, []byte("\n\n")):
			return i + 2
		}
	}
	return -1
}

// lines divides a head, with its empty line, or a trailer section.
func (m *message) lines(head []byte) []string {
	text := strings.Split(strings.TrimSuffix(string(head), "\n"), "\n")
	for i, line := range text {
		strict, ended := strings.CutSuffix(line, "\r")
		if !ended {
			m.doubt("bare LF")
		}
		if strings.Contains(strict, "\r") {
			m.doubt("bare CR")
		}
		text[i] = strict
	}
	return text[:len(text)-1]
}

func (m *message) checkLine(from side) {
	version := m.word(0)
	if from == fromClient {
		version = m.line[strings.LastIndex(m.line, " ")+1:]
	}
	if version != "HTTP/1.0" && version != "HTTP/1.1" {
		m.doubt("start line without HTTP/1.0 or HTTP/1.1: %.60q", m.line)
	}
}

// readFields reads field lines.
func (m *message) readFields(lines []string) (fields []field) {
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
			m.doubt("line that begins with white space")
			if i > 0 && len(fields) > 0 {
				fields[len(fields)-1].value += " " + strings.Trim(line, " \t")
			}
			continue
		case !strings.Contains(line, ":"):
			continue // no recipient finds a field here
		}
		name, value, _ := strings.Cut(line, ":")
		if hidden := strings.TrimFunc(name, notToken); hidden != name {
			if strings.ContainsAny(name, " \t") {
				m.doubt("white space before a colon")
			} else if isFraming(hidden) {
				m.doubt("field name %q", name)
			}
		}
		fields = append(fields, field{name, strings.Trim(value, " \t")})
	}
	return fields
}

// notToken reports that a character is in no field name.
func notToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

func isFraming(name string) bool {
	return strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding")
}

// framing returns how the body is framed: in chunks, by a length, or else.
func (m *message) framing(from side) (chunked bool, length int64) {
	lengths, codings := m.values("Content-Length"), m.values("Transfer-Encoding")
	if len(lengths) > 0 && len(codings) > 0 {
		m.doubt("both Content-Length and Transfer-Encoding")
	}
	if len(lengths) > 1 {
		m.doubt("%d Content-Length", len(lengths))
	}
	if len(codings) > 1 {
		m.doubt("%d Transfer-Encoding", len(codings))
	}
	length = -1
	for i, text := range lengths {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil || strings.HasPrefix(text, "+") {
			m.doubt("Content-Length %.40q", text)
			n = 0 // nobody can say how much follows
		}
		if i == 0 {
			length = int64(n)
		}
	}
	for _, text := range codings {
		if !plainCoding(text) {
			m.doubt("Transfer-Encoding %.40q", text)
		}
		version := m.word(0)
		if from == fromClient {
			version = m.word(2)
		}
		if version == "HTTP/1.0" {
			m.doubt("Transfer-Encoding in HTTP/1.0")
		}
		chunked = chunked || strings.Contains(strings.ToLower(text), "chunked")
	}
	return chunked, length
}

// plainCoding reports that a Transfer-Encoding value ends in chunked, once.
func plainCoding(value string) bool {
	members := strings.Split(strings.ToLower(value), ",")
	for i, member := range members {
		member = strings.Trim(member, " \t")
		if member == "" || strings.ContainsFunc(member, notToken) || (member == "chunked") != (i == len(members)-1) {
			return false
		}
	}
	return true
}

// readBody reads the body at the start of b and returns its size.
func (m *message) readBody(b []byte, from side, chunked bool, length int64) int {
	switch {
	case from == fromServerToHead, from == fromServer && bodiless(m.status()):
		m.complete = true
		return 0
	case chunked:
		return m.readChunks(b)
	case length >= 0:
		m.body = b[:min(int64(len(b)), length)]
		m.complete = int64(len(m.body)) == length
		return len(m.body)
	case from == fromClient:
		m.complete = true
		return 0
	}
	m.toClose = true
	m.body = b
	return len(b)
}

// bodiless reports that responses of a status have no body (RFC 9112 section
// 6.3).
func bodiless(status int) bool {
	return status >= 100 && status < 200 || status == 204 || status == 304
}

// readChunks reads a chunked body as strictly as it is written in RFC 9112. At
// the first doubt it stops: nobody can say what follows.
func (m *message) readChunks(b []byte) int {
	for rest := b; ; {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return len(b)
		}
		size, err := chunkSize(string(line))
		if err != nil {
			return m.stop(len(b), err)
		}
		if size == 0 {
			return m.readTrailer(b, after)
		}
		piece := after[:min(uint64(len(after)), size)]
		m.body = append(m.body, piece...)
		after = after[len(piece):]
		if uint64(len(piece)) < size || len(after) < 2 {
			return len(b)
		}
		if !bytes.HasPrefix(after, []byte("\r\n")) {
			return m.stop(len(b), fmt.Errorf("chunk that ends in %.10q", after))
		}
		rest = after[2:]
	}
}

// stop ends the reading of what cannot be read on.
func (m *message) stop(size int, why error) int {
	m.doubt("%v", why)
	m.complete = true
	return size
}

// chunkSize reads the line of a chunk, without its LF.
func chunkSize(line string) (uint64, error) {
	strict, ended := strings.CutSuffix(line, "\r")
	digits, extension, extended := strings.Cut(strict, ";")
	if extended {
		digits = strings.TrimRight(digits, " \t")
	}
	size, err := strconv.ParseUint(digits, 16, 63)
	if !ended || strings.ContainsAny(extension, "\r\x00") || err != nil || strings.ContainsAny(digits, "+_") {
		return 0, fmt.Errorf("chunk size %.40q", line)
	}
	return size, nil
}

// readTrailer reads the trailer section at the start of rest, the end of b.
func (m *message) readTrailer(b, rest []byte) int {
	end := headEnd(append([]byte("\n"), rest...)) - 1 // the line of the last chunk counts as one
	if end < 0 {
		return len(b)
	}
	m.trailers = m.readFields(m.lines(rest[:end]))
	m.complete = true
	return len(b) - len(rest) + end
}
