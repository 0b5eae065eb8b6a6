package corpus

import (
	"fmt"
	"strconv"
	"strings"
)

// repeatMax bounds what a repetition may grow to, in bytes.
const repeatMax = 1 << 20

// escapes are the notations of one letter.
var escapes = map[byte]byte{'r': '\r', 'n': '\n', 't': '\t', '0': 0, '\\': '\\'}

// unescape turns the notation of the corpus into bytes.
func unescape(text string) ([]byte, error) {
	text = strings.ReplaceAll(text, "|\n", "\n")
	return unescapeLine(strings.ReplaceAll(text, "\n", ""))
}

// unescapeLine is unescape once the layout is gone.
func unescapeLine(text string) (out []byte, err error) {
	for len(text) > 0 {
		if text[0] != '\\' {
			out = append(out, text[0])
			text = text[1:]
			continue
		}
		if len(text) < 2 {
			return nil, fmt.Errorf("a backslash at the end")
		}
		simple, known := escapes[text[1]]
		switch {
		case known:
			out = append(out, simple)
			text = text[2:]
		case text[1] == 'x' && len(text) >= 4:
			value, err := strconv.ParseUint(text[2:4], 16, 8)
			if err != nil {
				return nil, fmt.Errorf("escape %s: want two hexadecimal digits", text[:4])
			}
			out = append(out, byte(value))
			text = text[4:]
		case text[1] == '(':
			var repeated []byte
			if repeated, text, err = repetition(text[2:]); err != nil {
				return nil, err
			}
			out = append(out, repeated...)
		default:
			return nil, fmt.Errorf("unknown escape %s", text[:2])
		}
	}
	return out, nil
}

// repetition reads what follows the `\(` of `\(N*text)`.
func repetition(text string) (out []byte, rest string, err error) {
	count, inner, starred := strings.Cut(text, "*")
	inner, rest, closed := strings.Cut(inner, ")")
	n, err := strconv.Atoi(count)
	if !starred || !closed || err != nil || n < 0 {
		return nil, "", fmt.Errorf(`repetition \(%.20s: want \(N*text)`, text)
	}
	if strings.Contains(inner, `\(`) {
		return nil, "", fmt.Errorf(`repetition \(%.20s: they do not nest`, text)
	}
	once, err := unescapeLine(inner)
	if err != nil {
		return nil, "", err
	}
	if n*len(once) > repeatMax {
		return nil, "", fmt.Errorf(`repetition \(%.20s: more than %d bytes`, text, repeatMax)
	}
	for range n {
		out = append(out, once...)
	}
	return out, rest, nil
}
