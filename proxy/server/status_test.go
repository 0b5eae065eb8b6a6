package server

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// A worker that hangs is found, and what it said before is what there is.
func TestSilentWorker(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := launch(t, looptest.ProxyConfig(engine, []string{"127.0.0.1:1"}), nil)
		ask := func() ([]int, Status) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			return r.Silent(ctx), r.Status(ctx)
		}
		patient, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		assert.Empty(t, r.Silent(patient))
		assert.Zero(t, r.Status(patient).Upstreams.Silent)

		hang, hung := make(chan struct{}), make(chan struct{})
		require.True(t, r.workers[1].Post(func() { close(hung); <-hang }))
		<-hung
		silent, status := ask()
		assert.Contains(t, silent, 1) // on a busy machine the other one may be as late
		assert.Positive(t, status.Upstreams.Silent)
		assert.Len(t, status.Upstreams.Endpoints, 1)
		close(hang)
		assert.Empty(t, r.Silent(patient))
	})
}

func TestStatusOfEngine(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := launch(t, looptest.StaticConfig(t, engine), nil)
		status := r.Status(t.Context())
		assert.Equal(t, engine, status.Engine)
		assert.Equal(t, "the configuration asks for it", status.EngineReason)
		assert.True(t, status.Ready)
		assert.WithinDuration(t, time.Now(), status.Started, patience)
		assert.Equal(t, []ListenerStatus{{Address: r.Addr(), Mode: "static"}}, status.Listeners)
		assert.Empty(t, status.Upstreams.Endpoints)
		require.True(t, r.shutdown(patience))
		assert.Equal(t, "draining", r.Status(t.Context()).Reason)
		assert.Empty(t, r.Silent(t.Context()))
	})
}
