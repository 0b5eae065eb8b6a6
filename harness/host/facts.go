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

// environment are the facts that make two machines comparable in absolutes.
var environment = []string{"goos", "goarch", "cpu", "cores", "kernel", "hypervisor", "mitigations", "go"}

// EnvHash is short and equal for machines whose absolute figures compare. Of
// kernel and Go only the first two numbers count.
func EnvHash(facts []Fact) string {
	hash := sha256.New()
	for _, f := range facts {
		if !slices.Contains(environment, f.Key) {
			continue
		}
		value := f.Value
		if f.Key == "kernel" || f.Key == "go" {
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
