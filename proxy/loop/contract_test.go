package loop_test

import (
	"testing"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

func TestContract(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) { looptest.Run(t, engine) })
}
