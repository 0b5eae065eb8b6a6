package server

import "golang.org/x/sys/unix"

// allowedCPUs lists the cores that this process may run on, which taskset,
// cpusets and containers make fewer than there are.
func allowedCPUs() (cpus []int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil // then nothing is pinned
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
