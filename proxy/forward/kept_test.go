package forward

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
)

// A burst of large requests leaves no more memory behind than small ones.
func TestLargeRequestsAreNotKept(t *testing.T) {
	h := New(Config{Via: "x"}, nil)
	for _, size := range []int{requestKept, requestKept + 1, 1 << 20} {
		transfer := h.take(new(exchange.Exchange))
		transfer.request = make([]byte, 0, size)
		h.put(transfer)
		assert.LessOrEqual(t, cap(h.free[0].request), requestKept)
	}
}
