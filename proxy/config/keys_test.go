package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Every field of Config has its row in the table of keys, and every row that
// is no alias its field.
func TestKeysAndFields(t *testing.T) {
	config := &Config{Upstreams: []Upstream{{HealthCheck: new(HealthCheck)}}, Listen: Listen{TLS: &TLS{Certificates: []Certificate{{}}}}}
	fields := make(map[any]string) // by address
	var collect func(v reflect.Value, path string)
	collect = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				collect(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		case reflect.Pointer:
			collect(v.Elem(), path)
		case reflect.Slice:
			if v.Len() == 0 { // of values, which one key sets
				fields[v.Addr().Interface()] = path
				return
			}
			collect(v.Index(0), path)
		default:
			fields[v.Addr().Interface()] = path
		}
	}
	collect(reflect.ValueOf(config).Elem(), "Config")
	delete(fields, &config.File)

	rows := make(map[any]string)
	for _, k := range Keys() {
		field := k.field(config)
		assert.NotEmpty(t, fields[field], "key %s sets no field of Config", k.Path)
		if k.Alias == "" {
			assert.Empty(t, rows[field], "key %s sets the field of another", k.Path)
			rows[field] = k.Path
		}
	}
	for field, path := range fields {
		assert.NotEmpty(t, rows[field], "%s has no row in Keys", path)
	}
}

func TestKeys(t *testing.T) {
	paths := make(map[string]bool)
	for _, k := range Keys() {
		assert.False(t, paths[k.Path], "%s is there twice", k.Path)
		paths[k.Path] = true
		assert.True(t, strings.HasSuffix(k.Doc, "."), "the sentence of %s ends", k.Path)
		assert.NotContains(t, strings.TrimSuffix(k.Doc, "."), ". ", "%s has one sentence", k.Path)
		assert.Equal(t, k.Type == Enum, len(k.Values) > 0, k.Path)
		assert.LessOrEqual(t, k.Min, k.Max, k.Path)
		assert.False(t, k.Required && k.Default != "", "%s is required and has a default", k.Path)
		assert.Contains(t, []Reload{Live, NewConnections, NeedsUpgrade}, k.Reload, k.Path)
		if k.Alias != "" {
			assert.True(t, k.Default == "" && !k.Required, "%s is an alias", k.Path)
		}
	}
	for _, k := range Keys() {
		if k.Alias != "" {
			assert.True(t, paths[k.Alias], "%s is an alias of no key", k.Path)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"address", "port", "mode", "workers", "round_robin", "a"}
	for _, row := range []struct{ word, want string }{
		{"prot", "port"},
		{"Port", "port"},
		{"ports", "port"},
		{"adress", "address"},
		{"worker", "workers"},
		{"round-robin", "round_robin"},
		{"roundrobin", "round_robin"},
		{"m", ""},
		{"xyz", ""},
		{"", ""},
		{strings.Repeat("port", 20), ""},
	} {
		assert.Equal(t, row.want, Nearest(row.word, names), row.word)
	}
}

func TestDistance(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"port", "port", 0}, {"prot", "port", 1},
		{"kitten", "sitting", 3}, {"ab", "ba", 1}, {"abc", "ca", 3},
	} {
		assert.Equal(t, row.want, distance(row.a, row.b), "%q %q", row.a, row.b)
	}
}
