package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// The chaos: Atlas in a process of its own, with upstreams that are killed,
// stopped and restarted under it, and clients of every bad habit. Every byte is
// compared, and every request is looked for in the upstreams' journals. In the
// end nothing is left behind.
//
// ATLAS_CHAOS says how long, over both engines (30m); CHAOS_SEED repeats what
// clients and weather do, though not when.
func TestProcessChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	last := chaosTime(t)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		t.Logf("CHAOS_SEED=%d, %v", seed, last)
		run := newChaos(t, engine, seed)
		run.load(last / 10)
		before := run.rest(anything, math.MaxInt64)
		t.Logf("warm: %s", before)
		run.weather.startAll(t)
		run.load(last)
		run.calm()
		after := run.rest(before, idleTasks(engine))
		t.Logf("at the end: %s", after)
		run.compare(before, after, last)
		run.end()
		require.NoError(t, run.ledger.join(run.weather.journals(), run.fail))
		run.summary()
	})
}

// chaosTime is how long each engine is run.
func chaosTime(t *testing.T) time.Duration {
	text := os.Getenv("ATLAS_CHAOS")
	switch {
	case text == "" && testing.Short():
		return time.Second
	case text == "":
		return 2 * time.Second
	}
	last, err := time.ParseDuration(text)
	require.NoError(t, err)
	if os.Getenv("ATLAS_TEST_ENGINE") == "" {
		last /= 2
	}
	return last
}

// chaos is one run.
type chaos struct {
	t       *testing.T
	engine  loop.Engine
	seed    uint64
	atlas   *roleProcess
	address string
	weather *weather
	ledger  *ledger
	phase   context.Context // until it is over
	rng     *rand.Rand

	mu       sync.Mutex
	tally    map[string]int
	failures int
	stop     context.CancelFunc // ends the phase
	hung     bool
}

func newChaos(t *testing.T, engine loop.Engine, seed uint64) *chaos {
	run := &chaos{
		t: t, engine: engine, seed: seed, ledger: newLedger(), phase: t.Context(),
		tally: make(map[string]int), stop: func() {}, rng: rand.New(rand.NewPCG(seed, 0)),
	}
	run.weather = newWeather(t, run)
	var text strings.Builder
	fmt.Fprintf(&text, "[listen]\naddress = \"127.0.0.1\"\nport = 0\nworkers = %d\npin = false\nengine = %q\n", rules.workers, engine)
	fmt.Fprintf(&text, "[timeouts]\nheader = %q\nbody = %q\nwrite = %q\nidle = %q\nconnect = %q\nupstream = %q\ndrain = %q\n",
		waits.header, waits.body, waits.write, waits.idle, waits.connect, waits.upstream, waits.drain)
	for i, up := range run.weather.targets {
		host, port, err := net.SplitHostPort(up.address)
		require.NoError(t, err)
		fmt.Fprintf(&text, "[[upstreams]]\nname = \"u%d\"\naddress = %q\nport = %s\n", i, host, port)
	}
	file := filepath.Join(t.TempDir(), "chaos.toml")
	require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o644))
	var err error
	run.atlas, err = startRole("chaos-atlas", file)
	require.NoError(t, err)
	t.Cleanup(run.atlas.kill)
	line, err := run.atlas.stdout.ReadString('\n')
	require.NoError(t, err, "%s", run.atlas.log)
	_, err = fmt.Sscanf(line, "listening %s", &run.address)
	require.NoError(t, err, line)
	return run
}

// failuresShown bounds what is printed of one kind.
const failuresShown = 20

// fail reports what must not happen. Any goroutine.
func (run *chaos) fail(format string, args ...any) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if run.failures++; run.failures <= failuresShown {
		run.t.Errorf("%s CHAOS_SEED=%d: %s", time.Now().Format("15:04:05.000"), run.seed, fmt.Sprintf(format, args...))
	}
	if run.failures >= rules.failureMax {
		run.stop()
	}
}

// hang reports a wait without end, the first time with what Atlas waits for.
func (run *chaos) hang(format string, args ...any) {
	run.fail(format, args...)
	run.mu.Lock()
	first := !run.hung
	run.hung = true
	run.mu.Unlock()
	if first {
		r, err := run.atlas.question("stacks")
		run.t.Logf("%s, %v\n%s", r, err, run.atlas.tail())
	}
}

func (run *chaos) count(what string) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.tally[what]++
}

func (run *chaos) counted(what ...string) (n int) {
	run.mu.Lock()
	defer run.mu.Unlock()
	for _, w := range what {
		n += run.tally[w]
	}
	return n
}

// sleep reports false when the phase is over.
func (run *chaos) sleep(d time.Duration) bool {
	select {
	case <-run.phase.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (run *chaos) isOver() bool { return run.phase.Err() != nil }

// load lets clients and weather have their way, and waits until all of them have
// ended what they were at.
func (run *chaos) load(last time.Duration) {
	run.mu.Lock()
	run.phase, run.stop = context.WithTimeout(run.t.Context(), last)
	run.mu.Unlock()
	defer run.stop()
	end := time.Now().Add(last)
	var all sync.WaitGroup
	for range rules.clients {
		c := &client{run: run, rng: rand.New(rand.NewPCG(run.rng.Uint64(), 2))}
		all.Go(c.behave)
	}
	own := rand.New(rand.NewPCG(run.rng.Uint64(), 3))
	all.Go(func() { run.weather.blow(end, own) })
	all.Go(run.watch)
	all.Wait()
}

// watch prints how it goes, and ends the phase where Atlas has.
func (run *chaos) watch() {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-run.phase.Done():
			return
		case <-run.atlas.exited:
			run.fail("atlas ended, %v:\n%s", run.atlas.cmd.ProcessState, run.atlas.tail())
			run.stop()
			return
		case <-tick.C:
			r, err := run.atlas.question("report")
			if err != nil {
				run.fail("report: %v", err)
			}
			run.t.Logf("%d requests, %d good, errors %v; %s; %s", run.ledger.issued(), run.counted("good"), run.errors(), run.weather, r)
		}
	}
}

