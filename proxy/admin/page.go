package admin

import (
	"embed"
	"net/http"
)

// files are the status page for people: it asks for /status again and again, and
// loads nothing from anywhere else.
//
//go:embed page
var files embed.FS

func routePage(mux *http.ServeMux) {
	for _, f := range []struct{ path, file, kind string }{
		{"/{$}", "page/index.html", "text/html; charset=utf-8"},
		{"/page.css", "page/page.css", "text/css; charset=utf-8"},
		{"/page.js", "page/page.js", "text/javascript; charset=utf-8"},
	} {
		mux.HandleFunc("GET "+f.path, func(w http.ResponseWriter, r *http.Request) {
			text, err := files.ReadFile(f.file)
			if err != nil {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", f.kind)
			_, _ = w.Write(text) // a client that is gone needs no answer
		})
	}
}
