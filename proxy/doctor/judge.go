package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func ok(name, format string, args ...any) []Finding {
	return []Finding{{Name: name, Mark: OK, State: fmt.Sprintf(format, args...)}}
}

func judgeKernel(r *Readings) []Finding {
	if r.System != "linux" {
		return []Finding{{Name: "system", Mark: Warn, State: r.System,
			Costs: "io_uring is a thing of Linux: Atlas runs on the engine netpoll, with more system calls a request",
			Fix:   "use Linux 6.1 or newer where speed matters"}}
	}
	return ok("kernel", "Linux %s", r.Kernel)
}

// missing are the features of the ring that are not there.
func (r *Readings) missing() (names []string, fix string) {
	for _, f := range r.Ring {
		if f.Err == nil {
			continue
		}
		names = append(names, fmt.Sprintf("%s (Linux %s): %v", f.Feature, f.Since, f.Err))
		if fix == "" {
			fix = cmp.Or(f.Fix, "use Linux 6.1 or newer")
		}
	}
	return names, fix
}

func judgeRing(r *Readings) []Finding {
	if r.System != "linux" {
		return nil
	}
	names, fix := r.missing()
	if len(names) == 0 {
		return ok("io_uring", "all %d features and operations are there", len(r.Ring))
	}
	f := Finding{Name: "io_uring", Mark: Warn, State: names[0], Fix: fix,
		Costs: "Atlas falls back to the engine netpoll: more system calls and more memory a connection. " +
			"How much that is here, the lab can measure: make bench"}
	if more := len(names) - 1; more > 0 {
		f.State += fmt.Sprintf("; and %d more of %d", more, len(r.Ring))
	}
	switch {
	case !r.RingMay:
		f.Mark, f.Costs, f.Fix = OK, "", ""
		f.State += "; the configuration asks for netpoll, which does not need it"
	case r.RingMust:
		f.Mark, f.Costs = Fail, "the configuration insists on io_uring, so Atlas will not start"
		f.Fix += `; or write engine = "auto" in [listen]`
	}
	return []Finding{f}
}

// judgeBlocks says what could keep io_uring away, and whether that is what does.
func judgeBlocks(r *Readings) (found []Finding) {
	if r.System != "linux" {
		return nil
	}
	names, _ := r.missing()
	away := len(names) > 0 && r.RingMay
	return append(append(r.judgeSysctl(away), r.judgeSeccomp(away)...), r.judgeModules(away)...)
}

// judgeSysctl is about kernel.io_uring_disabled (Linux 6.6): 1 leaves io_uring to a
// group and to CAP_SYS_ADMIN, 2 to nobody.
func (r *Readings) judgeSysctl(away bool) []Finding {
	const enable = "sysctl kernel.io_uring_disabled=0"
	f := Finding{Name: "sysctl", Mark: Warn, State: "kernel.io_uring_disabled is " + r.RingDisabled,
		Costs: "io_uring is switched off for this process"}
	group, err := strconv.Atoi(r.RingGroup)
	member := err == nil && group >= 0 && slices.Contains(r.Groups, group)
	switch {
	case r.RingDisabled == "":
		return ok("sysctl", "there is no kernel.io_uring_disabled, which comes with Linux 6.6")
	case r.RingDisabled == "0":
		return ok("sysctl", "kernel.io_uring_disabled is 0")
	case r.RingDisabled == "1" && r.SysAdmin:
		return ok("sysctl", "kernel.io_uring_disabled is 1, and this process has CAP_SYS_ADMIN")
	case r.RingDisabled == "1" && member:
		return ok("sysctl", "kernel.io_uring_disabled is 1, and group %d, in which this process is, may", group)
	case r.RingDisabled == "1" && err == nil && group >= 0:
		f.Fix = fmt.Sprintf("run Atlas in group %d (kernel.io_uring_group), or: %s", group, enable)
	case r.RingDisabled == "1":
		f.Fix = "sysctl kernel.io_uring_group=GROUP with a group of the user of Atlas, or: " + enable
	default:
		f.Fix = enable
	}
	if !away {
		f.Mark, f.Costs, f.Fix = OK, "", ""
	}
	return []Finding{f}
}

