package host

import "time"

// pausesMax is how many can be in a Pause without those after them waiting longer.
const pausesMax = 1024

// Pause returns a function that blocks its caller for d, as exactly as SleepUntil,
// and may be called by many at once. They go on in the order in which they came, so
// that one thread sleeps for all of them: each in a thread of its own would keep a
// processor of Go's scheduler while it sleeps, until sysmon takes that away, which
// happens up to 10 ms later. The thread stays as long as the process.
func Pause(d time.Duration) func() {
	type caller struct {
		until time.Time
		over  chan struct{}
	}
	callers := make(chan caller, pausesMax)
	go func() {
		for one := range callers {
			SleepUntil(one.until)
			close(one.over)
		}
	}()
	return func() {
		one := caller{time.Now().Add(d), make(chan struct{})}
		callers <- one
		<-one.over
	}
}
