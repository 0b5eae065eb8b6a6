package accesslog

import (
	"fmt"
	"strings"
)

// The formats that have a name. Anything with a brace in it is a template.
const (
	Off      = "off"
	JSON     = "json"
	Common   = "common"
	Combined = "combined"
)

// What the formats with a name are as templates: those of Apache's httpd, which
// everything that reads logs understands.
const (
	commonTemplate   = `{client} - - [{time_common}] "{request}" {status} {bytes}`
	combinedTemplate = commonTemplate + ` "{referer}" "{agent}"`
)

// Format makes lines of records. It never changes.
type Format struct {
	steps []step // nil: JSON
}

// step is a piece of a template: a literal, or a variable.
type step struct {
	literal string
	append  appender
}

// appender appends a variable of a record.
type appender func(b []byte, e *Record, c *clock) []byte

// FormatError is what is wrong with a format.
type FormatError struct {
	Message string
	Unknown string // the variable, if it is that
}

func (e *FormatError) Error() string { return e.Message }

// ParseFormat reads the value of `format`. nil without an error is Off.
func ParseFormat(text string) (*Format, error) {
	switch text {
	case Off:
		return nil, nil
	case JSON:
		return new(Format), nil
	case Common:
		text = commonTemplate
	case Combined:
		text = combinedTemplate
	}
	if !strings.Contains(text, "{") {
		return nil, &FormatError{Message: fmt.Sprintf("%q is neither a format nor has it a variable in it", text)}
	}
	steps, err := parseTemplate(text)
	if err != nil {
		return nil, err
	}
	return &Format{steps: steps}, nil
}

// parseTemplate splits a template. Two braces stand for one.
func parseTemplate(text string) (steps []step, err error) {
	var literal []byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		twice := i+1 < len(text) && text[i+1] == c
		switch {
		case (c == '{' || c == '}') && twice:
			literal = append(literal, c)
			i++
		case c == '}':
			return nil, &FormatError{Message: "a } without a {: two of them stand for one"}
		case c == '{':
			length := strings.IndexByte(text[i:], '}')
			if length < 0 {
				return nil, &FormatError{Message: "a { without a }: two of them stand for one"}
			}
			name := text[i+1 : i+length]
			v := find(name)
			if v == nil {
				return nil, &FormatError{Message: fmt.Sprintf("there is no variable %q", name), Unknown: name}
			}
			if len(literal) > 0 {
				steps = append(steps, step{literal: string(literal)})
				literal = nil
			}
			steps = append(steps, step{append: v.append})
			i += length
		case c < ' ' || c == 0x7f:
			return nil, &FormatError{Message: "a format is one line: there is a control character in it"}
		default:
			literal = append(literal, c)
		}
	}
	if len(literal) > 0 {
		steps = append(steps, step{literal: string(literal)})
	}
	return steps, nil
}

// append appends the line of a record.
func (f *Format) append(b []byte, e *Record, c *clock) []byte {
	if f.steps == nil {
		return appendJSON(b, e, c)
	}
	for i := range f.steps {
		if s := &f.steps[i]; s.append != nil {
			b = s.append(b, e, c)
		} else {
			b = append(b, s.literal...)
		}
	}
	return append(b, '\n')
}
