package admin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"atlas/proxy/server"
	"atlas/proxy/upstream"
)

// scrapesMax bounds the scrapes at once.
const scrapesMax = 4

// routes is everything there is.
func (a *Admin) routes() http.Handler {
	mux := &known{ServeMux: http.NewServeMux()}
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesMax,
		Timeout:             readTimeout,
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            slog.NewLogLogger(a.options.Log.Handler(), slog.LevelWarn),
	}))
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /readyz", a.readiness)
	mux.HandleFunc("GET /status", a.showStatus)
	mux.HandleFunc("GET /config", a.showConfig)
	mux.HandleFunc("GET /config.json", a.showConfigJSON)
	mux.HandleFunc("POST /reload", a.reload)
	mux.HandleFunc("POST /upstreams/{name}/drain", a.drain(true))
	mux.HandleFunc("POST /upstreams/{name}/enable", a.drain(false))
	mux.HandleFunc("GET /log/level", a.showLevel)
	mux.HandleFunc("PUT /log/level", a.setLevel)
	mux.HandleFunc("POST /log/level", a.setLevel)
	routePage(mux.ServeMux)

	mux.HandleFunc("GET /debug/pprof/", lasting(0, pprof.Index)) // and the profiles by their names
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/profile", whole(lasting(30, pprof.Profile)))
	mux.HandleFunc("GET /debug/pprof/trace", lasting(1, pprof.Trace))
	mux.HandleFunc("GET /debug/trace", lasting(1, pprof.Trace))
	return mux
}

// lastingMax bounds a profile or a trace, which may be asked for in ?seconds=.
const lastingMax = 300

func lasting(seconds float64, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		takes := seconds
		if text := r.URL.Query().Get("seconds"); text != "" {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || !(n > 0 && n <= lastingMax) {
				answer(w, http.StatusBadRequest, fmt.Sprintf("seconds is a number up to %d", lastingMax))
				return
			}
			takes = n
		}
		allow(w, time.Duration(takes*float64(time.Second))+writeTimeout)
		next(w, r)
	}
}

// whole refuses what pprof.Profile would read as no number at all, and take half a
// minute for: longer than the answer was allowed to.
func whole(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if text := r.URL.Query().Get("seconds"); text != "" {
			if _, err := strconv.ParseInt(text, 10, 64); err != nil {
				answer(w, http.StatusBadRequest, "a profile takes whole seconds")
				return
			}
		}
		next(w, r)
	}
}

// health says whether the process is alive: whether the loop of every worker turns.
func (a *Admin) health(w http.ResponseWriter, r *http.Request) {
	s := a.attached()
	if s == nil {
		answer(w, http.StatusOK, "starting")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	if silent := s.Silent(ctx); len(silent) > 0 {
		answer(w, http.StatusServiceUnavailable, fmt.Sprintf("workers that do not answer: %v", silent))
		return
	}
	answer(w, http.StatusOK, "ok")
}

// readiness says whether new connections should be sent here. Upstreams count only
// with ?upstreams: they are mostly the same for every Atlas, and when all of them
// are down, all being unready leaves clients without even an answer.
func (a *Admin) readiness(w http.ResponseWriter, r *http.Request) {
	s := a.attached()
	if s == nil {
		answer(w, http.StatusServiceUnavailable, "starting")
		return
	}
	if why := s.NotReady(); why != "" {
		answer(w, http.StatusServiceUnavailable, why)
		return
	}
	if _, strict := r.URL.Query()["upstreams"]; strict {
		if st, _ := a.status(r.Context()); !anyUp(&st) {
			answer(w, http.StatusServiceUnavailable, "no upstream is up")
			return
		}
	}
	answer(w, http.StatusOK, "ready")
}

// anyUp reports that some upstream gets requests, or that none is needed.
func anyUp(st *server.Status) bool {
	if len(st.Upstreams.Endpoints)+len(st.Upstreams.Unknown) == 0 {
		return true
	}
	for i := range st.Upstreams.Endpoints {
		if st.Upstreams.Endpoints[i].State == upstream.Up {
			return true
		}
	}
	return false
}

// reload reads the configuration anew, and says what is wrong with it if it is not
// applied: all of it is, or nothing.
func (a *Admin) reload(w http.ResponseWriter, _ *http.Request) {
	s := a.attached()
	if s == nil {
		answer(w, http.StatusServiceUnavailable, "starting")
		return
	}
	if err := s.Reload("admin"); err != nil {
		answer(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	answer(w, http.StatusOK, "reloaded")
}

// drain takes an upstream out of the rotation, or puts it back.
func (a *Admin) drain(out bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := a.attached()
		if s == nil {
			answer(w, http.StatusServiceUnavailable, "starting")
			return
		}
		name := r.PathValue("name")
		if !s.DrainUpstream(name, out) {
			answer(w, http.StatusNotFound, fmt.Sprintf("there is no upstream %q", name))
			return
		}
		if out {
			answer(w, http.StatusOK, fmt.Sprintf("%s is drained: it gets no new requests", name))
		} else {
			answer(w, http.StatusOK, fmt.Sprintf("%s is enabled", name))
		}
	}
}

func (a *Admin) showLevel(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, a.options.Level.Level().String())
}

// setLevel takes the level from ?level= or from the body.
func (a *Admin) setLevel(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("level")
	if text == "" {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			answer(w, http.StatusBadRequest, err.Error())
			return
		}
		text = strings.TrimSpace(string(body))
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		answer(w, http.StatusBadRequest, fmt.Sprintf("%q is no level: use debug, info, warn or error", text))
		return
	}
	before := a.options.Level.Level()
	a.options.Level.Set(level)
	a.options.Log.Log(r.Context(), max(level, slog.LevelInfo), "log level changed", "from", before, "to", level)
	answer(w, http.StatusOK, level.String())
}

// answer is one line of text.
func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a client that is gone needs no answer
}
