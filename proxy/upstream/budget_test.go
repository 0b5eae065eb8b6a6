package upstream

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
)

// granted is how many of that many retries there may be.
func (b *budget) granted(now loop.Instant, asked int) (n int) {
	for range asked {
		if b.retry(now) {
			n++
		}
	}
	return n
}

func TestBudget(t *testing.T) {
	at := func(second float64) loop.Instant { return loop.Instant(1).After(time.Duration(second * 1e9)) }
	b := budget{percent: 20}
	assert.Equal(t, 30, b.granted(at(0), 100), "3 a second, of ten seconds, without any request")
	assert.Zero(t, b.granted(at(9.9), 100), "they are spent")
	assert.Equal(t, 30, b.granted(at(10), 100), "and forgotten")

	b = budget{percent: 20}
	for i := range 1000 {
		b.request(at(float64(i) / 100))
	}
	assert.Equal(t, 200, b.granted(at(9.99), 1000))
	assert.Zero(t, b.granted(at(12), 1000), "fewer requests count by now")
	assert.Equal(t, 30, b.granted(at(1000), 100), "a long time without anything")

	b = budget{percent: 0}
	assert.Equal(t, 30, b.granted(at(5), 100))
	b = budget{percent: 100}
	for range 100 {
		b.request(at(0))
	}
	assert.Equal(t, 100, b.granted(at(3), 1000))
}
