// Package reference writes down what the configuration may say, in the forms in which
// people and editors ask: a page, a help for each key, a JSON Schema. All of it comes
// from the tables of package config; there is nothing here that has to be kept up
// when a key is added. It reads and writes no files.
package reference

import (
	"fmt"
	"math"
	"strings"
	"time"

	"atlas/proxy/config"
)

// header is how a table begins in a file.
func header(t *config.Table) string {
	if t.Repeated {
		return "[[" + t.Path + "]]"
	}
	return "[" + t.Path + "]"
}

// takes says what a key takes, and in which bounds.
func takes(k *config.Key) string {
	switch k.Type {
	case config.Boolean:
		return "true or false"
	case config.Integer:
		return "integer, " + span(fmt.Sprint(k.Min), k.Max == math.MaxInt64, fmt.Sprint(k.Max))
	case config.Bytes:
		return "bytes, as an integer or such as \"64MiB\"; " +
			span(fmt.Sprint(k.Min), k.Max == math.MaxInt64, fmt.Sprint(k.Max))
	case config.Duration:
		return "duration, such as \"10s\" or \"1m30s\"; " + span(config.FormatDuration(time.Duration(k.Min)), false,
			config.FormatDuration(time.Duration(k.Max)))
	case config.List:
		return "array of strings"
	case config.Enum:
		return "one of " + quotedList(k.Values)
	}
	return "string"
}

func span(least string, endless bool, most string) string {
	if endless {
		return "at least " + least
	}
	return least + " to " + most
}

func quotedList(values []string) string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(list, ", ")
}

// standard says what a key is without being set.
func standard(k *config.Key) string {
	switch {
	case k.Alias != "":
		return "another name of " + k.Alias
	case k.Required:
		return "none, it is required"
	case k.Default == "":
		return "none"
	case k.InTCP != "":
		return fmt.Sprintf("%s, in mode \"tcp\" %s", k.Default, k.InTCP)
	}
	return k.Default
}

// used says which modes have a use for a key.
func used(k *config.Key) string {
	if len(k.Modes) == 0 {
		return "all"
	}
	list := make([]string, len(k.Modes))
	for i, m := range k.Modes {
		list[i] = string(m)
	}
	return strings.Join(list, ", ")
}

// reloads explains a kind of Reload.
func reloads(r config.Reload) string {
	switch r {
	case config.Live:
		return "live: open connections have it from their next request"
	case config.NewConnections:
		return "new connections: those that are open keep what they began with"
	case config.NeedsUpgrade:
		return "needs an upgrade: a reload that changes it is refused as a whole"
	}
	return string(r)
}

// keysOf are the keys of a table.
func keysOf(t *config.Table) []config.Key {
	var keys []config.Key
	for _, k := range config.Keys() {
		if k.Table() == t.Path {
			keys = append(keys, k)
		}
	}
	return keys
}
