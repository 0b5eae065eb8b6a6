package static

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A query asks for the same file: however many there are, it is in the cache
// once, and what else is there stays.
func TestQueriesShareAnEntry(t *testing.T) {
	sites(t, func(s *site) {
		s.write("a", []byte("hello"))
		s.write("b", []byte("other"))
		c := s.dial()
		assert.Equal(s, "other", c.ask("GET /b").Text)
		for i := range 200 {
			got := c.ask(fmt.Sprintf("GET /a?%d=%d", i, i))
			assert.Equal(s, 200, got.StatusCode)
			assert.Equal(s, "hello", got.Text)
		}
		s.Post(func() {
			s.handler.cache.check(s)
			assert.Len(s, s.handler.cache.byName, 2)
		})
	}, func(set *settings) { set.static.CacheBytes = 10_000 })
}
