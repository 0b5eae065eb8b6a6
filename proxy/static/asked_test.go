package static

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// askedBy reads the fields of a request. Its head is given back before they are
// looked at, as it is for requests that wait.
func askedBy(t *testing.T, fields string) asked {
	head := "GET / HTTP/1.1\r\nHost: a\r\n"
	if fields != "" {
		head += fields + "\r\n"
	}
	text := []byte(head + "\r\n")
	var r h1.Request
	_, err := h1.ParseRequest(text, &r)
	require.NoError(t, err)
	inHead := takeAsked(&r)
	assert.Equal(t, fields == "", whole(&r))
	a := inHead.clone()
	clear(text)
	return a
}

func TestPreconditions(t *testing.T) {
	e := newEntry("a", identity, false, loop.Stat{Size: 5, ModTime: modified}, nil)
	tag := e.etag
	second := modified.Unix()
	date := func(unix int64) string { return string(h1.AppendDate(nil, unix)) }
	since, until := "If-Modified-Since: ", "If-Unmodified-Since: "
	for _, row := range []struct {
		name, fields string
		want         outcome
	}{
		{"nothing asked", "", proceed},

		{"the tag", `If-None-Match: ` + tag, unchanged},
		{"another tag", `If-None-Match: "5-17d7f3"`, proceed},
		{"the tag, weak", `If-None-Match: W/` + tag, unchanged},
		{"w is another thing than W", `If-None-Match: w/` + tag, proceed},
		{"the tag without its quotes", `If-None-Match: ` + tag[1:len(tag)-1], proceed},
		{"a list with the tag", `If-None-Match: "a", W/"b" ,` + tag, unchanged},
		{"a list on two lines", `If-None-Match: "a"` + "\r\nIf-None-Match: " + tag, unchanged},
		{"a list on two lines, the other way round", "If-None-Match: " + tag + "\r\nIf-None-Match: \"a\"", unchanged},
		{"a list without", `If-None-Match: "a", "b"`, proceed},
		{"a tag with commas in it", `If-None-Match: "a,\` + tag + `,b"`, proceed},
		{"any tag", `If-None-Match: *`, unchanged},
		{"no tag at all", `If-None-Match:`, proceed},

		{"the second of its date", since + date(second), unchanged},
		{"a second before", since + date(second-1), proceed},
		{"a later date", since + date(second+3600), unchanged},
		{"no date", since + "yesterday", proceed},
		{"two dates", since + date(second) + "\r\n" + since + date(second), proceed},
		{"the tag outranks the date", "If-None-Match: " + tag + "\r\n" + since + date(second-1), unchanged},
		{"another tag outranks the date", "If-None-Match: \"a\"\r\n" + since + date(second), proceed},

		{"this one", "If-Match: " + tag, proceed},
		{"this one in a list", `If-Match: "a", ` + tag, proceed},
		{"any one", "If-Match: *", proceed},
		{"another one", `If-Match: "a"`, failed},
		{"this one, weak: no claim about bytes", "If-Match: W/" + tag, failed},
		{"none", "If-Match:", failed},

		{"no later than its date", until + date(second), proceed},
		{"no later than a later date", until + date(second+1), proceed},
		{"no later than a second before", until + date(second-1), failed},
		{"no later than no date", until + "yesterday", proceed},
		{"a tag outranks that date", "If-Match: " + tag + "\r\n" + until + date(second-1), proceed},
		{"another tag outranks that date", "If-Match: \"a\"\r\n" + until + date(second), failed},

		{"what has to hold comes first", "If-Match: \"a\"\r\nIf-None-Match: " + tag, failed},
		{"it holds, and the client has it", "If-Match: " + tag + "\r\nIf-None-Match: " + tag, unchanged},
		{"its date has to hold first", until + date(second-1) + "\r\nIf-None-Match: " + tag, failed},
		{"both dates", until + date(second) + "\r\n" + since + date(second), unchanged},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := askedBy(t, row.fields)
			assert.Equal(t, row.want, a.preconditions(e, second+10))
		})
	}
}

func TestWantsRanges(t *testing.T) {
	e := newEntry("a", identity, false, loop.Stat{Size: 5, ModTime: modified}, nil)
	second := modified.Unix()
	date := func(unix int64) string { return "If-Range: " + string(h1.AppendDate(nil, unix)) }
	for _, row := range []struct {
		name, fields string
		now          int64
		want         bool
	}{
		{"the tag", "If-Range: " + e.etag, second, true},
		{"another tag", `If-Range: "a"`, second, false},
		{"the tag, weak", "If-Range: W/" + e.etag, second, false},
		{"the tag twice", "If-Range: " + e.etag + "\r\nIf-Range: " + e.etag, second, false},
		{"a list", "If-Range: " + e.etag + `, "a"`, second, false},
		{"any", "If-Range: *", second, false},
		{"empty", "If-Range:", second, false},
		{"its date", date(second), second + 1, true},
		{"its date, in which it may still change", date(second), second, false},
		{"an earlier date", date(second - 1), second + 10, false},
		{"a later date", date(second + 1), second + 10, false},
		{"no date", "If-Range: yesterday", second + 10, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := askedBy(t, "Range: bytes=0-1\r\n"+row.fields)
			assert.Equal(t, row.want, a.wantsRanges(e, row.now))
			a.ranges = nil
			assert.False(t, a.wantsRanges(e, row.now), "without a Range it means nothing")
		})
	}
	a := askedBy(t, "Range: bytes=0-1")
	assert.True(t, a.wantsRanges(e, second))
}
