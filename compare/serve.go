package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"atlas/compare/gate"
	"atlas/compare/report"
	"atlas/results"
)

const (
	// runsMax is how many runs are read for a page, the newest.
	runsMax = 200
	// runsDefault is where they are; before the first there is no such directory.
	runsDefault     = "results/runs"
	serveHeaderTime = 10 * time.Second
	serveEndTime    = 2 * time.Second
)

// serve is the verb `serve`.
func serve(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "serve")
	listen := flags.String("listen", "127.0.0.1:8090", "loopback `address`")
	runs := flags.String("runs", runsDefault, "`directory` of the runs")
	if status, ok := parse(flags, args, 0); !ok {
		return status
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serveRuns(ctx, stdout, *listen, *runs); err != nil {
		fmt.Fprintf(stderr, "compare serve: %v\n", err)
		return exitUsage
	}
	return exitPass
}

// serveRuns serves until ctx ends. The pages are for who sits at this machine:
// an address of another network is refused.
func serveRuns(ctx context.Context, stdout io.Writer, address, runs string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if !loopback(host) {
		return fmt.Errorf("%s is not a loopback address, and these pages are for nobody else", address)
	}
	if info, err := os.Stat(runs); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is a file: -runs wants the directory of the runs", runs)
	} else if err != nil && runs != runsDefault {
		return fmt.Errorf("the directory of the runs: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "runs of %s: http://%s/\n", runs, listener.Addr())
	server := &http.Server{Handler: site(runs), ReadHeaderTimeout: serveHeaderTime}
	undo := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.Background(), serveEndTime)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close() // whoever still reads has had its time
		}
	})
	defer undo()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// site is the pages. A page of another site could have its name point here, so
// the name that was asked for must be this machine's.
func site(runs string) http.Handler {
	mux := http.NewServeMux()
	pages := map[string]func(io.Writer, []report.Entry, *http.Request) error{
		"/{$}": func(w io.Writer, all []report.Entry, _ *http.Request) error {
			return report.Index(w, all, gates(runs))
		},
		"/gate":    gatePage(runs),
		"/run":     runPage(runs),
		"/compare": comparePage,
		"/trend":   trendPage,
	}
	for pattern, write := range pages {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			host, _, err := net.SplitHostPort(r.Host)
			if err != nil || !loopback(host) {
				http.Error(w, "this is for the machine itself", http.StatusForbidden)
				return
			}
			var page bytes.Buffer
			err = write(&page, entries(runs), r)
			switch {
			case errors.Is(err, os.ErrNotExist):
				http.Error(w, err.Error(), http.StatusNotFound)
			case err != nil:
				http.Error(w, err.Error(), http.StatusInternalServerError)
			default:
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				w.Header().Set("Content-Security-Policy",
					"default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "+
						"frame-ancestors 'none'")
				_, _ = w.Write(page.Bytes()) // the reader may be gone
			}
		})
	}
	return mux
}

// newest are the files of that name in the directories of runs, as many as are shown.
func newest(runs, name string) []string {
	files, _ := filepath.Glob(filepath.Join(runs, "*", name)) // the pattern is right
	slices.Sort(files)
	slices.Reverse(files)
	return files[:min(len(files), runsMax)]
}

// entries are the runs, the newest first.
func entries(runs string) []report.Entry {
	var all []report.Entry
	for _, file := range newest(runs, benchName) {
		name := filepath.Base(filepath.Dir(file))
		f, err := results.Open(file)
		if err != nil {
			all = append(all, report.Entry{Name: name, Broken: err.Error()})
			continue
		}
		all = append(all, report.NewEntry(name, f))
	}
	return all
}

// gates are the runs of gates, the newest first. One that was interrupted has no
// verdict.
func gates(runs string) []report.Gate {
	var all []report.Gate
	for _, file := range newest(runs, "candidate.bench") {
		dir := filepath.Dir(file)
		g := report.Gate{Name: filepath.Base(dir)}
		var v duetVerdict
		text, err := os.ReadFile(filepath.Join(dir, "verdict.json"))
		if err == nil {
			err = json.Unmarshal(text, &v)
		}
		var f *results.File
		if err == nil {
			f, err = results.Open(file)
		}
		switch {
		case errors.Is(err, os.ErrNotExist):
			g.Broken = "no verdict: compare gate " + dir + " gives one"
		case err != nil:
			g.Broken = err.Error()
		default:
			g.Base, g.Candidate, g.Date = f.Setting("base"), f.Setting("candidate"), f.Setting("date")
			g.Outcome, g.Reason, g.Cells = v.Outcome, v.Reason, v.Cells
		}
		all = append(all, g)
	}
	return all
}

// gatePage shows one of them.
func gatePage(runs string) func(io.Writer, []report.Entry, *http.Request) error {
	return func(w io.Writer, _ []report.Entry, r *http.Request) error {
		name := r.FormValue("of")
		for _, g := range gates(runs) {
			if g.Name == name && g.Broken == "" {
				return report.GatePage(w, g)
			}
		}
		return fmt.Errorf("gate %q: %w", strings.ToValidUTF8(name, "?"), os.ErrNotExist)
	}
}

// named finds a run in the list, so that a name leads nowhere else.
func named(all []report.Entry, name string) (report.Entry, error) {
	for _, e := range all {
		if e.Name == name && e.Broken == "" {
			return e, nil
		}
	}
	return report.Entry{}, fmt.Errorf("run %q: %w", strings.ToValidUTF8(name, "?"), os.ErrNotExist)
}

// runPage shows one run.
func runPage(runs string) func(io.Writer, []report.Entry, *http.Request) error {
	return func(w io.Writer, all []report.Entry, r *http.Request) error {
		e, err := named(all, r.FormValue("of"))
		if err != nil {
			return err
		}
		run, err := report.OpenRun(filepath.Join(runs, e.Name, benchName))
		if err != nil {
			return err
		}
		published, err := results.LoadPublished()
		if err != nil {
			return err
		}
		return report.Page(w, run, published, true)
	}
}

// comparePage shows the verdict on two runs.
func comparePage(w io.Writer, all []report.Entry, r *http.Request) error {
	old, errOld := named(all, r.FormValue("old"))
	new, errNew := named(all, r.FormValue("new"))
	if err := errors.Join(errOld, errNew); err != nil {
		return err
	}
	policy, err := loadPolicy("")
	if err != nil {
		return err
	}
	rows := gate.Compare(old.File, new.File, policy)
	outcome, reason := gate.Conclude(rows)
	return report.Comparison(w, old, new, rows, outcome, reason)
}

// trendPage shows all runs, the oldest first.
func trendPage(w io.Writer, all []report.Entry, _ *http.Request) error {
	whole := slices.DeleteFunc(slices.Clone(all), func(e report.Entry) bool { return e.Broken != "" })
	slices.Reverse(whole)
	return report.Trend(w, whole)
}
