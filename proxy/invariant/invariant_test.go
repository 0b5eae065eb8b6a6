package invariant

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestThat(t *testing.T) {
	assert.NotPanics(t, func() { That(true, "one is one") })
	broken := func() { That(false, "one is two") }
	if Enabled {
		assert.PanicsWithValue(t, "invariant: one is two", broken)
	} else {
		assert.NotPanics(t, broken)
	}
}
