package relay

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/h1"
)

// A sender is asked for 10 bytes a second once it was waited for for 5 s.
func TestDemand(t *testing.T) {
	drops := slices.Repeat([]string{"x"}, 30)
	for _, row := range []struct {
		name      string
		framing   h1.Body
		pieces    []string
		wait      time.Duration // for each piece
		writeWait time.Duration // for the receiver
		rateMin   int64
		want      int   // bytes that arrive
		err       error // of reading
	}{
		{"a byte a second", sized(30), drops, time.Second, 0, 10, 5, ErrTooSlow},
		{"in chunks", chunked, slices.Repeat([]string{"1\r\nx\r\n"}, 30), time.Second, 0, 10, 5, ErrTooSlow},
		{"until the end", closing, drops, time.Second, 0, 10, 5, ErrTooSlow},
		{"and nothing is demanded", sized(30), drops, time.Second, 0, 0, 30, nil},
		{"exactly enough", sized(30), drops, 100 * time.Millisecond, 0, 10, 30, nil},
		{"a little less, and not for long enough", sized(30), drops, 101 * time.Millisecond, 0, 10, 30, nil},
		{"the receiver is slow", sized(30), drops, 100 * time.Millisecond, time.Hour, 10, 30, nil},
		{"all at once, but late", sized(50), []string{strings.Repeat("x", 50)}, time.Hour, 0, 10, 50, nil},
		{"a trailer that comes late", chunked, []string{"1\r\nx\r\n", "0\r\n", "\r\n"}, 3 * time.Second, 0, 10, 1, nil},
		{"too little, and late", sized(30), drops, time.Hour, 0, 10, 0, ErrTooSlow},
		{"it has sent ahead", sized(208), append([]string{strings.Repeat("x", 200)}, drops[:8]...), time.Second, 0, 10, 208, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			var clock time.Duration
			from := &fakeConn{pieces: slices.Clone(row.pieces), end: io.EOF, clock: &clock}
			to := &fakeConn{clock: &clock}
			left := len(from.pieces) + 1
			from.onWait = func() {
				if len(from.pieces) < left { // else the rest of a piece is still here
					left = len(from.pieces)
					clock += row.wait
				}
			}
			to.onWait = func() { clock += row.writeWait }
			var b Body
			var w Writer
			b.Start(from, row.framing)
			b.Demand(row.rateMin, 5*time.Second)
			w.Start(to, false)
			readErr, writeErr := Copy(&w, &b, make([]byte, 300), time.Second, time.Minute)
			assert.NoError(t, writeErr)
			assert.Equal(t, row.err, readErr)
			assert.Len(t, to.out, row.want)
			assert.Equal(t, row.err == nil, b.Done())
			if row.err != nil {
				reads := from.reads
				_, err := b.Read(make([]byte, 300))
				assert.Equal(t, row.err, err, "it stays so")
				assert.Equal(t, reads, from.reads, "without another wait")
				b.Start(from, sized(1))
				_, err = b.Read(make([]byte, 300))
				assert.NoError(t, err, "of another message nothing is demanded yet")
			}
		})
	}
}
