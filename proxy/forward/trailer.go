package forward

import (
	"atlas/proxy/h1"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
)

// forwardsTrailers reports that Connection lists no field: one that it lists
// must not be forwarded, in a trailer section either (RFC 9110 section 7.6.1).
// When that arrives the head is gone, so the whole section is left out, as it
// may be (RFC 9112 section 7.1.2).
func forwardsTrailers(head *h1.Head) bool {
	if !head.Has(h1.KeyConnection) {
		return true
	}
	fields := head.Fields()
	for i := range fields {
		if fields[i].Key == h1.KeyConnection && !listsOptions(fields[i].Value) {
			return false
		}
	}
	return true
}

// listsOptions reports that a Connection value names nothing but what is never
// a trailer field.
func listsOptions(value []byte) bool {
	for l := h1.Items(value); l.Next(); {
		switch {
		case h1.EqualFold(l.Item, "close"), h1.EqualFold(l.Item, "keep-alive"),
			h1.EqualFold(l.Item, "te"), h1.EqualFold(l.Item, "upgrade"):
		default:
			return false
		}
	}
	return true
}

// trailer is the trailer section of a complete body, if it may be forwarded.
func trailer(b *relay.Body, forwards bool) *h1.Trailer {
	if !forwards {
		return nil
	}
	return b.Trailer()
}

// countUnderscores counts the fields of a request's trailer section that are
// dropped like those of its head.
func countUnderscores(counts *stats.Stats, section *h1.Trailer) {
	if section == nil {
		return
	}
	for _, f := range section.Fields() {
		if f.Key == h1.KeyUnderscore {
			counts.Underscores.Add(1)
		}
	}
}
