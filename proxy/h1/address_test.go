package h1

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1":              "192.0.2.1",
		"192.0.2.1:4711":         "192.0.2.1",
		"192.0.2.1:":             "192.0.2.1",
		"2001:db8::1":            "2001:db8::1",
		"2001:DB8::1":            "2001:db8::1",
		"[2001:db8::1]":          "2001:db8::1",
		"[2001:db8::1]:4711":     "2001:db8::1",
		"::":                     "::",
		"::1":                    "::1",
		"1::":                    "1::",
		"1:2:3:4:5:6:7:8":        "1:2:3:4:5:6:7:8",
		"1:2:3:4:5:6:192.0.2.1":  "1:2:3:4:5:6:c000:201",
		"::ffff:192.0.2.1":       "192.0.2.1",
		"[::ffff:192.0.2.1]:443": "192.0.2.1",
		"":                       "",
		"unknown":                "",
		"_hidden":                "",
		"192.0.2":                "",
		"192.0.2.1.1":            "",
		"192.0.2.256":            "",
		"192.0.2.01":             "",
		"192.0.2.1:66666":        "",
		"192.0.2.1:http":         "",
		"[192.0.2.1]":            "",
		"[2001:db8::1":           "",
		"[2001:db8::1]x":         "",
		"[2001:db8::1]:x":        "",
		"2001:db8::1::":          "",
		"2001:db8:":              "",
		":1":                     "",
		"1:2:3:4:5:6:7":          "",
		"1:2:3:4:5:6:7:8:9":      "",
		"1:2:3:4:5:6:7::8":       "",
		"12345::":                "",
		"fe80::1%eth0":           "",
		"::192.0.2.1:1":          "",
		"1:2:3:4:5:6:7:1.2.3.4":  "",
	} {
		got, ok := ParseAddress([]byte(text))
		assert.Equal(t, want != "", ok, "%q", text)
		if want != "" {
			assert.Equal(t, netip.MustParseAddr(want), got, "%q", text)
		}
	}
}

// The standard library is asked about texts that are nearly addresses.
func TestParseAddressAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{":", "::", ".", "0", "1", "12", "255", "256", "abc", "FFFF", "fffff", "192.0.2.1"}
	accepted := 0
	for range 300_000 {
		var text string
		for range 1 + rng.IntN(16) {
			text += parts[rng.IntN(len(parts))]
		}
		want, err := netip.ParseAddr(text)
		got, ok := ParseAddress([]byte(text))
		if err == nil {
			accepted++
			if !assert.True(t, ok, "%q", text) || !assert.Equal(t, want.Unmap(), got, "%q", text) {
				return
			}
			continue
		}
		if host, port := splitPort([]byte(text)); ok && isPort(port) {
			_, err = netip.ParseAddr(string(host)) // with a port
		}
		if !assert.Equal(t, err == nil, ok, "%q", text) {
			return
		}
	}
	assert.Greater(t, accepted, 1000)
}

func TestParseAddressAllocs(t *testing.T) {
	text := []byte("[2001:db8::ffff:192.0.2.1]:4711")
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = ParseAddress(text) }))
}
