package corpus

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// The corpus that Atlas keeps is read to the last line.
func TestRead(t *testing.T) {
	rules, err := Read(os.DirFS("../../proxy/h1/testdata"))
	require.NoError(t, err)
	cases := map[Kind]int{}
	verdicts := map[Verdict]int{}
	for _, rule := range rules {
		require.NotEmpty(t, rule.About, rule.File)
		require.NotEmpty(t, rule.Where, rule.File)
		cases[rule.Kind] += len(rule.Cases)
		for _, c := range rule.Cases {
			verdicts[c.Want.Verdict]++
			require.LessOrEqual(t, c.Want.Rest, len(c.Input), "%s %s", rule.File, c.Name)
			if c.Want.Verdict == Accepted && rule.Kind == Request {
				require.NotEmpty(t, c.Want.Method, "%s %s", rule.File, c.Name)
				require.NotZero(t, c.Want.Target.Length, "%s %s", rule.File, c.Name)
				require.NotEmpty(t, c.Want.Body.Kind, "%s %s", rule.File, c.Name)
			}
		}
	}
	for _, kind := range Kinds {
		require.GreaterOrEqual(t, cases[kind], 50, kind)
	}
	for _, verdict := range []Verdict{Refused, Accepted, Short} {
		require.Positive(t, verdicts[verdict], verdict)
	}
}

const small = `Why the rule
exists.

RFC 9112 section 2.2; RFC 9110 sections 4.1 to 4.3.

-- a.in --
GET /\x41 |
-- a.want --
short
-- b.in --
\(3*ab\r\n
)c\\\0\t
-- b.want --
400 bare-cr
`

func corpusOf(request string) fstest.MapFS {
	const rest = "x\n\nRFC 1 section 1\n-- a.in --\n-- a.want --\nshort\n"
	return fstest.MapFS{
		"request/one.txtar":  {Data: []byte(request)},
		"chunked/two.txtar":  {Data: []byte(rest)},
		"response/three.txt": {Data: []byte("not a rule")},
		"response/four.txtar": {Data: []byte(
			"x\n\nRFC 1 section 1\n-- a.in --\n-- a.want --\nresponse HTTP/1.1 200 \"OK\"\nbody GET length 5, HEAD none, CONNECT none\n")},
	}
}

func TestReadRule(t *testing.T) {
	rules, err := Read(corpusOf(small))
	require.NoError(t, err)
	require.Len(t, rules, 3)
	require.Equal(t, &Rule{
		Kind: Request, Name: "one", File: "request/one.txtar", About: "Why the rule exists.",
		Where: []Section{{"9112", "2.2"}, {"9110", "4.1 to 4.3"}},
		Cases: []Case{
			{"a", []byte("GET /A "), Want{Verdict: Short}},
			{"b", []byte("ab\r\nab\r\nab\r\nc\\\x00\t"), Want{Verdict: Refused, Status: 400, Reason: "bare-cr"}},
		},
	}, rules[0])
	require.Equal(t, Want{Verdict: Accepted, Status: 200, Body: Body{BodyLength, 5}}, rules[2].Cases[0].Want)
}

func TestReadRefuses(t *testing.T) {
	for _, row := range []struct{ name, old, new, want string }{
		{"no section", "RFC 9112 section 2.2; RFC 9110 sections 4.1 to 4.3.", "RFC 9112", "names no section"},
		{"one paragraph", "exists.\n\n", "", "two paragraphs"},
		{"an unknown escape", `\x41`, `\q`, `a.in: unknown escape \q`},
		{"half a byte", `\x41 |`, `\x4`, `a.in: unknown escape \x`},
		{"no hexadecimal", `\x41`, `\xgg`, "two hexadecimal digits"},
		{"a backslash at the end", `\t`, `\`, "backslash at the end"},
		{"an endless repetition", "ab\\r\\n\n)", "ab", `want \(N*text)`},
		{"a huge repetition", `\(3*`, `\(3000000*`, "more than"},
		{"a nested repetition", `3*ab`, `3*a\(2*b`, "do not nest"},
		{"a case without a want", "a.want", "a.wants", "NAME.in and then NAME.want"},
		{"an empty want", "short\n", "", "a.want: empty"},
		{"an unknown word", "short", "shortish", `unknown word "shortish"`},
		{"more behind the end", "400 bare-cr\n", "400 bare-cr\nshort\n", "follows the end"},
		{"no cases", small[strings.Index(small, "-- a.in"):], "", "no cases"},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Contains(t, small, row.old)
			_, err := Read(corpusOf(strings.Replace(small, row.old, row.new, 1)))
			require.ErrorContains(t, err, "request/one.txtar: ")
			require.ErrorContains(t, err, row.want)
		})
	}
	_, err := Read(fstest.MapFS{})
	require.ErrorContains(t, err, "no request/*.txtar")
}

func TestWant(t *testing.T) {
	const log = `request POST absolute "http://a/b\x00"... (300 bytes) path="/b\x00"... (290 bytes) HTTP/1.1 host="a:80"
field host Host "a host=b"
field - X-Long "aaaa"... (1201 bytes)
... (100 fields)
hop te TE "trailers"
body length 9223372036854775807
expect other
te trailers
forward "/b?c"
connection keep-alive
rest "hello"
`
	w, err := parseWant(Request, log)
	require.NoError(t, err)
	require.Equal(t, Want{
		Verdict: Accepted, Method: "POST", Target: Text{"/b?c", 4}, Host: "a:80", OtherExpect: true,
		Fields: []Field{
			{"host", "Host", Text{"a host=b", 8}},
			{"-", "X-Long", Text{"aaaa", 1201}},
		},
		Dropped: []Field{{"te", "TE", Text{"trailers", 8}}}, FieldsCut: true,
		Body: Body{BodyLength, 9223372036854775807}, Rest: 5,
	}, w)

	w, err = parseWant(Chunked, "data \"he\\xff\"\n400 chunk-end\n")
	require.NoError(t, err)
	require.Equal(t, Want{Verdict: Refused, Status: 400, Reason: "chunk-end", Content: Text{"he\xff", 3}}, w)

	for _, line := range []string{
		`request GET`, `request GET origin /`, `request GET origin "/" path="/" HTTP/1.1`, `response HTTP/1.1 200`,
		`response HTTP/1.1 OK "OK"`, `field host Host`, `field host Host a`, `rest "a" b`, `body length`, `body length x`,
		`body none 5`, `body some`, `data "a"...`, `600 word`, `400`, ``,
	} {
		_, err := parseWant(Request, line+"\n")
		require.Error(t, err, line)
	}
}

func TestText(t *testing.T) {
	require.True(t, Text{"ab", 2}.Is([]byte("ab")))
	require.True(t, Text{"ab", 4}.Is([]byte("abcd")))
	require.False(t, Text{"ab", 2}.Is([]byte("abc")))
	require.False(t, Text{"ab", 3}.Is([]byte("aab")))
}
