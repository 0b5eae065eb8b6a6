package h1_test

import (
	"fmt"

	"atlas/proxy/h1"
)

func ExampleParseRequest() {
	buffer := []byte("GET /a?b HTTP/1.1\r\nHost: example.com\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nAccept: */*\r\n\r\n")
	var req h1.Request // kept with the connection, not made for each request
	n, err := h1.ParseRequest(buffer, &req)
	if err == h1.ErrShort {
		return // receive more behind the same bytes, then parse again
	}
	if refused, ok := err.(*h1.SyntaxError); ok {
		fmt.Println(refused.Status, refused.Reason)
		return
	}
	head := h1.AppendRequestLine(nil, req.MethodName, req.AppendTarget(nil))
	for i, f := range req.Fields() {
		if !req.HopByHop(i) && f.Key != h1.KeyUnderscore {
			head = h1.AppendField(head, f.Name, f.Value)
		}
	}
	fmt.Printf("%q\nbody %t, keep-alive %t, rest %q\n", head, !req.Body.Empty(), req.KeepAlive, buffer[n:])
	// Output:
	// "GET /a?b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n"
	// body false, keep-alive false, rest ""
}

func ExampleChunks() {
	var chunks h1.Chunks
	var trailer h1.Trailer
	var rest []byte // what was received and not yet consumed
	for _, received := range []string{"5;x=y\r\nhel", "lo\r\n6\r\n world\r\n0\r\nX-Sum: 1", "1\r\n\r\nGET"} {
		rest = append(rest, received...)
		for len(rest) > 0 && !chunks.Done() {
			data, n, err := chunks.Next(rest)
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Printf("%s", data)
			rest = rest[n:]
		}
		if !chunks.Done() {
			continue
		}
		n, err := h1.ParseTrailer(rest, &trailer)
		if err == h1.ErrShort {
			continue
		}
		fmt.Printf(", %v, %s=%s, rest %q\n", err, trailer.Fields()[0].Name, trailer.Fields()[0].Value, rest[n:])
	}
	// Output: hello world, <nil>, X-Sum=11, rest "GET"
}
