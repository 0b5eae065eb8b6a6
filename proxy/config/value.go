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

// assign checks a value of the file against its key and stores it. With faults,
// which say what the file says of variables and not their values, nothing is stored.
func (k *Key) assign(field any, v literal) (faults []placed) {
	if k.Type == List {
		return k.assignList(field, v)
	}
	if f := k.assignScalar(field, v); f != nil {
		faults = append(faults, placed{v.hide(k, *f), v.at})
	}
	return faults
}

func (k *Key) assignScalar(field any, v literal) *fault {
	switch k.Type {
	case Boolean:
		return k.assignBoolean(field, v)
	case Integer:
		return k.assignInteger(field, v)
	case Bytes:
		return k.assignBytes(field, v)
	case Duration:
		return k.assignDuration(field, v)
	}
	return k.assignString(field, v)
}

// assignList takes an array of strings, or of networks.
func (k *Key) assignList(field any, v literal) (faults []placed) {
	if v.kind != unstable.Array {
		return []placed{{*k.mistaken(kindNoun(v.kind)), v.at}}
	}
	var texts []string
	var networks []netip.Prefix
	for _, member := range v.list {
		if member.kind != unstable.String {
			f := k.mistaken("an array with " + kindNoun(member.kind) + " in it")
			faults = append(faults, placed{*f, member.at})
			continue
		}
		var f *fault
		switch field.(type) {
		case *[]string:
			f = k.check(member.text)
			texts = append(texts, member.text)
		default:
			var network netip.Prefix
			network, f = parsePrefix(member.text)
			networks = append(networks, network)
		}
		if f != nil {
			faults = append(faults, placed{member.hide(k, *f), member.at})
		}
	}
	if faults != nil {
		return faults
	}
	switch f := field.(type) {
	case *[]string:
		*f = texts
	case *[]netip.Prefix:
		*f = networks
	}
	return nil
}

func (k *Key) assignBoolean(field any, v literal) *fault {
	if v.kind != unstable.Bool && !v.single {
		return k.mistaken(kindNoun(v.kind))
	}
	if v.text != "true" && v.text != "false" {
		return k.mistaken(quoted(v.text))
	}
	*field.(*bool) = v.text == "true"
	return nil
}

func (k *Key) assignInteger(field any, v literal) *fault {
	base := 0 // what TOML has
	switch {
	case v.kind == unstable.String && v.single:
		base = 10 // an environment has no other, and 010 there is ten
		if _, err := strconv.ParseFloat(v.text, 64); err != nil {
			return k.mistaken(quoted(v.text))
		}
	case v.kind != unstable.Integer:
		return k.mistaken(kindNoun(v.kind))
	}
	n, err := strconv.ParseInt(v.text, base, 64)
	if err != nil {
		return k.outOfRange(v.text)
	}
	return k.store(field, n, v.text)
}

func (k *Key) assignBytes(field any, v literal) *fault {
	if v.kind == unstable.Integer || v.single && strings.Trim(v.text, "0123456789") == "" {
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
	return &fault{fmt.Sprintf("`%s` takes %s, not %s", k.Name(), k.Type.noun(), found), "write " + k.Example()}
}

func (k *Key) outOfRange(text string) *fault {
	f := &fault{message: fmt.Sprintf("%s is out of range for `%s`", text, k.Name())}
	switch {
	case k.Type == Duration:
		f.hint = fmt.Sprintf("give at least %s and at most %s",
			FormatDuration(time.Duration(k.Min)), FormatDuration(time.Duration(k.Max)))
	case k.Max == math.MaxInt64:
		f.hint = fmt.Sprintf("give at least %d", k.Min)
	default:
		f.hint = fmt.Sprintf("give %d to %d", k.Min, k.Max)
	}
	return f
}

// Example shows how a value of the key is written.
func (k *Key) Example() string {
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

// FormatDuration prints 24h as "24h", not as "24h0m0s".
func FormatDuration(d time.Duration) string {
	text := d.String()
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
