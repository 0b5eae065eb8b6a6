//go:build unix && !linux

package loop

import "syscall"

// changed is not asked for where the field has another name: size and times of
// content have to do.
func changed(*syscall.Stat_t) int64 { return 0 }