// judgeSeccomp tells Docker's answer from Podman's.
func (r *Readings) judgeSeccomp(away bool) []Finding {
	if r.Seccomp <= 0 {
		return ok("seccomp", "no filter")
	}
	f := Finding{Name: "seccomp", Mark: OK, State: "there is a filter, and io_uring passes it"}
	if !away || r.Ring[0].Err == nil {
		if away {
			f.State = "there is a filter, and io_uring_setup passes it"
		}
		return []Finding{f}
	}
	const fix = "allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile: "
	f.Mark, f.State = Warn, "there is a filter, and io_uring_setup is refused"
	switch err := r.Ring[0].Err; {
	case errors.Is(err, syscall.EPERM) && r.RingDisabled != "" && r.RingDisabled != "0":
		f.Mark, f.State = OK, "there is a filter; whether it refuses io_uring shows when the sysctl does not"
	case errors.Is(err, syscall.EPERM):
		f.Costs = "EPERM is what the default profile of Docker answers"
		f.Fix = fix + "docker run --security-opt seccomp=PROFILE.json, in Compose security_opt"
	case errors.Is(err, syscall.ENOSYS):
		f.Costs = "ENOSYS is what the default profile of Podman answers, and a kernel that has no io_uring"
		f.Fix = fix + "podman run --security-opt seccomp=PROFILE.json"
	default:
		f.Mark, f.State = OK, "there is a filter, and it is not what refuses io_uring"
	}
	return []Finding{f}
}

func (r *Readings) judgeModules(away bool) []Finding {
	if r.Modules == "" && r.Confined == "" {
		return nil
	}
	f := Finding{Name: "security modules", Mark: OK, State: strings.ReplaceAll(r.Modules, ",", ", ")}
	if r.Confined != "" {
		f.State += "; this process: " + r.Confined
	}
	refused := away && errors.Is(r.Ring[0].Err, syscall.EACCES)
	if refused {
		f.Mark, f.Costs = Warn, "EACCES is what a security module answers"
		f.Fix = "allow io_uring to Atlas in the policy (SELinux: class io_uring; AppArmor: rule io_uring)"
	}
	return []Finding{f}
}

func judgeSystemCalls(r *Readings) (found []Finding) {
	var good []string
	for _, c := range r.Calls {
		if c.Err == nil {
			good = append(good, c.Name)
			continue
		}
		found = append(found, Finding{Name: c.Name, Mark: Warn, State: c.Err.Error(), Costs: c.Costs,
			Fix: "use Linux " + c.Since + " or newer, and allow the call where a seccomp profile does not"})
	}
	if len(good) > 0 {
		found = append(ok("system calls", "%s", strings.Join(good, ", ")), found...)
	}
	return found
}

// openFew is what a busy proxy is soon through with: two descriptors a request.
const openFew = 4096

func judgeLimits(r *Readings) (found []Finding) {
	if r.OpenSoft >= 0 {
		f := Finding{Name: "open files", Mark: OK,
			State: fmt.Sprintf("RLIMIT_NOFILE is %d, and may be raised to %d", r.OpenSoft, r.OpenHard)}
		if r.OpenHard < openFew {
			f.Mark, f.Costs = Warn, "a proxied request takes two: more clients than that wait or are refused"
			f.Fix = "LimitNOFILE=65536 in the unit, docker run --ulimit nofile=65536, or ulimit -Hn 65536"
		}
		found = append(found, f)
	}
	names, _ := r.missing()
	if len(names) > 0 && errors.Is(r.Ring[0].Err, syscall.ENOMEM) {
		found = append(found, Finding{Name: "locked memory", Mark: Warn,
			State: fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes", r.LockedSoft), Costs: "a ring does not fit",
			Fix: "LimitMEMLOCK=64M in the unit, or a larger memory limit of the container"})
	} else if r.System == "linux" && len(names) == 0 {
		found = append(found, ok("locked memory", "a ring fits")...)
	}
	return found
}

func judgeCPUs(r *Readings) (found []Finding) {
	state := fmt.Sprintf("%d of %d may be used", r.CPUs, r.Online)
	if r.Quota > 0 {
		state += fmt.Sprintf(", and the quota is %.4g (%s)", r.Quota, r.QuotaFrom)
	}
	f := Finding{Name: "CPUs", Mark: OK, State: state}
	workers, most := r.Workers, float64(r.CPUs)
	if r.Quota > 0 {
		most = min(most, r.Quota)
	}
	switch {
	case workers > r.CPUs:
		f.Mark = Warn
		f.Costs = fmt.Sprintf("%d workers share %d CPUs: they wait for one another", workers, r.CPUs)
		f.Fix = fmt.Sprintf("workers = %d, or leave it out", max(1, int(most)))
	case float64(workers) > most+0.5:
		f.Mark = Warn
		f.Costs = fmt.Sprintf("%d workers use up a quota of %.4g and are stopped until the next period: "+
			"tails of latency", workers, r.Quota)
		f.Fix = fmt.Sprintf("workers = %d, leave it out, or raise the quota", max(1, int(most)))
	case r.Quota > 0 && r.Quota < 1:
		f.Mark, f.Costs = Warn, "with less than a CPU even one worker is stopped now and then: tails of latency"
		f.Fix = "a quota of 1 or more, or none and a weight instead"
	}
	return []Finding{f}
}

const (
	backlogWanted = 4096 // what Atlas asks for
	portsFew      = 16384
)

