package static

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func setOf(all ...coding) (s codingSet) {
	for _, c := range all {
		s |= 1 << c
	}
	return s
}

func TestChooseCoding(t *testing.T) {
	all := setOf(brotli, zstd, gzip)
	for _, row := range []struct {
		name, accept string
		there        codingSet
		want         coding
	}{
		{"nothing asked", "", all, identity},
		{"nothing there", "br, gzip", 0, identity},
		{"the one", "gzip", all, gzip},
		{"the one is not there", "br", setOf(gzip), identity},
		{"all of them", "gzip, deflate, br, zstd", all, brotli},
		{"the next best", "gzip, deflate, br, zstd", setOf(zstd, gzip), zstd},
		{"the only one", "gzip, deflate, br, zstd", setOf(gzip), gzip},
		{"an older name", "x-gzip", all, gzip},
		{"capitals", "GZip;Q=0.5", all, gzip},
		{"unknown ones", "deflate, compress, lzma", all, identity},
		{"almost a name", "brx, gzi, zst", all, identity},

		{"the heaviest", "br;q=0.5, gzip;q=0.8, zstd;q=0.7", all, gzip},
		{"the heaviest that is there", "br;q=0.5, gzip;q=0.8, zstd;q=0.7", setOf(brotli, zstd), zstd},
		{"a weight of one is no weight", "gzip;q=1.000, br;q=0.999", all, gzip},
		{"refused", "gzip;q=0", all, identity},
		{"refused, at length", "gzip;q=0.000, br", setOf(gzip), identity},
		{"white space", "gzip ; q=0.5 , br\t;\tq=0.4", all, gzip},

		{"any", "*", all, brotli},
		{"any, some of it there", "*", setOf(gzip), gzip},
		{"any but", "*, br;q=0", all, zstd},
		{"any but, before", "br;q=0, zstd;q=0, *;q=0.1", all, gzip},
		{"none but", "*;q=0, gzip", all, gzip},
		{"none at all", "*;q=0", all, identity},
		{"any, but less", "gzip;q=0.5, *;q=0.6", all, brotli},

		{"as it is", "identity", all, identity},
		{"rather as it is", "identity, gzip;q=0.5", all, identity},
		{"rather coded", "identity;q=0.5, gzip", all, gzip},
		{"as well as it is", "identity;q=0.5, gzip;q=0.5", all, gzip},
		{"only just", "gzip;q=0.001", all, gzip},
		{"never as it is, but nothing else is there", "identity;q=0, br", setOf(gzip), identity},

		{"no weight", "gzip;q=, br;q=a, zstd;q=2", all, identity},
		{"weights that are none", "gzip;q=0.1234, br;q=1.001, zstd;q=.5", all, identity},
		{"no q", "gzip;level=9, br;0.5", all, identity},
		{"two parameters", "gzip;q=0.5;x=1", all, identity},
		{"the last counts", "gzip;q=0, gzip", all, gzip},
		{"only commas", ", ,", all, identity},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, row.want, chooseCoding([]byte(row.accept), row.there))
		})
	}
}

// FuzzCodings: a coding that is chosen is there, and is named or meant by a star.
func FuzzCodings(f *testing.F) {
	for _, seed := range []string{"gzip, br;q=0.5", "*;q=0", "identity;q=0, *", "x-gzip;q=1.000", `"gzip"`, "zstd;q=0.1;q=1"} {
		f.Add([]byte(seed), byte(7))
	}
	f.Fuzz(func(t *testing.T, accept []byte, there byte) {
		before := bytes.Clone(accept)
		c := chooseCoding(accept, codingSet(there&7<<1))
		require.Equal(t, before, accept)
		if c == identity {
			return
		}
		require.True(t, codingSet(there&7<<1).has(c))
		lower := bytes.ToLower(accept)
		require.True(t, bytes.Contains(lower, []byte(c.String())) || bytes.Contains(accept, []byte("*")))
		for _, w := range readWeights(accept) {
			require.GreaterOrEqual(t, w, unlisted)
			require.LessOrEqual(t, w, weightMax)
		}
	})
}

func TestOlder(t *testing.T) {
	second := modified.Truncate(time.Second)
	for _, row := range []struct {
		name          string
		sibling, file time.Time
		want          bool
	}{
		{"as old", modified, modified, false},
		{"made later", modified.Add(time.Hour), modified, false},
		{"made before", modified.Add(-time.Hour), modified, true},
		{"made a moment before", modified.Add(-1), modified, true},
		{"as old, but for the fraction that its maker dropped", second, modified, false},
		{"in whole seconds, of the second before", second.Add(-time.Second), modified, true},
		{"both in whole seconds", second, second, false},
		{"before there was time", time.Unix(-5, 0), time.Unix(-5, 7), false},
	} {
		assert.Equal(t, row.want, older(row.sibling, row.file), row.name)
	}
}
