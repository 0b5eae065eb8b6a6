package static

import (
	"bytes"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAppendName(t *testing.T) {
	for _, row := range []struct{ name, path, want, problem string }{
		{name: "a file", path: "/a.txt", want: "a.txt"},
		{name: "a file further down", path: "/a/b/c.txt", want: "a/b/c.txt"},
		{name: "the root", path: "/", want: ""},
		{name: "no path at all, as in the absolute form", path: "", want: ""},
		{name: "a directory keeps its slash", path: "/a/b/", want: "a/b/"},
		{name: "dots inside of a name", path: "/a..b/c.d.e", want: "a..b/c.d.e"},
		{name: "three dots are a name", path: "/.../a", want: ".../a"},
		{name: "a name that begins with two dots", path: "/..a/b", want: "..a/b"},

		{name: "an encoded letter", path: "/%61.txt", want: "a.txt"},
		{name: "hex digits of either case", path: "/%c3%A4", want: "\u00e4"},
		{name: "an encoded space", path: "/a%20b", want: "a b"},
		{name: "plus is no space", path: "/a+b", want: "a+b"},
		{name: "an encoded percent is not decoded again", path: "/%252e%252e/a", want: "%2e%2e/a"},
		{name: "bytes that are not UTF-8", path: "/%ff%fe", want: "\xff\xfe"},
		{name: "a question mark inside of a name", path: "/a%3Fb", want: "a?b"},

		{name: "a dot segment", path: "/a/./b", want: "a/b"},
		{name: "a dot segment in front", path: "/./a", want: "a"},
		{name: "a dot segment at the end is a directory", path: "/a/.", want: "a/"},
		{name: "only a dot", path: "/.", want: ""},
		{name: "up and down", path: "/a/../b", want: "b"},
		{name: "up twice", path: "/a/b/../../c", want: "c"},
		{name: "up at the end is a directory", path: "/a/b/..", want: "a/"},
		{name: "up to the root", path: "/a/..", want: ""},
		{name: "up to the root and its slash", path: "/a/../", want: ""},
		{name: "encoded dots", path: "/a/%2e%2E/b", want: "b"},
		{name: "an encoded slash separates", path: "/a%2Fb%2f..%2fc", want: "a/c"},

		{name: "double slashes", path: "/a//b", want: "a/b"},
		{name: "double slashes in front", path: "//a", want: "a"},
		{name: "double slashes at the end", path: "/a//", want: "a/"},
		{name: "only slashes", path: "////", want: ""},
		{name: "an encoded slash in front", path: "/%2f%2Fevil.com", want: "evil.com"},

		{name: "a climb", path: "/..", problem: "out of the root"},
		{name: "a climb to a file", path: "/../etc/passwd", problem: "out of the root"},
		{name: "a climb after going down", path: "/a/../../b", problem: "out of the root"},
		{name: "an encoded climb", path: "/%2e%2e/%2e%2e/etc/passwd", problem: "out of the root"},
		{name: "a climb by encoded slashes", path: "/..%2f..%2fetc%2fpasswd", problem: "out of the root"},
		{name: "a climb behind double slashes", path: "/a//..//../b", problem: "out of the root"},
		{name: "a climb that comes back", path: "/../root/a", problem: "out of the root"},
		{name: "an encoded NUL", path: "/a%00.txt", problem: "NUL"},
		{name: "a NUL", path: "/a\x00", problem: "NUL"},
		{name: "a backslash", path: `/a\b`, problem: "backslash"},
		{name: "a climb by backslashes", path: `/..%5c..%5cboot.ini`, problem: "backslash"},
		{name: "a percent alone", path: "/a%", problem: "ends inside"},
		{name: "half a percent-encoding", path: "/a%4", problem: "ends inside"},
		{name: "no hex digits", path: "/%zz", problem: "hex digits"},
		{name: "a second digit that is none", path: "/%4g", problem: "hex digits"},
		{name: "an encoding as applications invent it", path: "/%u0041", problem: "hex digits"},
	} {
		t.Run(row.name, func(t *testing.T) {
			name, problem := appendName(make([]byte, 0, 4), []byte(row.path))
			if row.problem != "" {
				assert.Contains(t, problem, row.problem)
				return
			}
			assert.Empty(t, problem)
			assert.Equal(t, row.want, string(name))
		})
	}
}

func TestHidden(t *testing.T) {
	for name, want := range map[string]bool{
		"":                           false,
		"a":                          false,
		"a.txt":                      false,
		"a/b.c/d":                    false,
		"a./b":                       false,
		".":                          true, // never comes out of appendName
		".env":                       true,
		".git/config":                true,
		"a/.htaccess":                true,
		"a/.git/":                    true,
		".well-known":                false,
		".well-known/acme-challenge": false,
		".well-known/":               false,
		"a/.well-known/b":            false,
		".well-known/.env":           true,
		".well-knownx":               true,
		".Well-Known":                true,
	} {
		assert.Equal(t, want, hidden([]byte(name)), "%q", name)
	}
}

func TestAppendEscaped(t *testing.T) {
	for name, want := range map[string]string{
		"":              "",
		"a/b-c_d.e~f0Z": "a/b-c_d.e~f0Z",
		"a b":           "a%20b",
		"50%":           "50%25",
		"a?b#c":         "a%3Fb%23c",
		"\u00e4":        "%C3%A4",
		"\xff":          "%FF",
		"a\r\nb":        "a%0D%0Ab",
		"a:b@c":         "a%3Ab%40c",
	} {
		got := string(appendEscaped(nil, name))
		assert.Equal(t, want, got)
		back, err := url.PathUnescape(got)
		require.NoError(t, err)
		assert.Equal(t, name, back)
	}
}

// FuzzName: whatever a client asks for, what comes out is a name below the
// root or nothing. net/url and path say what it has to be.
func FuzzName(f *testing.F) {
	for _, seed := range []string{
		"/", "", "/a/b", "/a/../b", "/../a", "/%2e%2e/a", "//a//", "/a%00", `/a\b`, "/%", "/%4", "/%zz",
		"/a/./b/.", "/.../..a", "/a%2fb", "/a/b/..", "/%252e", "a", ".", "..", "/\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, asked []byte) {
		before := bytes.Clone(asked)
		name, problem := appendName(nil, asked)
		require.Equal(t, before, asked, "the request was written to")
		decoded, err := url.PathUnescape(string(asked))
		if problem != "" {
			climbs := err == nil && climbs(decoded)
			bad := err != nil || strings.ContainsAny(decoded, "\x00\\")
			require.True(t, climbs || bad, "refused for no reason: %s", problem)
			return
		}
		require.NoError(t, err)
		require.False(t, climbs(decoded))
		require.NotContains(t, string(name), "\x00")
		require.NotContains(t, string(name), `\`)
		require.False(t, bytes.HasPrefix(name, []byte("/")))
		segments := strings.Split(strings.TrimSuffix(string(name), "/"), "/")
		require.NotContains(t, segments, "..")
		require.NotContains(t, segments, ".")
		if len(name) > 0 {
			require.NotContains(t, segments, "")
		}
		want := strings.TrimPrefix(path.Clean("/"+decoded), "/")
		require.Equal(t, want, strings.TrimSuffix(string(name), "/"))
		directory := want != "" && slices.Contains([]string{"", ".", ".."}, lastSegment(decoded))
		require.Equal(t, directory, bytes.HasSuffix(name, []byte("/")))
		again, problem := appendName(nil, appendEscaped([]byte("/"), string(name)))
		require.Empty(t, problem)
		require.Equal(t, string(name), string(again), "a name is the name of itself")
	})
}

func lastSegment(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

// climbs reports that a path leads above the root on its way.
func climbs(p string) bool {
	depth := 0
	for segment := range strings.SplitSeq(p, "/") {
		switch segment {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

func BenchmarkAppendName(b *testing.B) {
	for _, p := range []struct{ kind, path string }{{"plain", "/assets/img/logo.png"}, {"dots", "/assets/./css/../img/logo.png"}} {
		b.Run("kind="+p.kind, func(b *testing.B) {
			dst, asked := make([]byte, 0, 64), []byte(p.path)
			b.ReportAllocs()
			for b.Loop() {
				if name, _ := appendName(dst, asked); len(name) != len("assets/img/logo.png") {
					b.Fatal(string(name))
				}
			}
		})
	}
}
