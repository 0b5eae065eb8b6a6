//go:build slowdown && linux

package server

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// slowdown makes requests cost more by a share of what they do cost, so that the
// lab's gate can show that it sees such a change. Only builds with the tag slowdown
// have it, and only ATLAS_SLOWDOWN, in percent, turns it on. It goes by the CPU
// time of the process, as the lab does, so the process may have one worker only.
type slowdown struct {
	known bool
	share float64
	calls int
	last  time.Duration // of the clock, after the last burning
}

// slowdownEvery is how many requests are paid for at once: a look at the clock is
// a system call, and one a request would be a slowdown of its own.
const slowdownEvery = 64

// spend is called once a request.
func (s *slowdown) spend() {
	if !s.known {
		s.known = true
		if text := os.Getenv("ATLAS_SLOWDOWN"); text != "" {
			percent, err := strconv.ParseFloat(text, 64)
			if err != nil || percent < 0 {
				panic(fmt.Sprintf("ATLAS_SLOWDOWN is %q, want percent", text))
			}
			s.share = percent / 100
		}
		s.last = processCPU()
	}
	if s.calls++; s.share == 0 || s.calls < slowdownEvery {
		return
	}
	s.calls = 0
	now := processCPU()
	until := now + time.Duration(s.share*float64(now-s.last))
	for now < until {
		now = processCPU()
	}
	s.last = now
}

func processCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(err) // a constant that every kernel knows
	}
	return time.Duration(ts.Nano())
}
