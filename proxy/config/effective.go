package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Value is what one key is set to, in one of the tables that have it.
type Value struct {
	Key   *Key
	Table string // "upstreams[1]"
	// Text is the value as a file has it. Variables are not replaced, so it may be
	// shown. Empty: the key is not set, and has no default.
	Text string
	// From is where it is from: "default", "atlas.toml:3", "environment PORT, atlas.toml:3".
	From string

	plain string
}

// Same reports that two values have the same effect, whatever they look like.
func (v *Value) Same(other *Value) bool { return v.plain == other.plain }

// Values are those of every key in every table that is there, in the order of the
// reference, but for keys that are another name of one.
func (r *Reading) Values() []Value {
	var all []Value
	for _, table := range r.reader.tables {
		switch table {
		case repeated:
			for i := range r.Config.Upstreams {
				all = r.addUpstream(all, i)
			}
		case checked: // with its upstream
		case certificates:
			if r.Config.Listen.TLS != nil {
				for i := range r.Config.Listen.TLS.Certificates {
					all = r.addCertificate(all, i)
				}
			}
		default:
			if _, there := r.reader.seen[table]; there || !slices.Contains(optional, table) {
				all = r.addTable(all, r.Config, table, table)
			}
		}
	}
	return all
}

func (r *Reading) addUpstream(all []Value, i int) []Value {
	view := *r.Config
	view.Upstreams = view.Upstreams[:i+1] // the keys are about the last one
	instance := fmt.Sprintf("%s[%d]", repeated, i)
	all = r.addTable(all, &view, repeated, instance)
	if view.Upstreams[i].HealthCheck != nil {
		all = r.addTable(all, &view, checked, instance+strings.TrimPrefix(checked, repeated))
	}
	return all
}

func (r *Reading) addCertificate(all []Value, i int) []Value {
	view, tls := *r.Config, *r.Config.Listen.TLS
	tls.Certificates = tls.Certificates[:i+1]
	view.Listen.TLS = &tls
	return r.addTable(all, &view, certificates, fmt.Sprintf("%s[%d]", certificates, i))
}

// addTable adds the keys of one table.
func (r *Reading) addTable(all []Value, view *Config, table, instance string) []Value {
	for i := range r.reader.keys {
		k := &r.reader.keys[i]
		if k.Table() != table || k.Alias != "" {
			continue
		}
		field := k.field(view)
		plain := written(field)
		l, set := r.reader.values[r.reader.named(k, instance)]
		if !set && k.Default == "" && reflect.ValueOf(field).Elem().IsZero() {
			plain = ""
		}
		v := Value{Key: k, Table: instance, Text: plain, From: "default", plain: plain}
		if set {
			v.Text = l.keepVariables(plain)
			v.From = fmt.Sprintf("%s:%d", printable([]rune(r.Config.File)), r.reader.doc.line(l.at))
			if names := l.names(); len(names) > 0 {
				v.From = "environment " + strings.Join(names, " ") + ", " + v.From
			}
		}
		all = append(all, v)
	}
	return all
}

// named is the path under which a key stands in the file, or its other name does.
func (r *reader) named(k *Key, instance string) string {
	path := instance + "." + k.Name()
	for i := range r.keys {
		if _, set := r.values[r.keys[i].Path]; set && r.keys[i].Alias == k.Path {
			return r.keys[i].Path
		}
	}
	return path
}

// names are the variables that the environment gave a value for, each once.
func (v *literal) names() []string {
	names := slices.Clone(v.variables)
	for i := range v.list {
		names = append(names, v.list[i].names()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keepVariables returns plain, the value as it is written, with what came from the
// environment as the file has it.
func (v *literal) keepVariables(plain string) string {
	switch {
	case len(v.variables) > 0:
		return strconv.Quote(v.written)
	case len(v.names()) == 0:
		return plain
	}
	members := make([]string, len(v.list))
	for i := range v.list {
		members[i] = strconv.Quote(v.list[i].written)
	}
	return "[" + strings.Join(members, ", ") + "]"
}

// written is how a file has the value of a field; "" is none. Strings have no control
// characters, so that Go and TOML quote them alike.
func written(field any) string {
	quote := func(text string) string { return strconv.Quote(strings.ReplaceAll(text, "$", "$$")) }
	v := reflect.ValueOf(field).Elem()
	switch d, timed := v.Interface().(time.Duration); {
	case timed:
		return quote(FormatDuration(d))
	case v.Kind() == reflect.String && v.Len() == 0:
		return ""
	case v.Kind() == reflect.String:
		return quote(v.String())
	case v.Kind() == reflect.Slice:
		members := make([]string, v.Len())
		for i := range members {
			members[i] = quote(fmt.Sprint(v.Index(i).Interface()))
		}
		return "[" + strings.Join(members, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// commentColumnMax is how far the values push what stands behind them.
const commentColumnMax = 44

// Print is the whole configuration as it takes effect: a file that says the same,
// with where each value is from.
func (r *Reading) Print() string {
	var b strings.Builder
	table := ""
	for _, v := range r.Values() {
		if v.Table != table {
			table = v.Table
			fmt.Fprintf(&b, "\n%s\n", brackets(v.Key.Table()))
		}
		if v.Text == "" {
			fmt.Fprintf(&b, "# %s is not set\n", v.Key.Name())
			continue
		}
		fmt.Fprintf(&b, "%-*s # %s\n", commentColumnMax, v.Key.Name()+" = "+v.Text, v.From)
	}
	return strings.TrimPrefix(b.String(), "\n")
}