// errors is what went wrong and may, by excuse.
func (run *chaos) errors() map[string]int {
	run.mu.Lock()
	defer run.mu.Unlock()
	errors := maps.Clone(run.tally)
	maps.DeleteFunc(errors, func(what string, _ int) bool { return !strings.HasPrefix(what, "error ") })
	return errors
}

// calm asks a few things when nothing else happens. No receive lacks a buffer
// then; were buffers lost, one would.
func (run *chaos) calm() {
	run.mu.Lock()
	run.phase, run.stop = context.WithCancel(run.t.Context())
	run.mu.Unlock()
	defer run.stop()
	time.Sleep(rules.grace) // the last storm is over
	before, err := run.atlas.question("report")
	require.NoError(run.t, err)
	c := &client{run: run, rng: run.rng}
	for range 20 {
		if l, ok := run.dial("calm"); ok {
			for range 5 {
				if a := randomAsk(c.rng, 200_000); !l.over && a.idempotent() {
					l.exchange(a, ordinary(c.rng))
				}
			}
			l.close()
		}
	}
	after, err := run.atlas.question("report")
	require.NoError(run.t, err)
	assert.Equal(run.t, before.Starved, after.Starved, "receives that found no buffer in a calm")
}

// anything is a rest in which no connection is left, and all else may be.
var anything = report{Goroutines: math.MaxInt, Descs: math.MaxInt}

// restedAs reports that no connection is left, and no more than at most of what
// takes a moment to end.
func (r report) restedAs(most report, tasks int64) bool {
	return r.Open == 0 && r.Dialled == 0 && r.Tasks <= tasks && r.Descs <= most.Descs && r.others() <= most.others()
}

// others are the goroutines that are no tasks.
func (r report) others() int { return r.Goroutines - int(r.Tasks) }

// rest ends the upstreams, waits until nothing is left of clients and them, and
// says how Atlas is then.
func (run *chaos) rest(most report, tasks int64) (r report) {
	run.weather.killAll()
	var rested bool
	for end := time.Now().Add(patience); !rested && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var err error
		r, err = run.atlas.question("report")
		require.NoError(run.t, err, "%s", run.atlas.tail())
		rested = r.restedAs(most, tasks)
	}
	if !rested {
		run.hang("it does not come to rest: %s; it began with %s, and %d tasks may be idle", r, most, tasks)
	}
	r, err := run.atlas.question("collect")
	require.NoError(run.t, err)
	return r
}

// compare holds what is left behind to what was there before.
func (run *chaos) compare(before, after report, last time.Duration) {
	t := run.t
	assert.Zero(t, after.Panics, "panics")
	assert.Zero(t, after.Refused, "connections refused for want of descriptors")
	assert.LessOrEqual(t, after.Descs, before.Descs, "descriptors")
	assert.LessOrEqual(t, after.others(), before.others(), "goroutines that are no tasks")
	assert.LessOrEqual(t, after.Heap, before.Heap+rules.heap, "bytes of heap in use")
	if !invariant.Enabled { // the race detector has memory of its own
		assert.LessOrEqual(t, after.Resident, before.Resident+rules.resident, "kB resident")
	}
	errors, good := run.counted("error rough", "error stale", "error slow", "error half"), run.counted("good")
	if last >= rules.sharesFrom {
		assert.LessOrEqual(t, float64(errors), rules.errorShare*float64(errors+good)+float64(rules.calmCount), "errors in all")
		assert.LessOrEqual(t, float64(run.counted(excusable...)), rules.calmShare*float64(good)+float64(rules.calmCount),
			"errors while all was well")
	}
	assert.GreaterOrEqual(t, good, int(last.Seconds()*float64(rules.minimum)), "good answers")
	assert.Positive(t, run.weather.kills+run.weather.stops, "nothing happened to the upstreams")
}

// end has Atlas drain, and looks at what it has logged.
func (run *chaos) end() {
	run.atlas.signal(syscall.SIGTERM)
	select {
	case <-run.atlas.exited:
	case <-time.After(patience):
		run.hang("SIGTERM does not end it")
	}
	log := run.atlas.log.String()
	if status := run.atlas.cmd.ProcessState; status == nil || status.ExitCode() != 0 {
		run.fail("it ended with %v:\n%s", status, run.atlas.tail())
	}
	for _, bad := range []string{"DATA RACE", "level=ERROR", "panic"} {
		if strings.Contains(log, bad) {
			run.fail("%q is in its log:\n%s", bad, run.atlas.tail())
		}
	}
}

func (run *chaos) summary() {
	rows := slices.SortedFunc(maps.Keys(run.tally), cmp.Compare[string])
	for i, what := range rows {
		rows[i] = fmt.Sprintf("%s: %d", what, run.tally[what])
	}
	run.t.Logf("%d requests; %s\n%s", run.ledger.issued(), run.weather, strings.Join(rows, "\n"))
}
