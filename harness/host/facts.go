package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fact is one thing that is true of the machine during a run.
type Fact struct {
	Key   string `json:"key"` // lower case, words joined by '-'
	Value string `json:"value"`
}

// Facts returns what may explain a figure. Facts that are not exposed here are
// left out or say so.
func Facts() []Fact {
	return append([]Fact{
		{"goos", runtime.GOOS},
		{"goarch", runtime.GOARCH},
		{"go", runtime.Version()},
		{"cores", strconv.Itoa(runtime.NumCPU())},
		{"conntrack", conntrack()},
	}, facts()...)
}

// Value returns the value of a key, or "".
func Value(facts []Fact, key string) string {
	for _, f := range facts {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// Report is what a host tells another one of itself.
type Report struct {
	Facts []Fact
	Cores Cores
	Noise string // as of Noise
}

// Reported returns a report of this host.
func Reported() *Report {
	return &Report{Facts: Facts(), Cores: Split(Allowed(), Siblings), Noise: Noise()}
}

// Of returns the facts of another host, as facts of a run in which it has a role.
func Of(role string, facts []Fact) []Fact {
	var all []Fact
	for _, f := range facts {
		all = append(all, Fact{role + roleEnd + f.Key, f.Value})
	}
	return all
}

// Roles are those that a host other than this one may have.
var Roles = []string{"subject", "origin"}

const roleEnd = "-host-"

// AllRoles returns keys, and after them as they are of other hosts.
func AllRoles(keys []string) []string {
	all := slices.Clone(keys)
	for _, role := range Roles {
		for _, key := range keys {
			all = append(all, role+roleEnd+key)
		}
	}
	return all
}

// ownKey is the key of a fact on its own host.
func ownKey(key string) string {
	for _, role := range Roles {
		if own, is := strings.CutPrefix(key, role+roleEnd); is {
			return own
		}
	}
	return key
}

// environment are the facts that make two machines comparable in absolutes.
var environment = []string{"goos", "goarch", "cpu", "cores", "kernel", "hypervisor", "mitigations", "go", "launch"}

// EnvHash is short and equal for machines whose absolute figures compare: for all
// hosts of a run. Of kernel and Go only the first two numbers count.
func EnvHash(facts []Fact) string {
	hash := sha256.New()
	for _, f := range facts {
		own := ownKey(f.Key)
		if !slices.Contains(environment, own) {
			continue
		}
		value := f.Value
		if own == "kernel" || own == "go" {
			value = majorMinor(value)
		}
		fmt.Fprintf(hash, "%s=%s\n", f.Key, value)
	}
	return hex.EncodeToString(hash.Sum(nil))[:6]
}

// majorMinor returns "6.18" of "6.18.44-lts".
func majorMinor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// conntrackProbes is enough to stand out from other traffic of the machine.
const conntrackProbes = 64

const conntrackCount = "/proc/sys/net/netfilter/nf_conntrack_count"

// conntrack says whether the kernel tracks loopback connections, as it does
// once NAT rules exist (Docker adds some): it costs every server about 10 %.
// It opens connections to itself and looks whether the count follows.
func conntrack() string {
	before, err := strconv.Atoi(readLine(conntrackCount))
	if err != nil {
		return "off"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "unknown"
	}
	defer listener.Close()
	for range conntrackProbes {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), time.Second)
		if err != nil {
			return "unknown"
		}
		defer conn.Close()
	}
	after, err := strconv.Atoi(readLine(conntrackCount))
	switch grown := after - before; {
	case err != nil:
		return "unknown"
	case grown >= conntrackProbes*3/4:
		return "on"
	case grown <= conntrackProbes/4:
		return "off"
	}
	return "unknown"
}
