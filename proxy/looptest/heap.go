package looptest

import (
	"math"
	"runtime"
)

// HeapInUse is how many bytes of the heap are in use. It looks three times, as what
// others allocate during a collection outlives it.
func HeapInUse() int {
	least := math.MaxInt
	for range 3 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, int(m.HeapAlloc))
	}
	return least
}
