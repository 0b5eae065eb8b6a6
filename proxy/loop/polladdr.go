package loop

import (
	"net"
	"net/netip"
)

func (c *pollConn) Local() netip.AddrPort {
	if c.named != nil {
		return c.named.local
	}
	return tcpAddr(c.conn.LocalAddr())
}

func (c *pollConn) Remote() netip.AddrPort {
	if c.named != nil {
		return c.named.remote
	}
	return tcpAddr(c.conn.RemoteAddr())
}

func (c *pollConn) SetAddrs(local, remote netip.AddrPort) { c.named = &names{local, remote} }

func tcpAddr(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{} // a Unix socket
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