func judgeNetwork(r *Readings) (found []Finding) {
	want := r.Backlog
	if want == 0 {
		want = backlogWanted
	}
	if r.Somaxconn >= 0 {
		f := Finding{Name: "backlog", Mark: OK, State: fmt.Sprintf("net.core.somaxconn is %d", r.Somaxconn)}
		if r.Somaxconn < want {
			f.Mark, f.Costs = Warn, "clients that connect at once beyond that wait a second and try again"
			f.Fix = fmt.Sprintf("sysctl net.core.somaxconn=%d", want)
		}
		found = append(found, f)
	}
	if ports := r.PortLast - r.PortFirst + 1; r.UpstreamsTCP > 0 && r.PortLast > 0 {
		f := Finding{Name: "upstream ports", Mark: OK, State: fmt.Sprintf(
			"net.ipv4.ip_local_port_range has %d, net.ipv4.tcp_tw_reuse is %s", ports, r.TimeWaitReuse)}
		if ports < portsFew {
			f.Mark, f.Costs = Warn, "there can be no more connections than that to one address of an upstream"
			f.Fix = `sysctl net.ipv4.ip_local_port_range="1024 65535"`
		}
		found = append(found, f)
	}
	return append(found, r.judgeConntrack()...)
}

// judgeConntrack is about what NAT rules, such as Docker's, put under every connection,
// also those within a machine.
func (r *Readings) judgeConntrack() []Finding {
	if r.ConntrackCount < 0 {
		return ok("conntrack", "netfilter follows no connections here")
	}
	f := Finding{Name: "conntrack", Mark: Warn,
		State: fmt.Sprintf("netfilter follows connections: %d of at most %d", r.ConntrackCount, r.ConntrackMax),
		Costs: "every packet costs more, and new connections are dropped when the table is full",
		Fix:   r.noTrack()}
	if r.ConntrackMax > 0 && r.ConntrackCount*10 > r.ConntrackMax*8 {
		f.State += ", nearly full"
		f.Fix = fmt.Sprintf("sysctl net.netfilter.nf_conntrack_max=%d; %s", r.ConntrackMax*4, f.Fix)
	}
	return []Finding{f}
}

// noTrack is a command that leaves the connections of a port alone, in both directions,
// also those within the machine, whose packets pass both chains.
func (r *Readings) noTrack() string {
	port := "8080" // where no configuration says
	if len(r.Ports) > 0 {
		_, port, _ = net.SplitHostPort(r.Ports[0].Address)
	}
	rules := fmt.Sprintf("    tcp dport %s notrack; tcp sport %[1]s notrack; }\n", port)
	return "where no NAT rule, such as a published port of Docker, and no firewall by ct state is about them, let it " +
		"leave the connections of port " + port + " alone, and in the same way those of the upstreams' ports " +
		"(nft delete table inet atlas undoes it):\n" +
		"nft 'table inet atlas {\n" +
		"  chain in { type filter hook prerouting priority raw;\n" + rules +
		"  chain out { type filter hook output priority raw;\n" + rules +
		"}'"
}

func judgePorts(r *Readings) (found []Finding) {
	for _, p := range r.Ports {
		f := Finding{Name: "port", Mark: OK, State: p.Address + " can be bound"}
		if p.Err != nil {
			f.Mark, f.State, f.Costs = Fail, p.Err.Error(), "Atlas will not start"
		}
		switch {
		case p.Holder != nil && p.Holder.Same:
			f.Mark, f.Costs = OK, ""
			f.State = fmt.Sprintf("%s is where Atlas listens with this configuration now, process %d",
				p.Address, p.Holder.PID)
		case p.Holder != nil:
			f.State = fmt.Sprintf("%s is taken: process %d, %s, listens there", p.Address, p.Holder.PID, p.Holder.Name)
			f.Fix = "end that process, or choose another port"
		case errors.Is(p.Err, syscall.EADDRINUSE):
			f.Fix = "end who has it (ss -ltnp shows), or choose another port; if that is this Atlas, all is well"
		case errors.Is(p.Err, fs.ErrPermission):
			f.Fix = "setcap cap_net_bind_service=+ep ATLAS, AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, " +
				"or a port from 1024 on"
		case errors.Is(p.Err, syscall.EADDRNOTAVAIL):
			f.Fix = "choose an address of this machine (ip address shows), or \"0.0.0.0\""
		case p.Err != nil:
			f.Fix = "correct address and port in [listen]"
		}
		found = append(found, f)
	}
	return found
}

// built is a time before which no clock can be.
var built = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

func judgeClock(r *Readings) []Finding {
	f := Finding{Name: "clock", Mark: OK, State: r.Now.UTC().Format(time.DateTime) + " UTC"}
	switch {
	case r.Now.Before(built):
		f.Mark, f.Costs, f.Fix = Warn, "certificates are judged by a clock that is wrong", "set the clock, run chrony"
	case r.Unsynchronised:
		f.State += ", set by nobody that the kernel knows of"
	}
	return []Finding{f}
}
