package tlsio_test

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

	"github.com/stretchr/testify/require"
)

// forger is a client that has shaken hands by crypto/tls and writes its records
// itself from then on: crypto/tls asks for no new keys, and never breaks the rules.
type forger struct {
	*net.TCPConn
	rig    *rig
	secret []byte // of what the client sends
	aead   cipher.AEAD
	iv     [12]byte
	seq    uint64
}

const (
	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23
)

// forge connects with TLS 1.3.
func (r *rig) forge() *forger {
	r.Helper()
	var log bytes.Buffer
	cfg := r.trusting()
	cfg.MinVersion, cfg.KeyLogWriter = tls.VersionTLS13, &log
	raw := r.Dial(r.address)
	c := tls.Client(raw, cfg)
	require.NoError(r, c.Handshake())
	require.Equal(r, tls.TLS_AES_128_GCM_SHA256, c.ConnectionState().CipherSuite)
	f := &forger{TCPConn: raw, rig: r}
	for line := range strings.Lines(log.String()) {
		if words := strings.Fields(line); words[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(words[2])
			require.NoError(r, err)
			f.rekey(secret)
		}
	}
	require.NotNil(r, f.aead)
	return f
}

// rekey goes on with another secret (RFC 8446 section 7.3).
func (f *forger) rekey(secret []byte) {
	f.secret, f.seq = secret, 0
	block, err := aes.NewCipher(f.expand("key", 16))
	require.NoError(f.rig, err)
	f.aead, err = cipher.NewGCM(block)
	require.NoError(f.rig, err)
	f.iv = [12]byte(f.expand("iv", 12))
}

// expand is HKDF-Expand-Label without a context.
func (f *forger) expand(label string, size int) []byte {
	label = "tls13 " + label
	text := append([]byte{0, byte(size), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, f.secret, string(append(text, 0)), size)
	require.NoError(f.rig, err)
	return out
}

// record encrypts one.
func (f *forger) record(kind byte, content ...byte) []byte {
	size := len(content) + 1 + f.aead.Overhead()
	header := []byte{typeApplication, 3, 3, byte(size >> 8), byte(size)}
	nonce := f.iv
	seq := binary.BigEndian.AppendUint64(nil, f.seq)
	for i, b := range seq {
		nonce[4+i] ^= b
	}
	f.seq++
	return f.aead.Seal(header, nonce[:], append(content, kind), header)
}

// keyUpdate asks for new keys, and goes on with new ones.
func (f *forger) keyUpdate() []byte {
	record := f.record(typeHandshake, 24, 0, 0, 1, 1)
	f.rekey(f.expand("traffic upd", 32))
	return record
}

// send writes bytes.
func (f *forger) send(b []byte) {
	f.rig.Helper()
	_, err := f.Write(b)
	require.NoError(f.rig, err)
}
