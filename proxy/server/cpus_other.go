//go:build !linux

package server

import "runtime"

// allowedCPUs pretends that all are: nothing is pinned here.
func allowedCPUs() (cpus []int) {
	for cpu := range runtime.NumCPU() {
		cpus = append(cpus, cpu)
	}
	return cpus
}
