package doctor

import (
	"time"

	"atlas/proxy/uring"
)

// Readings are what was seen. Where nothing could be seen a number is -1 and a text
// is empty.
type Readings struct {
	System string // GOOS
	Kernel string // release, on Linux

	RingMay  bool                // the configuration allows the engine io_uring,
	RingMust bool                // and no other
	Ring     []uring.Unavailable // every feature; empty on other systems

	Seccomp      int    // of /proc/self/status: 0 none, 1 strict, 2 filter
	RingDisabled string // sysctl kernel.io_uring_disabled
	RingGroup    string // sysctl kernel.io_uring_group
	Groups       []int  // of the process
	SysAdmin     bool   // CAP_SYS_ADMIN, in force
	Modules      string // Linux security modules, by commas
	Confined     string // by which profile of AppArmor, or in which state SELinux is

	Calls []Call

	OpenSoft, OpenHard int64 // RLIMIT_NOFILE
	LockedSoft         int64 // RLIMIT_MEMLOCK, in bytes; -1 is no limit as well

	CPUs, Online int     // that the process may use, and that there are
	Quota        float64 // of the cgroup, in CPUs; 0: none
	QuotaFrom    string  // the file that says so
	Workers      int     // that the configuration asks for; 0: as many as there are CPUs
	Pin          bool

	Somaxconn      int
	Backlog        int // that the configuration asks for; 0: as many as there may be
	PortFirst      int // of those for outgoing connections
	PortLast       int
	TimeWaitReuse  string // sysctl net.ipv4.tcp_tw_reuse
	UpstreamsTCP   int    // upstreams that are not Unix sockets
	ConntrackCount int    // connections that netfilter follows; -1: it follows none
	ConntrackMax   int

	Ports []Port

	Now            time.Time
	Unsynchronised bool // the kernel says that nobody sets its clock
}

// A Call is something that Atlas does besides io_uring, as it was tried.
type Call struct {
	Name  string
	Since string // Linux version
	Err   error
	Costs string // if it is missing
}

// A Port is an address of the configuration that was bound for a moment.
type Port struct {
	Address string
	Err     error
	Holder  *Holder // who has it already; nil: nobody, or somebody who cannot be seen
}

// A Holder is a process that listens on a port.
type Holder struct {
	PID  int
	Name string
	Same bool // it is Atlas, with the configuration that was asked about
}
