package cert

import (
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/scenarios"
)

// handshake connects a client to a server of its own and returns what both
// agreed on.
func handshake(t *testing.T, client, server *tls.Config) (tls.ConnectionState, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = tls.Server(conn, server).Handshake() // the client's half is under test
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

func serverOf(t *testing.T, i *Identity) *tls.Config {
	pair, err := tls.LoadX509KeyPair(i.Chain, i.Key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func TestMake(t *testing.T) {
	for _, kind := range []scenarios.Key{scenarios.ECDSA, scenarios.RSA} {
		i, err := Make(t.TempDir(), kind)
		require.NoError(t, err)
		_, err = tls.LoadX509KeyPair(i.Bundle, i.Bundle)
		require.NoError(t, err, "both halves are in the bundle")
		state, err := handshake(t, i.Client(), serverOf(t, i))
		require.NoError(t, err)
		require.EqualValues(t, tls.VersionTLS13, state.Version)
		require.Equal(t, tls.X25519, state.CurveID)
		require.Equal(t, Cipher, tls.CipherSuiteName(state.CipherSuite))

		other, err := Make(t.TempDir(), kind)
		require.NoError(t, err)
		_, err = handshake(t, i.Client(), serverOf(t, other))
		require.ErrorContains(t, err, "a certificate other than the lab's")
	}
	_, err := Make(t.TempDir(), scenarios.Plain)
	require.ErrorContains(t, err, `no key of kind ""`)
	_, err = Make("/no/such/directory", scenarios.ECDSA)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestClientRefusesOldTLS(t *testing.T) {
	i, err := Make(t.TempDir(), scenarios.ECDSA)
	require.NoError(t, err)
	old := serverOf(t, i)
	old.MaxVersion = tls.VersionTLS12
	_, err = handshake(t, i.Client(), old)
	require.ErrorContains(t, err, "protocol version")
}

// A client on OpenSSL that gets nothing but the file offers nothing else.
func TestOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	requireInstalled(t, err)
	dir := t.TempDir()
	conf := filepath.Join(dir, "openssl.cnf")
	require.NoError(t, os.WriteFile(conf, []byte(OpenSSL()), 0o644))
	i, err := Make(dir, scenarios.ECDSA)
	require.NoError(t, err)
	server := serverOf(t, i)
	offered := make(chan *tls.ClientHelloInfo, 1)
	server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered <- hello
		return nil, nil
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake() // what it was offered is under test
			_ = conn.Close()
		}
	}()
	cmd := exec.Command(program, "s_client", "-connect", listener.Addr().String())
	cmd.Env = append(os.Environ(), "OPENSSL_CONF="+conf)
	_ = cmd.Run() // it may mind the certificate
	hello := <-offered
	require.Equal(t, []uint16{tls.VersionTLS13}, hello.SupportedVersions)
	require.Contains(t, hello.CipherSuites, cipher)
	require.NotContains(t, hello.CipherSuites, tls.TLS_AES_256_GCM_SHA384)
	require.Equal(t, []tls.CurveID{tls.X25519}, hello.SupportedCurves)
}

// requireInstalled skips without a program, but never where CI promises it.
func requireInstalled(t *testing.T, missing error) {
	if missing != nil && os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	if missing != nil {
		t.Skip(missing)
	}
}
