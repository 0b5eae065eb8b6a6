package looptest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Forger is a client that has shaken hands by crypto/tls and writes its records
// itself from then on: crypto/tls asks for no new keys, and never breaks the rules.
type Forger struct {
	*net.TCPConn
	t      testing.TB
	secret []byte // of what the client sends
	aead   cipher.AEAD
	iv     [12]byte
	seq    uint64
}

// Types of records (RFC 8446 section 5.1).
const (
	RecordAlert       = 21
	RecordHandshake   = 22
	RecordApplication = 23
)

// Forge shakes hands with TLS 1.3 over a new connection.
func Forge(t testing.TB, raw *net.TCPConn, cfg *tls.Config) *Forger {
	t.Helper()
	var log bytes.Buffer
	cfg = cfg.Clone()
	cfg.MinVersion, cfg.KeyLogWriter = tls.VersionTLS13, &log
	c := tls.Client(raw, cfg)
	require.NoError(t, c.Handshake())
	require.Equal(t, tls.TLS_AES_128_GCM_SHA256, c.ConnectionState().CipherSuite)
	f := &Forger{TCPConn: raw, t: t}
	for line := range strings.Lines(log.String()) {
		if words := strings.Fields(line); words[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(words[2])
			require.NoError(t, err)
			f.rekey(secret)
		}
	}
	require.NotNil(t, f.aead)
	return f
}

// rekey goes on with another secret (RFC 8446 section 7.3).
func (f *Forger) rekey(secret []byte) {
	f.secret, f.seq = secret, 0
	block, err := aes.NewCipher(f.expand("key", 16))
	require.NoError(f.t, err)
	f.aead, err = cipher.NewGCM(block)
	require.NoError(f.t, err)
	f.iv = [12]byte(f.expand("iv", 12))
}

// expand is HKDF-Expand-Label without a context.
func (f *Forger) expand(label string, size int) []byte {
	label = "tls13 " + label
	text := append([]byte{0, byte(size), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, f.secret, string(append(text, 0)), size)
	require.NoError(f.t, err)
	return out
}

// Record encrypts one.
func (f *Forger) Record(kind byte, content ...byte) []byte {
	size := len(content) + 1 + f.aead.Overhead()
	header := []byte{RecordApplication, 3, 3, byte(size >> 8), byte(size)}
	nonce := f.iv
	seq := binary.BigEndian.AppendUint64(nil, f.seq)
	for i, b := range seq {
		nonce[4+i] ^= b
	}
	f.seq++
	return f.aead.Seal(header, nonce[:], append(content, kind), header)
}

// KeyUpdate asks for new keys, and goes on with new ones.
func (f *Forger) KeyUpdate() []byte {
	record := f.Record(RecordHandshake, 24, 0, 0, 1, 1)
	f.rekey(f.expand("traffic upd", 32))
	return record
}

// Say writes bytes as they are.
func (f *Forger) Say(b []byte) {
	f.t.Helper()
	_, err := f.Write(b)
	require.NoError(f.t, err)
}

// floodRecords is how many times a flood asks for new keys; each would be owed 27
// bytes, and brings one, so that crypto/tls takes it for useful.
const floodRecords = 200_000

// Flood asks for new keys without end and reads nothing. It reports how often until
// the server took nothing any more, and whether it ever did.
func (f *Forger) Flood() (sent int, stopped bool) {
	_ = f.SetReadBuffer(4 << 10)
	_ = f.SetWriteBuffer(4 << 10)
	for sent < floodRecords {
		var batch []byte
		for range 100 {
			batch = append(batch, f.KeyUpdate()...)
			batch = append(batch, f.Record(RecordApplication, 'x')...)
		}
		_ = f.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := f.Write(batch); err != nil {
			return sent, true
		}
		sent += 100
	}
	return sent, false
}
