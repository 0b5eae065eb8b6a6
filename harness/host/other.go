//go:build !linux

package host

import (
	"math"
	"os/exec"
	"syscall"
	"time"
)

// Allowed returns no cores: there is no pinning here.
func Allowed() []int { return nil }

// Siblings returns core itself.
func Siblings(core int) []int { return []int{core} }

// PinSelf cannot.
func PinSelf([]int) error { return ErrUnsupported }

// GiveWay leaves the priority as it is.
func GiveWay() error { return nil }

// StartOn starts cmd in a process group of its own, on any core.
func StartOn(cmd *exec.Cmd, _ []int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

// Limits are not known.
func Limits() (memlock, files uint64) { return math.MaxUint64, math.MaxUint64 }

// RaiseFiles leaves the limit as it is.
func RaiseFiles(uint64) error { return nil }

// Ports are not known.
func Ports() int { return math.MaxInt }

// Meter cannot read clocks of other processes here.
type Meter struct{}

// NewMeter returns a meter whose readings fail.
func NewMeter(int) (Meter, error) { return Meter{}, nil }

// CPU returns ErrUnsupported.
func (Meter) CPU() (time.Duration, error) { return 0, ErrUnsupported }

// Kernel fails.
func (Meter) Kernel() (time.Duration, error) { return 0, ErrUnsupported }

// Resident returns ErrUnsupported.
func (Meter) Resident() (int64, error) { return 0, ErrUnsupported }

// CallMeter counts nothing here.
type CallMeter struct{}

// NewCallMeter returns ErrUnsupported.
func NewCallMeter(int) (*CallMeter, error) { return nil, ErrUnsupported }

// Read returns ErrUnsupported.
func (*CallMeter) Read() (Calls, error) { return Calls{}, ErrUnsupported }

// Close has nothing to close.
func (*CallMeter) Close() error { return nil }

// CallsCounted returns ErrUnsupported.
func CallsCounted() error { return ErrUnsupported }

// Peak returns ErrUnsupported.
func (Meter) Peak() (int64, error) { return 0, ErrUnsupported }

// SelfCPU returns the CPU time of this process, to the microsecond.
func SelfCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// SleepUntil sleeps by the runtime's timers.
func SleepUntil(t time.Time) { time.Sleep(time.Until(t)) }

// IOURing is Linux's.
func IOURing() string { return "missing (not Linux)" }

func facts() []Fact { return nil }

// Noise knows nothing here.
func Noise() string { return "" }
