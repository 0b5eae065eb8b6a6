package proxyhead

import (
	"crypto/tls"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	client4 = netip.MustParseAddrPort("192.0.2.7:40000")
	server4 = netip.MustParseAddrPort("198.51.100.1:443")
	client6 = netip.MustParseAddrPort("[2001:db8::7]:40000")
	server6 = netip.MustParseAddrPort("[2001:db8::1]:443")
)

// binary2 is a version 2 header with that command, family, and rest.
func binary2(command, family byte, rest string) string {
	head := append(append([]byte(nil), signature2...), command, family)
	return string(binary.BigEndian.AppendUint16(head, uint16(len(rest)))) + rest
}

const (
	addresses4 = "\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x01\xbb"
	addresses6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x9c\x40\x01\xbb"
)

// summed is a header with its checksum in the field that stands last.
func summed(head string) string {
	b := []byte(head)
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

// valid are headers, and what they say.
var valid = map[string]struct {
	text string
	want Header
}{
	"a line, IPv4":           {"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n", Header{From: client4, To: server4}},
	"a line, IPv6":           {"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", Header{From: client6, To: server6}},
	"unknown":                {"PROXY UNKNOWN\r\n", Header{}},
	"unknown, with whatever": {"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Header{}},
	"the longest line":       {"PROXY UNKNOWN " + strings.Repeat("x", lineMax-16) + "\r\n", Header{}},
	"binary, IPv4":           {binary2(0x21, 0x11, addresses4), Header{From: client4, To: server4}},
	"binary, IPv6":           {binary2(0x21, 0x21, addresses6), Header{From: client6, To: server6}},
	"mapped addresses": {
		binary2(0x21, 0x21, mapped(client4)+mapped(server4)+"\x9c\x40\x01\xbb"), Header{From: client4, To: server4},
	},
	"local":                    {binary2(0x20, 0x00, ""), Header{}},
	"local, with addresses":    {binary2(0x20, 0x11, addresses4), Header{}},
	"local, with whatever":     {binary2(0x20, 0x11, "some"), Header{}},
	"unspecified":              {binary2(0x21, 0x00, ""), Header{}},
	"unspecified, with more":   {binary2(0x21, 0x00, "\x04\x00\x01x"), Header{}},
	"datagrams are not for us": {binary2(0x21, 0x12, addresses4), Header{}},
	"a Unix socket":            {binary2(0x21, 0x31, "/client"+strings.Repeat("\x00", 101)+strings.Repeat("\x00", 108)), Header{}},
	"fields behind":            {binary2(0x21, 0x11, addresses4+"\x01\x00\x02h2\x04\x00\x00"), Header{From: client4, To: server4}},
	"a checksum": {
		summed(binary2(0x21, 0x11, addresses4+"\x03\x00\x04\x00\x00\x00\x00")), Header{From: client4, To: server4},
	},
	"the longest binary header": {
		binary2(0x21, 0x11, addresses4+"\x04"+"\x0f\xf1"+strings.Repeat("n", 0xff1)), Header{From: client4, To: server4},
	},
}

func mapped(a netip.AddrPort) string {
	b := a.Addr().As16()
	return string(b[:])
}

func TestParse(t *testing.T) {
	for name, row := range valid {
		t.Run(name, func(t *testing.T) {
			var p Parser
			for _, behind := range []string{"", "GET / HTTP/1.1\r\n", row.text} {
				n, got, err := p.Parse([]byte(row.text + behind))
				require.NoError(t, err)
				assert.Equal(t, len(row.text), n)
				assert.Equal(t, row.want, got)
			}
			for cut := range row.text {
				n, _, err := p.Parse([]byte(row.text[:cut]))
				assert.Equal(t, ErrShort, err, "after %d bytes", cut)
				assert.Zero(t, n)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"no header":                 {"GET / HTTP/1.1\r\n", "no PROXY header"},
		"something of TLS":          {"\x16\x03\x01", "no PROXY header"},
		"lower case":                {"proxy TCP4", "no PROXY header"},
		"a tab":                     {"PROXY\tTCP4", "no PROXY header"},
		"half of a signature":       {"\r\n\r\nGET", "no PROXY header"},
		"no end":                    {"PROXY UNKNOWN " + strings.Repeat("x", lineMax), "too long"},
		"a line that is too long":   {"PROXY UNKNOWN " + strings.Repeat("x", lineMax-15) + "\r\n", "too long"},
		"no CR":                     {"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\n", "must end with"},
		"another protocol":          {"PROXY UDP4 192.0.2.7 198.51.100.1 40000 443\r\n", "PROXY header"},
		"another family":            {"PROXY TCP4 2001:db8::7 2001:db8::1 40000 443\r\n", "PROXY header"},
		"too few":                   {"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n", "PROXY header"},
		"too many":                  {"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443 1\r\n", "PROXY header"},
		"two spaces":                {"PROXY TCP4  192.0.2.7 198.51.100.1 40000 443\r\n", "PROXY header"},
		"a name":                    {"PROXY TCP4 localhost 198.51.100.1 40000 443\r\n", "PROXY header"},
		"a zone":                    {"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 443\r\n", "PROXY header"},
		"a port that is none":       {"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", "PROXY header"},
		"a signed port":             {"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n", "PROXY header"},
		"version 1 in binary":       {binary2(0x11, 0x11, addresses4), "PROXY header"},
		"another command":           {binary2(0x22, 0x11, addresses4), "PROXY header"},
		"another family in binary":  {binary2(0x21, 0x41, addresses4), "PROXY header"},
		"another transport":         {binary2(0x21, 0x13, addresses4), "PROXY header"},
		"addresses that are cut":    {binary2(0x21, 0x11, addresses4[:11]), "PROXY header"},
		"a field that is cut":       {binary2(0x21, 0x11, addresses4+"\x01\x00\x03h2"), "broken fields"},
		"a field without a length":  {binary2(0x21, 0x11, addresses4+"\x01\x00"), "broken fields"},
		"another checksum":          {binary2(0x21, 0x11, addresses4+"\x03\x00\x04\x00\x00\x00\x00"), "checksum"},
		"a header that is too long": {binary2(0x21, 0x11, addresses4+"\x04"+"\x0f\xf2"+strings.Repeat("n", 0xff2)), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			var p Parser
			n, got, err := p.Parse([]byte(row.text))
			assert.ErrorContains(t, err, row.want)
			assert.NotEqual(t, ErrShort, err)
			assert.Zero(t, n)
			assert.Zero(t, got)
		})
	}
}

func TestAppend(t *testing.T) {
	for name, row := range map[string]struct {
		version Version
		header  Header
		want    string
	}{
		"a line": {
			V1, Header{From: client4, To: server4, TLS: new(tls.ConnectionState)}, "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n",
		},
		"a line, IPv6": {V1, Header{From: client6, To: server6}, "PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n"},
		"a line, none": {V1, Header{}, "PROXY UNKNOWN\r\n"},
		"binary":       {V2, Header{From: client4, To: server4}, binary2(0x21, 0x11, addresses4)},
		"binary, IPv6": {V2, Header{From: client6, To: server6}, binary2(0x21, 0x21, addresses6)},
		"our own":      {V2, Header{}, binary2(0x20, 0, "")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Append([]byte("before "), row.version, row.header)
			require.NoError(t, err)
			assert.Equal(t, "before "+row.want, string(got))
			var p Parser
			n, back, err := p.Parse(got[len("before "):])
			require.NoError(t, err)
			assert.Equal(t, len(row.want), n)
			assert.Equal(t, row.header.From, back.From)
			assert.Equal(t, row.header.To, back.To)
		})
	}
}

// FuzzParse: whatever comes, a header is found at every cut of it or not at all,
// says the same each time, and can be written again.
func FuzzParse(f *testing.F) {
	for _, row := range valid {
		f.Add([]byte(row.text))
	}
	f.Add([]byte(binary2(0x21, 0x13, addresses4)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Parser
		n, h, err := p.Parse(b)
		if err != nil {
			if n != 0 || h != (Header{}) {
				t.Fatalf("%d, %v with %v", n, h, err)
			}
			return
		}
		for cut := range n {
			if _, _, err := p.Parse(b[:cut]); err != ErrShort {
				t.Fatalf("cut at %d of %d: %v", cut, n, err)
			}
		}
		if h.From.IsValid() != h.To.IsValid() {
			t.Fatalf("half of the addresses: %v", h)
		}
		for _, v := range []Version{V1, V2} {
			again, err := Append(nil, v, h)
			if err != nil {
				t.Fatal(err)
			}
			if m, back, err := p.Parse(again); err != nil || m != len(again) || back != h {
				t.Fatalf("%v became %v, %v", h, back, err)
			}
		}
	})
}
