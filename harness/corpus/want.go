package corpus

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Verdict is what must become of a case.
type Verdict string

// The verdicts.
const (
	Refused  Verdict = "refused"  // no continuation of the bytes is valid
	Short    Verdict = "short"    // valid so far
	Accepted Verdict = "accepted" // a message
)

// Want is what must come of a case.
type Want struct {
	Verdict Verdict

	Status int    // of a refusal, and of an accepted response
	Reason string // of a refusal, one word

	// Of an accepted request.
	Method      string
	Target      Text   // as it is forwarded
	Host        string // of the request, from the target where it names one
	OtherExpect bool   // it expects something that does not exist

	// Of an accepted message.
	Fields    []Field // what is forwarded; of a chunked body, the trailer section
	Dropped   []Field // what is not
	FieldsCut bool    // the log leaves fields out
	Body      Body    // of a response, to GET
	Rest      int     // bytes that follow the head, or the whole of a chunked body

	Content Text // of a chunked body, as far as it was read
}

// Field is one field line as it came. Key is the name if handlers know it,
// "-" if they do not, and "_" if it has an underscore.
type Field struct {
	Key, Name string
	Value     Text
}

// Body says how a body ends.
type Body struct {
	Kind   BodyKind
	Length uint64
}

// BodyKind is how a body is framed.
type BodyKind string

// The framings.
const (
	BodyNone    BodyKind = "none"
	BodyLength  BodyKind = "length"
	BodyChunked BodyKind = "chunked"
	BodyClose   BodyKind = "close" // it ends with the connection
)

// Text is bytes as a log has them: whole, or of long ones the first and the
// length.
type Text struct {
	Start  string
	Length int
}

// Is reports that b can be the text.
func (t Text) Is(b []byte) bool {
	return len(b) == t.Length && bytes.HasPrefix(b, []byte(t.Start))
}

// A refusal is a status and a word.
var refusal = regexp.MustCompile(`^([45]\d\d) ([a-z0-9-]+)$`)

// parseWant reads a whole log.
func parseWant(kind Kind, text string) (w Want, err error) {
	w.Verdict = Accepted
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if w.Verdict != Accepted {
			return w, fmt.Errorf("%q follows the end", line)
		}
		if err := w.line(kind, line); err != nil {
			return w, fmt.Errorf("%q: %w", line, err)
		}
	}
	if text == "" {
		return w, fmt.Errorf("empty")
	}
	return w, nil
}

// line reads one line of a log.
func (w *Want) line(kind Kind, line string) error {
	if line == "short" {
		w.Verdict = Short
		return nil
	}
	if found := refusal.FindStringSubmatch(line); found != nil {
		w.Verdict, w.Reason = Refused, found[2]
		w.Status, _ = strconv.Atoi(found[1]) // three digits
		return nil
	}
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "request":
		return w.request(rest)
	case "response":
		return w.response(rest)
	case "field", "hop":
		return w.field(word, rest)
	case "body":
		return w.body(kind, rest)
	case "forward":
		return whole(&w.Target, rest)
	case "rest":
		var text Text
		err := whole(&text, rest)
		w.Rest = text.Length
		return err
	case "data":
		return whole(&w.Content, rest)
	case "expect":
		w.OtherExpect = rest == "other"
		return nil
	case "...":
		w.FieldsCut = true
		return nil
	case "method", "timeout", "connection", "upgrade", "te":
		return nil // for whoever keeps the connection
	}
	return fmt.Errorf("unknown word %q", word)
}

// request reads `METHOD form "target" path="..." HTTP/1.1 host="..."`.
func (w *Want) request(line string) (err error) {
	method, rest, _ := strings.Cut(line, " ")
	_, rest, _ = strings.Cut(rest, " ") // the form
	w.Method = method
	if w.Target, _, err = parseText(rest); err != nil {
		return err
	}
	const before = " host="
	at := strings.LastIndex(rest, before)
	if at < 0 {
		return fmt.Errorf("no host=")
	}
	w.Host, err = strconv.Unquote(rest[at+len(before):])
	return err
}

// response reads `HTTP/1.1 200 "reason"`.
func (w *Want) response(line string) (err error) {
	words := strings.SplitN(line, " ", 3)
	if len(words) != 3 {
		return fmt.Errorf("want version, status, reason")
	}
	w.Status, err = strconv.Atoi(words[1])
	return err
}

// field reads `key Name "value"`.
func (w *Want) field(word, line string) error {
	words := strings.SplitN(line, " ", 3)
	if len(words) != 3 {
		return fmt.Errorf("want key, name, value")
	}
	f := Field{Key: words[0], Name: words[1]}
	if err := whole(&f.Value, words[2]); err != nil {
		return err
	}
	if word == "hop" {
		w.Dropped = append(w.Dropped, f)
	} else {
		w.Fields = append(w.Fields, f)
	}
	return nil
}

// body reads `length 5`; of a response the part after GET.
func (w *Want) body(kind Kind, line string) (err error) {
	if kind == Response {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "GET "), ",")
	}
	name, length, measured := strings.Cut(line, " ")
	w.Body.Kind = BodyKind(name)
	switch w.Body.Kind {
	case BodyNone, BodyChunked, BodyClose:
		if measured {
			return fmt.Errorf("a length of what has none")
		}
	case BodyLength:
		w.Body.Length, err = strconv.ParseUint(length, 10, 64)
	default:
		return fmt.Errorf("unknown framing %q", name)
	}
	return err
}

// whole reads a text that is all of a line's end.
func whole(t *Text, quoted string) (err error) {
	var rest string
	if *t, rest, err = parseText(quoted); err == nil && rest != "" {
		err = fmt.Errorf("%q follows the text", rest)
	}
	return err
}

// Long bytes are followed by their number.
var counted = regexp.MustCompile(`^\.\.\. \((\d+) bytes\)`)

// parseText reads `"all of it"`, or `"the first"... (300 bytes)`.
func parseText(line string) (t Text, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return t, "", fmt.Errorf("want a quoted text: %.40s", line)
	}
	rest = line[len(quoted):]
	if t.Start, err = strconv.Unquote(quoted); err != nil {
		return t, "", err
	}
	t.Length = len(t.Start)
	if found := counted.FindStringSubmatch(rest); found != nil {
		rest = rest[len(found[0]):]
		t.Length, err = strconv.Atoi(found[1])
	}
	return t, rest, err
}
