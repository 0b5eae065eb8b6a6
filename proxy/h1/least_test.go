package h1

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestChunksLeast reads bodies as one reads who must take no byte behind them:
// as many as there are at least.
func TestChunksLeast(t *testing.T) {
	for _, wire := range []string{
		"0\r\n",
		"5\r\nhello\r\n0\r\n",
		"1\r\na\r\n1\r\nb\r\n000\r\n",
		"10\r\n0123456789abcdef\r\n01\r\n+\r\n0;last\r\n",
		"5 ; a = \"b;\\\"c\" ; d\r\nhello\r\n0;x=y\r\n",
	} {
		for first := range len(wire) { // wherever the reader comes from
			var d Chunks
			_, n, err := d.Next([]byte(wire[:first]))
			require.NoError(t, err)
			for n < len(wire) {
				require.False(t, d.Done())
				least := int(d.Least())
				require.Positive(t, least, "at %d of %q", n, wire)
				require.LessOrEqual(t, n+least, len(wire), "at %d of %q", n, wire)
				_, used, err := d.Next([]byte(wire[n : n+least]))
				require.NoError(t, err)
				n += used
			}
			require.True(t, d.Done())
			require.Zero(t, d.Least())
		}
	}
	var huge Chunks
	_, _, err := huge.Next([]byte("7fffffffffffffff\r\n"))
	require.NoError(t, err)
	require.Positive(t, huge.Least(), "no overflow")
	_, _, err = huge.Next([]byte("x\n"))
	require.NoError(t, err)
	var bad Chunks
	_, _, err = bad.Next([]byte("x"))
	require.Error(t, err)
	require.Zero(t, bad.Least())
}
