package admin

import (
	"fmt"
	"net/http"
	"strings"
)

// known is a mux that knows what it has: whoever asks for something else is told.
type known struct {
	*http.ServeMux
	patterns []string
}

// Handle and HandleFunc note what a path takes, as the mux does.
func (k *known) Handle(pattern string, handler http.Handler) {
	k.patterns = append(k.patterns, pattern)
	k.ServeMux.Handle(pattern, handler)
}

func (k *known) HandleFunc(pattern string, handler http.HandlerFunc) { k.Handle(pattern, handler) }

// ServeHTTP puts words to the 404 and 405 of the mux. All else is the mux's.
func (k *known) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, pattern := k.Handler(r)
	if pattern != "" {
		k.ServeMux.ServeHTTP(w, r)
		return
	}
	refused := &dry{header: http.Header{}}
	handler.ServeHTTP(refused, r)
	switch refused.status {
	case http.StatusMethodNotAllowed:
		allowed := refused.header.Get("Allow")
		w.Header().Set("Allow", allowed)
		answer(w, refused.status, fmt.Sprintf("%q takes %s, not %.20q", r.URL.Path, allowed, r.Method))
	case http.StatusNotFound:
		answer(w, refused.status, fmt.Sprintf("there is no %q; there are GET /, %s", r.URL.Path,
			strings.Join(k.patterns, ", ")))
	default:
		handler.ServeHTTP(w, r)
	}
}

// dry is written to by who is not to be heard.
type dry struct {
	header http.Header
	status int
}

func (d *dry) Header() http.Header         { return d.header }
func (d *dry) Write(b []byte) (int, error) { return len(b), nil }
func (d *dry) WriteHeader(status int)      { d.status = status }
