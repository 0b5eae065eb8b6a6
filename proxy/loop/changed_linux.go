package loop

import "syscall"

// changed is the inode's change time.
func changed(sys *syscall.Stat_t) int64 { return sys.Ctim.Nano() }
