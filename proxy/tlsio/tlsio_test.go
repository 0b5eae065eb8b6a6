package tlsio_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

func TestEcho(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.serve(echo)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := r.trusting()
			cfg.MaxVersion = version
			c := r.client(cfg)
			assert.Equal(t, version, c.ConnectionState().Version)
			for range 3 {
				says(t, c, "hello")
			}
			require.NoError(t, c.CloseWrite())
			rest, err := io.ReadAll(c)
			assert.NoError(t, err, "close_notify is answered")
			assert.Empty(t, rest)
		}
		assert.EqualValues(t, 2, r.stats.Handshakes.Load())
	})
}

func TestDial(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server := r.config.Clone()
			server.MaxVersion = version
			peer, c := r.dialled(server)
			r.Task(func() {
				_, err := c.Write([]byte("question"))
				assert.NoError(t, err)
				assert.NoError(t, c.Flush())
			})
			got := make([]byte, 8)
			_, err := io.ReadFull(peer, got)
			require.NoError(t, err)
			assert.Equal(t, "question", string(got))
			_, err = io.WriteString(peer, "answer")
			require.NoError(t, err)
			require.NoError(t, peer.CloseWrite())
			r.Task(func() {
				assert.NoError(t, c.Fill())
				assert.Equal(t, "answer", string(c.Peek()))
				assert.Equal(t, io.EOF, c.Fill())
				c.Close()
			})
			rest, err := io.ReadAll(peer)
			assert.NoError(t, err)
			assert.Empty(t, rest)
		}
	})
}

// Bodies of many records go both ways at once, in the sizes of a relay.
func TestBulk(t *testing.T) {
	const size = 10<<20 + 7
	engines(t, func(t *testing.T, r *rig) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server := r.config.Clone()
			server.MaxVersion = version
			peer, c := r.dialled(server)
			body := looptest.Pattern(size)
			read := make(chan []byte, 1)
			go func() {
				got, err := io.ReadAll(peer)
				assert.NoError(t, err)
				read <- got
			}()
			go func() {
				_, err := peer.Write(body)
				assert.NoError(t, err)
				assert.NoError(t, peer.CloseWrite())
			}()
			var got []byte
			r.Task(func() {
				sending := r.Loop.Go(func() {
					for rest := body; len(rest) > 0; {
						n := min(len(rest), 64<<10)
						_, err := c.Write(rest[:n])
						assert.NoError(t, err)
						rest = rest[n:]
					}
					assert.NoError(t, c.CloseWrite())
				})
				buffer := make([]byte, 64<<10)
				for {
					n, err := c.Read(buffer)
					got = append(got, buffer[:n]...)
					if err != nil {
						assert.Equal(t, io.EOF, err)
						break
					}
				}
				assert.NoError(t, sending.Join())
				c.Close()
			})
			assert.True(t, bytes.Equal(body, got), "what was received")
			assert.True(t, bytes.Equal(body, <-read), "what was sent")
		}
	})
}

var _ loop.Conn
