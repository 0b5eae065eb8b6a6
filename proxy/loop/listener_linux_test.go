package loop

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The kernel shows the bound of a listening socket's queue as tcpi_sacked, and
// an accepted socket has the listener's options.
func TestListenTCPOptions(t *testing.T) {
	ln, err := ListenTCP("127.0.0.1:0", 7)
	require.NoError(t, err)
	fd, err := ln.detach()
	require.NoError(t, err)
	defer func() { assert.NoError(t, ln.Close()) }()
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	require.NoError(t, err)
	assert.EqualValues(t, 7, info.Sacked)
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	require.NoError(t, err)
	assert.Equal(t, unix.IPPROTO_TCP, protocol)

	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	for err == unix.EAGAIN {
		accepted, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
	}
	require.NoError(t, err)
	defer unix.Close(accepted)
	for option, want := range map[[2]int]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE}:   1,
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:  15,
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}: 15,
		{unix.IPPROTO_TCP, unix.TCP_NODELAY}:   1,
	} {
		got, err := unix.GetsockoptInt(accepted, option[0], option[1])
		require.NoError(t, err)
		assert.Equal(t, want, got, "option %v", option)
	}
}

func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:80": "tcp4", "127.0.0.1:0": "tcp4", "[::]:80": "tcp", "[::1]:80": "tcp", "localhost:80": "tcp",
	} {
		assert.Equal(t, want, Network(address), address)
	}
	ln, err := ListenTCP("0.0.0.0:0", 0)
	require.NoError(t, err)
	defer func() { assert.NoError(t, ln.Close()) }()
	assert.Equal(t, "0.0.0.0", ln.Addr().(*net.TCPAddr).IP.String(), "not the addresses of IPv6")
}
