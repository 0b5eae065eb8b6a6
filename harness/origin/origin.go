// Package origin is the small upstream that subjects forward to, and the
// documents that origin and static subjects serve. It refuses to be clever: a
// document is a pure function of its length, so that the load can check every
// answer without asking the origin, and the server keeps all of them in
// memory. Serve owns its listener and returns only when told to stop.
package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// headerTimeout bounds how long a connection may take over a request head.
	headerTimeout = 10 * time.Second
	// stopTimeout bounds how long Serve waits for exchanges in progress.
	stopTimeout = 2 * time.Second
)

// Document returns the body of every document of that many bytes: printable,
// and without a period that a truncated or shifted copy could hide behind.
func Document(length int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	body := make([]byte, length)
	state := uint32(length)
	for i := range body {
		state = state*1664525 + 1013904223 // Numerical Recipes' generator
		body[i] = letters[state>>26]
	}
	return body
}

// WriteTree writes the documents below dir, which exists; lengths are in bytes
// by URL path. The files are readable by everyone, because a server may give
// up its privileges.
func WriteTree(dir string, lengths map[string]int) error {
	for path, length := range lengths {
		file := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, Document(length), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Serve answers with the files below root on address until ctx ends, each time
// after pause, unless that is nil. It is the origin where nginx cannot be had, or
// does not do what is wanted.
func Serve(ctx context.Context, address, root string, pause func()) error {
	documents, err := newHandler(root)
	if err != nil {
		return err
	}
	handler := http.Handler(documents)
	if pause != nil {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pause()
			documents.ServeHTTP(w, r)
		})
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return ServeHandler(ctx, listener, handler)
}

// ServeHandler runs an HTTP server on listener, which it closes, until ctx
// ends, then lets exchanges in progress finish for a bounded time.
func ServeHandler(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(soon); err != nil {
		return errors.Join(fmt.Errorf("stop: %w", err), server.Close())
	}
	return nil
}

// handler is the documents by URL path; never written after newHandler.
type handler map[string][]byte

// newHandler reads every file below root.
func newHandler(root string) (handler, error) {
	documents := handler{}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		documents["/"+filepath.ToSlash(name)] = body
		return err
	})
	return documents, err
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		take(w, r)
		return
	}
	body, ok := h[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client is gone: it counts its own errors
}

// takeBuffer is how much of what is sent here is read at a time.
const takeBuffer = 256 << 10

// take reads what is sent to its end, and says yes where that is all of it.
func take(w http.ResponseWriter, r *http.Request) {
	buffer := make([]byte, takeBuffer)
	for {
		if _, err := r.Body.Read(buffer); err == io.EOF {
			return // 200 without a body
		} else if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
}
