//go:build !linux

package loop

import "errors"

var errNotBuilt = errors.New("not built for this system")

func acceptWaiting(int) (int, error) { return -1, errNotBuilt }
