package forward_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

const messageMax = 1 << 20

// chat sends every message back.
func chat(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionContextTakeover, Subprotocols: []string{"echo"},
	})
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(messageMax)
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return // the client has closed
		}
		if c.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

// A WebSocket library at both ends, with plain requests between the tunnels: every
// message comes back as it was.
func TestWebSocket(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		mux := http.NewServeMux()
		mux.HandleFunc("/chat", chat)
		mux.HandleFunc("/", mirror)
		r := proxyOn(e, setup{client: exchange.Config{Name: "atlas"}}, server(e, mux.ServeHTTP))
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 1))
				for round := range 3 {
					compression := []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover}
					assert.NoError(t, talk(client, r.address, rng, compression[round%2]))
					resp, err := client.Post(fmt.Sprintf("http://%s/", r.address), "", bytes.NewReader([]byte("plain")))
					if assert.NoError(t, err) {
						assert.Equal(t, 200, resp.StatusCode)
						assert.NoError(t, resp.Body.Close())
					}
				}
			})
		}
		all.Wait()
		resp, err := client.Get("http://" + r.address + "/chat") // no upgrade
		if assert.NoError(t, err) {
			assert.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
			assert.NoError(t, resp.Body.Close())
		}
		r.settled()
		assert.Zero(t, r.Loop.Counters().Panics.Load())
		assert.EqualValues(t, 8*3, r.stats.Responses[0].Load())
	})
}

// talk sends some messages of all sizes, and wants them back.
func talk(client *http.Client, address string, rng *rand.Rand, compression websocket.CompressionMode) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+address+"/chat", &websocket.DialOptions{
		HTTPClient: client, CompressionMode: compression, Subprotocols: []string{"echo"},
	})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(messageMax)
	if c.Subprotocol() != "echo" {
		return fmt.Errorf("protocol %q", c.Subprotocol())
	}
	for range 20 {
		message := make([]byte, rng.IntN(1<<rng.IntN(19)+1))
		for i := range message {
			message[i] = byte(rng.Uint32())
		}
		if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
			return err
		}
		kind, got, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if kind != websocket.MessageBinary || !bytes.Equal(message, got) {
			return fmt.Errorf("a message of %d bytes came back as another", len(message))
		}
	}
	return c.Close(websocket.StatusNormalClosure, "bye")
}
