package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// weather is what happens to the upstreams.
type weather struct {
	run     *chaos
	targets []*target

	mu      sync.Mutex
	up      int // targets that nothing is wrong with
	history []trouble
	kills   int
	stops   int
}

// target is one upstream, whatever process it is at the moment.
type target struct {
	address string
	journal string
	keep    time.Duration // how long it keeps idle connections
	process *roleProcess
}

// trouble is a time in which an upstream was not itself. One that goes on has no
// end yet.
type trouble struct{ from, to time.Time }

// upstreamsKept are how long each upstream keeps an idle connection.
var upstreamsKept = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, time.Minute}

func newWeather(t *testing.T, run *chaos) *weather {
	w := &weather{run: run}
	dir := t.TempDir()
	// On an address of our own no other program takes the port of an upstream
	// that is down, and a connection to such a port does not meet itself.
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
	}
	for i, keep := range upstreamsKept {
		journal := filepath.Join(dir, fmt.Sprintf("u%d", i))
		w.targets = append(w.targets, &target{address: host + ":0", journal: journal, keep: keep})
	}
	t.Cleanup(w.killAll)
	w.startAll(t)
	return w
}

func (w *weather) startAll(t *testing.T) {
	for _, up := range w.targets {
		require.NoError(t, up.start(w.run.seed))
	}
	w.up = len(w.targets)
}

// killAll is for when nobody asks anything.
func (w *weather) killAll() {
	for _, up := range w.targets {
		if up.process != nil {
			up.process.kill()
		}
	}
}

func (up *target) start(seed uint64) (err error) {
	up.process, up.address, err = startUpstream(up.address, up.journal, seed, up.keep)
	return err
}

func (w *weather) journals() (files []string) {
	for _, up := range w.targets {
		files = append(files, up.journal)
	}
	return files
}

// blow alternates storms, in which upstreams are killed and stopped, and calms, in
// which all are well, until the end.
func (w *weather) blow(end time.Time, rng *rand.Rand) {
	for {
		storm := min(rules.storm, time.Until(end)*2/3)
		if storm < rules.shortestStorm {
			return
		}
		var troubles sync.WaitGroup
		over := time.Now().Add(storm)
		for _, up := range w.targets {
			own := rand.New(rand.NewPCG(rng.Uint64(), 1))
			troubles.Go(func() { w.trouble(up, over, own) })
		}
		troubles.Wait()
		if !w.run.sleep(min(rules.calm, time.Until(end))) {
			return
		}
	}
}

// trouble makes trouble for one upstream, now and then, until the storm is over.
func (w *weather) trouble(up *target, over time.Time, rng *rand.Rand) {
	for {
		wait := time.Duration(50+rng.IntN(1500)) * time.Millisecond
		last := time.Duration(20+rng.IntN(800)) * time.Millisecond
		stop := rng.IntN(5) < 2
		if stop && rng.IntN(5) == 0 {
			last = waits.upstream * 3 / 2 // long enough to be given up
		}
		wait = min(wait, time.Until(over)/3)
		if last = min(last, time.Until(over)-wait); last <= 0 || !w.run.sleep(wait) {
			return
		}
		begun, ok := w.begin(stop)
		if !ok {
			continue
		}
		if stop {
			up.process.signal(syscall.SIGSTOP)
			w.run.sleep(last)
			up.process.signal(syscall.SIGCONT)
		} else {
			up.process.kill()
			w.run.sleep(last)
			if err := up.start(w.run.seed); err != nil {
				w.run.fail("restart: %v", err)
				return
			}
		}
		w.ended(begun)
	}
}

// begin asks for leave, which the last upstream that is well does not get.
func (w *weather) begin(stop bool) (index int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.up <= 1 {
		return 0, false
	}
	w.up--
	if stop {
		w.stops++
	} else {
		w.kills++
	}
	w.history = append(w.history, trouble{from: time.Now()})
	return len(w.history) - 1, true
}

func (w *weather) ended(index int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up++
	w.history[index].to = time.Now()
}

// rough reports that an upstream was in trouble in that time, or shortly before.
func (w *weather) rough(from, to time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.history {
		if t.from.Before(to) && (t.to.IsZero() || t.to.Add(rules.grace).After(from)) {
			return true
		}
	}
	return false
}

func (w *weather) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d kills, %d stops, %d of %d upstreams well", w.kills, w.stops, w.up, len(w.targets))
}
