package host

import (
	"slices"
	"strconv"
	"strings"
)

// clientCoresMax bounds the cores given to the load: one server core never
// needs more, and wrk with many threads reports odd rates.
const clientCoresMax = 4

// Cores says which core is whose during a run.
type Cores struct {
	Server []int // the subject, one worker
	Client []int // the load generator, the origin and the harness
	// Warning says what is wrong with the split, "" if nothing is.
	Warning string
}

// Split divides the cores this process may use. siblings returns the hardware
// threads that share a core with one, itself included.
func Split(allowed []int, siblings func(core int) []int) Cores {
	if len(allowed) == 0 {
		return Cores{Warning: "no cores are known here, nothing is pinned: figures mix server and load"}
	}
	server := allowed[0]
	rest := slices.Clone(allowed[1:])
	if len(rest) == 0 {
		return Cores{
			Server: []int{server}, Client: []int{server},
			Warning: "one core only, which server, origin and load share: " +
				"read CPU per request and not requests per second",
		}
	}
	shared := siblings(server)
	apart := slices.DeleteFunc(slices.Clone(rest), func(core int) bool { return slices.Contains(shared, core) })
	warning := ""
	if len(apart) == 0 {
		apart = rest
		warning = "server and load run on two threads of one physical core and slow each other down"
	}
	return Cores{Server: []int{server}, Client: apart[:min(len(apart), clientCoresMax)], Warning: warning}
}

// ForLoad returns the cores that make load where no server under measurement runs.
func ForLoad(allowed []int) []int { return allowed[:min(len(allowed), clientCoresMax)] }

// List writes cores as "0,2,3", and no cores as "any".
func List(cores []int) string {
	if len(cores) == 0 {
		return "any"
	}
	var words []string
	for _, c := range cores {
		words = append(words, strconv.Itoa(c))
	}
	return strings.Join(words, ",")
}

// parseList reads the kernel's form of a core list, "0-3,8".
func parseList(s string) ([]int, error) {
	var cores []int
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil {
			return nil, err
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(to); err != nil {
				return nil, err
			}
		}
		for c := first; c <= last; c++ {
			cores = append(cores, c)
		}
	}
	return cores, nil
}
