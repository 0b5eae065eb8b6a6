package h1

import "net/netip"

// ParseAddress reads an address as it stands in X-Forwarded-For: IPv4 or IPv6, the latter also in brackets, and either
// with a port behind it, which is dropped. IPv4 in IPv6 becomes IPv4. It is what netip.ParseAddr accepts, but for
// zones, which mean nothing on another machine, and it allocates nothing.
func ParseAddress(b []byte) (address netip.Addr, ok bool) {
	if len(b) > 0 && b[0] == '[' {
		host, _ := splitPort(b)
		if len(host) < 2 || host[len(host)-1] != ']' || len(host) < len(b) && !isPort(b[len(host)+1:]) {
			return netip.Addr{}, false
		}
		return parseIPv6(host[1 : len(host)-1])
	}
	host, port := splitPort(b)
	if len(host) == len(b) || isPort(port) {
		if ip, ok := parseIPv4(host); ok {
			return netip.AddrFrom4(ip), true
		}
	}
	return parseIPv6(b)
}

// parseIPv4 reads four decimal numbers without leading zeros, which some read as octal.
func parseIPv4(b []byte) (ip [4]byte, ok bool) {
	for i := range ip {
		if i > 0 {
			if len(b) == 0 || b[0] != '.' {
				return ip, false
			}
			b = b[1:]
		}
		n, digits := 0, 0
		for digits < len(b) && digits < 4 && isDigit(b[digits]) {
			n = n*10 + int(b[digits]-'0')
			digits++
		}
		if digits == 0 || n > 255 || digits > 1 && b[0] == '0' {
			return ip, false
		}
		ip[i] = byte(n)
		b = b[digits:]
	}
	return ip, len(b) == 0
}

// parseIPv6 reads the text form of RFC 4291 section 2.2: groups of up to four digits, of which one run of zeros may be
// left out, and the last two of which may be IPv4.
func parseIPv6(b []byte) (address netip.Addr, ok bool) {
	var ip [16]byte
	n, gap := 0, -1
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if n == len(ip) {
			return address, false
		}
		if v4, isV4 := parseIPv4(b); isV4 && n <= len(ip)-len(v4) {
			n += copy(ip[n:], v4[:])
			b = nil
			break
		}
		value, digits := hexGroup(b)
		if digits == 0 {
			return address, false
		}
		ip[n], ip[n+1] = byte(value>>8), byte(value)
		n, b = n+2, b[digits:]
		switch {
		case len(b) == 0:
		case b[0] != ':' || len(b) == 1:
			return address, false
		case b[1] == ':' && gap >= 0:
			return address, false
		case b[1] == ':':
			gap, b = n, b[2:]
		default:
			b = b[1:]
		}
	}
	if (gap < 0) != (n == len(ip)) {
		return address, false
	}
	if gap >= 0 {
		behind := n - gap
		copy(ip[len(ip)-behind:], ip[gap:n])
		clear(ip[gap : len(ip)-behind])
	}
	return netip.AddrFrom16(ip).Unmap(), true
}

// hexGroup reads up to four hexadecimal digits. A fifth makes it none.
func hexGroup(b []byte) (value, digits int) {
	for digits < len(b) && class[b[digits]]&classHex != 0 {
		value = value<<4 | int(hexValue(b[digits]))
		if digits++; digits > 4 {
			return 0, 0
		}
	}
	return value, digits
}
