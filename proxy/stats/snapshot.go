package stats

// Value is one number of a Snapshot, named the way it is exported. Values of
// one Name stand together and differ in the Label.
type Value struct {
	Name  string // "upstream_errors_total"
	Label string // name of the label: "reason"; empty if there is none
	Of    string // value of the label: "refused"
	Help  string
	Gauge bool // it goes down as well
	Count int64
}

// Set is the Stats of all workers. It is built once, before the workers run.
type Set struct {
	workers []*Stats
	reasons []string
}

// NewSet makes a set for a number of workers. reasons name the entries of
// RefusedRequests and RefusedResponses, at most ReasonsMax; "" is none.
func NewSet(workers int, reasons []string) *Set {
	s := &Set{workers: make([]*Stats, workers), reasons: reasons}
	for i := range s.workers {
		s.workers[i] = new(Stats)
	}
	return s
}

// Worker returns the Stats of worker i, counted from 0.
func (s *Set) Worker(i int) *Stats { return s.workers[i] }

// Len is the number of workers.
func (s *Set) Len() int { return len(s.workers) }

// Snapshot appends the sum over all workers to dst, one value for each
// counter. Each count is one that was true; two of them may be from moments
// apart.
func (s *Set) Snapshot(dst []Value) []Value {
	first := len(dst)
	for n, worker := range s.workers {
		i := first
		worker.each(s.reasons, func(v Value, c *Counter) {
			if n == 0 {
				dst = append(dst, v)
			}
			dst[i].Count += c.Load()
			i++
		})
	}
	return dst
}

// each visits every counter with its name, always in the same order.
func (s *Stats) each(reasons []string, visit func(Value, *Counter)) {
	visit(Value{Name: "requests_total",
		Help: "Request heads read, complete or refused."}, &s.Requests)
	for i := range s.Responses {
		visit(Value{Name: "responses_total", Label: "class", Of: class(i).String(),
			Help: "Responses sent, by class of status."}, &s.Responses[i])
	}
	for i := range s.ClientErrors {
		visit(Value{Name: "client_errors_total", Label: "reason", Of: ClientError(i).String(),
			Help: "Requests refused and clients lost, by reason."}, &s.ClientErrors[i])
	}
	for i := range s.UpstreamErrors {
		visit(Value{Name: "upstream_errors_total", Label: "reason", Of: UpstreamError(i).String(),
			Help: "Failures of upstreams, by reason."}, &s.UpstreamErrors[i])
	}
	visit(Value{Name: "retries_total",
		Help: "Tries of a request beyond its first."}, &s.Retries)
	visit(Value{Name: "tls_handshakes_total",
		Help: "TLS handshakes with clients that succeeded."}, &s.Handshakes)
	visit(Value{Name: "tls_resumed_total",
		Help: "TLS handshakes with clients that went on with an earlier session."}, &s.Resumed)
	for i := range s.HandshakeErrors {
		visit(Value{Name: "tls_handshake_errors_total", Label: "reason", Of: HandshakeError(i).String(),
			Help: "TLS handshakes with clients that failed, by reason."}, &s.HandshakeErrors[i])
	}
	visit(Value{Name: "static_cache_hits_total",
		Help: "Requests for files that were answered from memory."}, &s.CacheHits)
	visit(Value{Name: "static_cache_misses_total",
		Help: "Requests for files for which the disk was looked at."}, &s.CacheMisses)
	visit(Value{Name: "static_cache_bytes", Gauge: true,
		Help: "Memory of the cache of files."}, &s.CacheBytes)
	visit(Value{Name: "underscore_fields_total",
		Help: "Request fields dropped for an underscore in their name."}, &s.Underscores)
	visit(Value{Name: "file_scarcities_total",
		Help: "Requests for files answered 503, for want of descriptors or memory."}, &s.Scarcities)
	visit(Value{Name: "access_log_dropped_total",
		Help: "Lines of the access log that were dropped: what it is written to does not keep up."}, &s.LogDropped)
	eachReason(reasons, &s.RefusedRequests, Value{Name: "requests_refused_total",
		Help: "Requests that are not valid HTTP/1, by the rule that they break."}, visit)
	eachReason(reasons, &s.RefusedResponses, Value{Name: "responses_refused_total",
		Help: "Responses of upstreams that are not valid HTTP/1, by the rule that they break."}, visit)
}

// eachReason visits the counters whose reason has a name.
func eachReason(reasons []string, counters *[ReasonsMax]Counter, v Value, visit func(Value, *Counter)) {
	for i, reason := range reasons {
		if reason != "" {
			v.Label, v.Of = "reason", reason
			visit(v, &counters[i])
		}
	}
}
