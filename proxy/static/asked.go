package static

import (
	"bytes"

	"atlas/proxy/h1"
)

// asked is what a request says about the version of a file that it wants, and
// about how much of it: values of fields, nil where there is none.
type asked struct {
	match, unmodifiedSince   []byte
	noneMatch, modifiedSince []byte
	ranges, ifRange          []byte
	codings                  []byte
}

// whole reports that a request asks for nothing of all this but a coding.
func whole(r *h1.Request) bool {
	return !r.Has(h1.KeyIfNoneMatch) && !r.Has(h1.KeyIfModifiedSince) && !r.Has(h1.KeyRange) &&
		!r.Has(h1.KeyIfMatch) && !r.Has(h1.KeyIfUnmodifiedSince)
}

// takeAsked takes the values as they are in the head, and are valid as long.
func takeAsked(r *h1.Request) asked {
	return asked{
		match:           joined(r, h1.KeyIfMatch),
		unmodifiedSince: joined(r, h1.KeyIfUnmodifiedSince),
		noneMatch:       joined(r, h1.KeyIfNoneMatch),
		modifiedSince:   joined(r, h1.KeyIfModifiedSince),
		ranges:          joined(r, h1.KeyRange),
		ifRange:         joined(r, h1.KeyIfRange),
		codings:         joined(r, h1.KeyAcceptEncoding),
	}
}

// clone copies the values out of the head.
func (a *asked) clone() asked {
	return asked{
		match:           bytes.Clone(a.match),
		unmodifiedSince: bytes.Clone(a.unmodifiedSince),
		noneMatch:       bytes.Clone(a.noneMatch),
		modifiedSince:   bytes.Clone(a.modifiedSince),
		ranges:          bytes.Clone(a.ranges),
		ifRange:         bytes.Clone(a.ifRange),
		codings:         bytes.Clone(a.codings),
	}
}

// joined is the value of a field that may stand on several lines (RFC 9110
// section 5.3). It is not nil if there is one. A field that must stand on one
// becomes a value that is none, which is what several of it mean.
func joined(r *h1.Request, k h1.Key) []byte {
	if !r.Has(k) {
		return nil
	}
	value, copied := []byte(nil), false
	for _, f := range r.Fields() {
		switch {
		case f.Key != k:
		case value == nil:
			value = f.Value[:len(f.Value):len(f.Value)]
		default:
			if !copied {
				value, copied = bytes.Clone(value), true
			}
			value = append(append(value, ", "...), f.Value...)
		}
	}
	if value == nil {
		value = []byte{}
	}
	return value
}

// outcome is what the preconditions of a request come to.
type outcome uint8

const (
	proceed   outcome = iota
	unchanged         // 304: the client has this version
	failed            // 412: the client wants another version
)

// preconditions are evaluated in the order of RFC 9110 section 13.2.2: an entity
// tag outranks a date, and what has to hold comes before what the client has.
// What is no date is no condition (sections 13.1.3 and 13.1.4).
func (a *asked) preconditions(e *entry, now int64) outcome {
	modified := e.stat.ModTime.Unix()
	if a.match != nil {
		if !matches(a.match, e.etag, false) {
			return failed
		}
	} else if a.unmodifiedSince != nil {
		if since, ok := h1.ParseDate(a.unmodifiedSince, now); ok && modified > since {
			return failed
		}
	}
	if a.noneMatch != nil {
		if matches(a.noneMatch, e.etag, true) {
			return unchanged
		}
	} else if a.modifiedSince != nil {
		if since, ok := h1.ParseDate(a.modifiedSince, now); ok && modified <= since {
			return unchanged
		}
	}
	return proceed
}

// matches looks for a tag of ours, which is strong, in a list of tags. Compared
// weakly, a weak tag of the same text is the same (RFC 9110 section 8.8.3.2).
func matches(list []byte, etag string, weakly bool) bool {
	for l := h1.Items(list); l.Next(); {
		item := l.Item
		if weakly && bytes.HasPrefix(item, []byte("W/")) {
			item = item[2:]
		}
		if string(item) == etag || string(item) == "*" {
			return true
		}
	}
	return false
}

// wantsRanges reports that Range counts. With If-Range it does if what the client
// has already is of this version: by a tag compared strongly, or by a date, which
// is as strong once its second is over and the file cannot change in it any more
// (RFC 9110 sections 13.1.5 and 8.8.2.2).
func (a *asked) wantsRanges(e *entry, now int64) bool {
	if a.ranges == nil || a.ifRange == nil {
		return a.ranges != nil
	}
	if bytes.IndexByte(a.ifRange, '"') >= 0 {
		return string(a.ifRange) == e.etag
	}
	date, ok := h1.ParseDate(a.ifRange, now)
	return ok && date == e.stat.ModTime.Unix() && date < now
}
