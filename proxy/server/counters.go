package server

import "atlas/proxy/loop"

// Counters are what the workers count, one for each. Any goroutine may read them.
func (s *Server) Counters() []*loop.Counters {
	all := make([]*loop.Counters, len(s.workers))
	for i, w := range s.workers {
		all[i] = w.Counters()
	}
	return all
}
