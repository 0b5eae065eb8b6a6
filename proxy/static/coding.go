package static

import (
	"bytes"
	"time"

	"atlas/proxy/h1"
)

// coding is how a representation is encoded (RFC 9110 section 8.4.1).
type coding uint8

// The codings that siblings may have, the one that is preferred first: as
// siblings are made once, with all the effort there is, that is the order of
// their sizes, too.
const (
	identity coding = iota // as the file is
	brotli
	zstd
	gzip
	codings // how many there are
)

// suffixes are what the name of a sibling has behind that of its file.
var suffixes = [codings]string{brotli: ".br", zstd: ".zst", gzip: ".gz"}

// String is the name in Content-Encoding.
func (c coding) String() string { return [codings]string{"identity", "br", "zstd", "gzip"}[c] }

// codingSet is a set of codings; identity is always there and never in it.
type codingSet uint8

func (s codingSet) has(c coding) bool { return s>>c&1 != 0 }

// older reports that a sibling was made before its file got the content that it
// has now: it holds what was there before. A sibling in a whole second is as old
// as anything of that second: some compressors hand times on without fractions.
func older(sibling, file time.Time) bool {
	return sibling.Before(file) && !sibling.Equal(file.Truncate(time.Second))
}

// Weights are in thousandths. An item that is not a weight at all counts as a
// refusal, which at worst costs a client some bytes.
const (
	weightMax = 1000
	unlisted  = -1
)

// chooseCoding picks what to send of the codings that there are, by an
// Accept-Encoding field (RFC 9110 section 12.5.3): the heaviest; of those that
// weigh as much a coded one, in the order of the constants. A client that names
// nothing we have gets the file as it is, also if it refuses that: it can still
// make something of it, and of an error it cannot.
func chooseCoding(accept []byte, there codingSet) coding {
	if there == 0 || len(accept) == 0 {
		return identity
	}
	weights := readWeights(accept)
	best, most := identity, max(0, weights[identity])
	for c := brotli; c < codings; c++ {
		w := weights[c]
		if there.has(c) && w > 0 && (w > most || w == most && best == identity) {
			best, most = c, w
		}
	}
	return best
}

func readWeights(accept []byte) (weights [codings]int) {
	weights = [codings]int{unlisted, unlisted, unlisted, unlisted}
	rest := unlisted
	for l := h1.Items(accept); l.Next(); {
		name, parameter, has := bytes.Cut(l.Item, []byte(";"))
		w := weightMax
		if has {
			w = readWeight(parameter)
		}
		switch name = bytes.TrimRight(name, " \t"); {
		case string(name) == "*":
			rest = w
		case h1.EqualFold(name, "identity"):
			weights[identity] = w
		case h1.EqualFold(name, "br"):
			weights[brotli] = w
		case h1.EqualFold(name, "zstd"):
			weights[zstd] = w
		case h1.EqualFold(name, "gzip"), h1.EqualFold(name, "x-gzip"):
			weights[gzip] = w
		}
	}
	for c := range weights {
		if weights[c] == unlisted {
			weights[c] = rest
		}
	}
	return weights
}

// readWeight reads `q=0.5` in thousandths (RFC 9110 section 12.4.2).
func readWeight(parameter []byte) int {
	p := bytes.Trim(parameter, " \t")
	if len(p) < len("q=0") || len(p) > len("q=0.000") || p[0]|0x20 != 'q' || p[1] != '=' {
		return 0
	}
	digits := p[2:]
	if digits[0] > '1' || digits[0] < '0' || len(digits) > 1 && digits[1] != '.' {
		return 0
	}
	w := int(digits[0]-'0') * weightMax
	for i, unit := 2, weightMax/10; i < len(digits); i, unit = i+1, unit/10 {
		if digits[i] < '0' || digits[i] > '9' {
			return 0
		}
		w += int(digits[i]-'0') * unit
	}
	if w > weightMax {
		return 0
	}
	return w
}
