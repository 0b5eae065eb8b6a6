package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"atlas/proxy/balance"
)

// assign checks a value of the file against its key and stores it. On a fault,
// which is about the piece of the file at, nothing is stored.
func (k *Key) assign(field any, v literal) (f *fault, at span) {
	switch k.Type {
	case Boolean:
		return k.assignBoolean(field, v), v.at
	case Integer:
		return k.assignInteger(field, v), v.at
	case Bytes:
		return k.assignBytes(field, v), v.at
	case Duration:
		return k.assignDuration(field, v), v.at
	case List:
		return k.assignList(field, v)
	}
	return k.assignString(field, v), v.at
}

// assignList takes an array of networks: there are no other lists.
func (k *Key) assignList(field any, v literal) (*fault, span) {
	if v.kind != unstable.Array {
		return k.mistaken(kindNoun(v.kind)), v.at
	}
	var networks []netip.Prefix
	for _, member := range v.list {
		if member.kind != unstable.String {
			return k.mistaken("an array with " + kindNoun(member.kind) + " in it"), member.at
		}
		network, f := parsePrefix(member.text)
		if f != nil {
			return f, member.at
		}
		networks = append(networks, network)
	}
	*field.(*[]netip.Prefix) = networks
	return nil, span{}
}

func (k *Key) assignBoolean(field any, v literal) *fault {
	if v.kind != unstable.Bool {
		return k.mistaken(kindNoun(v.kind))
	}
	*field.(*bool) = v.text == "true"
	return nil
}

func (k *Key) assignInteger(field any, v literal) *fault {
	if v.kind != unstable.Integer {
		return k.mistaken(kindNoun(v.kind))
	}
	n, err := strconv.ParseInt(v.text, 0, 64)
	if err != nil {
		return k.outOfRange(v.text)
	}
	return k.store(field, n, v.text)
}

func (k *Key) assignBytes(field any, v literal) *fault {
	if v.kind == unstable.Integer {
		return k.assignInteger(field, v)
	}
	if v.kind != unstable.String {
		return k.mistaken(kindNoun(v.kind))
	}
	n, ok := parseBytes(v.text)
	if !ok {
		return &fault{fmt.Sprintf("%s is no number of bytes", quoted(v.text)),
			`write an integer, or a string with one of the units B, KB, KiB, MB, MiB, GB, GiB: "64MiB"`}
	}
	return k.store(field, n, v.text)
}

func (k *Key) assignDuration(field any, v literal) *fault {
	if v.kind == unstable.Integer || v.kind == unstable.Float {
		return &fault{fmt.Sprintf("`%s` has no unit", k.Name()), fmt.Sprintf(`write "%ss" for seconds`, v.text)}
	}
	if v.kind != unstable.String {
		return k.mistaken(kindNoun(v.kind))
	}
	if _, err := strconv.ParseFloat(v.text, 64); err == nil {
		return &fault{fmt.Sprintf("`%s` has no unit", k.Name()), fmt.Sprintf(`write "%ss" for seconds`, v.text)}
	}
	d, err := time.ParseDuration(v.text)
	if err != nil {
		return &fault{fmt.Sprintf("%s is no duration", quoted(v.text)),
			`write a number and one of the units ms, s, m, h: "10s" or "1m30s"`}
	}
	return k.store(field, int64(d), v.text)
}

func (k *Key) store(field any, n int64, text string) *fault {
	if n < k.Min || n > k.Max {
		return k.outOfRange(text)
	}
	switch f := field.(type) {
	case *int:
		*f = int(n)
	case *int64:
		*f = n
	case *time.Duration:
		*f = time.Duration(n)
	default:
		panic(fmt.Sprintf("config: %s has a field of type %T", k.Path, field))
	}
	return nil
}

func (k *Key) assignString(field any, v literal) *fault {
	if v.kind != unstable.String {
		return k.mistaken(kindNoun(v.kind))
	}
	if strings.ContainsFunc(v.text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return &fault{fmt.Sprintf("`%s` has a control character in it", k.Name()), "remove it"}
	}
	if k.Type == Enum && !contains(k.Values, v.text) {
		return &fault{fmt.Sprintf("%s is no %s", quoted(v.text), k.Name()), k.choices(v.text)}
	}
	if k.check != nil {
		if f := k.check(v.text); f != nil {
			return f
		}
	}
	switch f := field.(type) {
	case *string:
		*f = v.text
	case *Mode:
		*f = Mode(v.text)
	case *Engine:
		*f = Engine(v.text)
	case *balance.Strategy:
		*f = balance.Strategy(v.text)
	case *ClientAuth:
		*f = ClientAuth(v.text)
	case *TLSVersion:
		*f = TLSVersion(v.text)
	default:
		panic(fmt.Sprintf("config: %s has a field of type %T", k.Path, field))
	}
	return nil
}

// mistaken says what was found, which type is wanted and how it is written.
func (k *Key) mistaken(found string) *fault {
	return &fault{fmt.Sprintf("`%s` takes %s, not %s", k.Name(), k.Type.noun(), found), "write " + k.example()}
}

func (k *Key) outOfRange(text string) *fault {
	f := &fault{message: fmt.Sprintf("%s is out of range for `%s`", text, k.Name())}
	switch {
	case k.Type == Duration:
		f.hint = fmt.Sprintf("give at least %s and at most %s", duration(k.Min), duration(k.Max))
	case k.Max == math.MaxInt64:
		f.hint = fmt.Sprintf("give at least %d", k.Min)
	default:
		f.hint = fmt.Sprintf("give %d to %d", k.Min, k.Max)
	}
	return f
}

// example shows how a value of the key is written.
func (k *Key) example() string {
	value := k.Default
	if value == "" || k.Type == List {
		switch k.Type {
		case Integer:
			value = "8080"
		case List:
			value = `["..."]`
		default:
			value = `"..."`
		}
	}
	return fmt.Sprintf("%s = %s", k.Name(), value)
}

func (t Type) noun() string {
	switch t {
	case Integer:
		return "an integer"
	case Boolean:
		return "true or false"
	case Bytes:
		return "a number of bytes"
	case Duration:
		return "a duration in quotes"
	case List:
		return "an array of strings"
	}
	return "a string in quotes"
}

func kindNoun(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "true or false"
	case unstable.Float:
		return "a fraction"
	case unstable.Integer:
		return "an integer"
	case unstable.Array:
		return "an array"
	}
	return "a date or time"
}

// parseBytes reads a number of bytes with a unit. A bare K or M is refused:
// half the world takes it for 1000 and half for 1024.
func parseBytes(text string) (int64, bool) {
	units := []struct {
		name  string
		bytes int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1},
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			return 0, false
		}
		return n * u.bytes, true
	}
	return 0, false
}

// duration prints 24h as "24h", not as "24h0m0s".
func duration(ns int64) string {
	text := time.Duration(ns).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// quoted shows a value of the file in a message, cut where it is long.
func quoted(text string) string {
	const shown = 40
	if runes := []rune(text); len(runes) > shown {
		text = string(runes[:shown]) + "..."
	}
	return strconv.Quote(text)
}
