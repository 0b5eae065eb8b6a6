package forward

import (
	"time"

	"atlas/proxy/h1"
)

// timing tells the client what the head of its response has waited for, as far as
// there was such a phase. The field is a list: what the upstream says of itself
// stays beside it.
func (t *transfer) timing() {
	trip := &t.x.Trip
	b := t.scratch[:0]
	if trip.Queue > 0 {
		b = append(appendMetric(b, "queue;dur=", trip.Queue), ", "...)
	}
	if trip.Connect > 0 {
		b = append(appendMetric(b, "connect;dur=", trip.Connect), ", "...)
	}
	t.scratch = appendMetric(b, "upstream;dur=", trip.FirstByte)
	t.x.Field(serverTiming, t.scratch)
}

// appendMetric appends a duration in milliseconds.
func appendMetric(b []byte, name string, d time.Duration) []byte {
	us := int64((d + time.Microsecond/2) / time.Microsecond)
	b = h1.AppendDecimal(append(b, name...), us/1000)
	us %= 1000
	return append(b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
}

var serverTiming = []byte("Server-Timing")
