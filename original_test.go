package atlas_test

import (
	"go/ast"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A fault is one that the original, in Rust, has in its source, and the tests
// that would catch it here.
type fault struct {
	what  string
	tests []string // folder.Function
	later string   // what a part that is not built yet has to add
}

// original lists the faults by number, from 1.
var original = []fault{
	{what: "a head that comes in two reads hangs for ever", tests: []string{
		"proxy/forward.TestCorpusRequests", "proxy/forward.TestCorpusResponses", "proxy/forward.TestRequestCuts",
		"proxy/forward.TestResponseCuts", "proxy/exchange.TestPipeliningCuts", "proxy/static.TestPartOfNextRequest",
	}},
	{what: "a chunked request body is never read, and what there is of it is the next request", tests: []string{
		"proxy/forward.TestCorpusChunked", "proxy/forward.TestRequestFraming", "proxy/forward.TestRequestCuts",
	}},
	{what: "a response that ends with its connection loses its body", tests: []string{
		"proxy/forward.TestResponseFraming", "proxy/forward.TestCorpusResponses", "proxy/forward.TestBodies",
	}},
	{what: "an answer to HEAD and a 304 wait for a body", tests: []string{
		"proxy/forward.TestResponseFraming", "proxy/forward.TestResponseHead", "proxy/forward.TestCorpusResponses",
	}},
	{what: "an interim response is taken for the final one; Expect is not answered", tests: []string{
		"proxy/forward.TestInterim", "proxy/forward.TestResponseCuts", "proxy/forward.TestExpect",
		"proxy/forward.TestExpectAnsweredAtOnce", "proxy/exchange.TestExpect",
	}},
	{what: "a connection that has switched protocols goes back to the pool", tests: []string{
		"proxy/forward.TestUpstreamFaults", "proxy/h1.TestReusable", "proxy/forward.TestUpgrade",
	}},
	{what: "a chunked body ends at the first bytes that look like its end", tests: []string{
		"proxy/forward.TestChunkedEnd", "proxy/forward.TestCorpusChunked", "proxy/forward.TestTruncated", "proxy/h1.FuzzChunks",
	}},
	{what: "pipelined requests are dropped", tests: []string{
		"proxy/exchange.TestPipelining", "proxy/static.TestPipelining", "proxy/forward.TestPipeliningSlowSecond",
		"proxy/h1.FuzzPipeline",
	}},
	{what: "what does not parse, or has more than 64 fields, is forwarded raw", tests: []string{
		"proxy/forward.TestManyFields", "proxy/forward.TestCorpusRequests", "proxy/forward.FuzzServe",
	}},
	{what: "messages are held whole in memory, and read in quadratic time", tests: []string{
		"proxy/server.TestLargeBodies", "proxy/forward.TestStreaming", "proxy/forward.TestClientNeverReads",
		"proxy/forward.TestLargeBothWays",
	}},
	{what: "the proxy answers no errors", tests: []string{
		"proxy/forward.TestUpstreamFaults", "proxy/forward.TestConnectFails", "proxy/exchange.TestRefusals",
	}},
	{what: "two framings, repeated, signed or bad lengths, white space before the colon, folds and bare LF pass", tests: []string{
		"proxy/h1.TestCorpus", "proxy/forward.TestCorpusRequests", "proxy/exchange.TestRefusals", "proxy/h1.FuzzPipeline",
	}},
	{what: "a huge Content-Length ends a worker, and with it a share of all connections", tests: []string{
		"proxy/forward.TestHugeLengths", "proxy/server.TestPanics", "proxy/server.TestNoListenerIsDeaf",
	}},
	{what: "bytes of one client reach another", tests: []string{
		"proxy/forward.TestStreamsDoNotMix", "proxy/forward.TestAnswersDoNotMix", "proxy/forward.TestChaos",
		"proxy/relay.TestTunnelNothingCrosses",
	}},
	{what: "the file cache is keyed by the query and has no bound; links leave the root; hidden files and pipes are served",
		tests: []string{
			"proxy/static.TestQueriesShareAnEntry", "proxy/static.TestCacheIsBounded", "proxy/static.TestSymlinks",
			"proxy/static.TestNoFile", "proxy/static.TestNoRegularFile",
		}},
	{what: "anybody on the machine can take the listeners through a socket in /tmp", tests: []string{
		"proxy.TestOneDoor",
	}, later: "takeover: its socket, who may connect, what is read from it"},
	{what: "nothing has a time-out", tests: []string{
		"proxy/exchange.TestHeaderTimeoutIsTotal", "proxy/exchange.TestIdleTimeout", "proxy/exchange.TestWriteTimeout",
		"proxy/forward.TestUploadFaults", "proxy/forward.TestUpstreamFaults", "proxy/forward.TestConnectFails",
		"proxy/forward.TestHangsInBody", "proxy/forward.TestUpstreamNeverReads", "proxy.TestSlowClients",
		"proxy/tlsio.TestHalfOpenHandshakes",
	}},
	{what: "a pooled connection that the upstream has closed costs an answer; a POST is sent twice", tests: []string{
		"proxy/forward.TestStale", "proxy/upstream.TestLost", "proxy/upstream.TestLostJustNow",
		"proxy/forward.TestEarlyResponseRaces", "proxy.TestNginxRestarts",
	}},
	{what: "SIGTERM ends the process at once, with all that is in flight", tests: []string{
		"proxy.TestSignalDrains", "proxy.TestSignalCuts", "proxy/server.TestDrainFinishesBodies",
	}},
	{what: "a worker notices a signal with its next connection, which it drops; clients that keep theirs are waited for",
		tests: []string{"proxy.TestSignalRefuses", "proxy.TestSignalDrains", "proxy/server.TestDrainUnspoken"}},
	{what: "listeners that nobody accepts from stay open while the process drains", tests: []string{
		"proxy.TestSignalRefuses", "proxy/server.TestDrainRefuses",
	}, later: "takeover: no duplicate of a listener stays behind"},
	{what: "a process that took over hands nothing on; listeners beyond 16 are lost, those beyond the workers are deaf",
		tests: []string{"proxy/server.TestNoListenerIsDeaf", "proxy.TestSignalRefuses"},
		later: "takeover: chains of them, the order of drain and start, more and fewer workers"},
	{what: "a connection that fails early is counted as open for ever", tests: []string{
		"proxy/forward.TestChaos", "proxy/forward.TestUploadFaults", "proxy/forward.TestClientLeaves",
		"proxy/exchange.TestHandlerFailures", "proxy/server.TestChurn",
		"proxy/tlsio.TestCutHandshakes",
	}},
	{what: "a watch follows the inode of a file that is replaced; weight 0 panics; accept without descriptors spins",
		tests: []string{"proxy/forward.TestConnectFails", "proxy/forward.TestSpread", "proxy/server.TestNoDescriptorsLeft"},
		later: "reload: files replaced by rename and by link, a weight that becomes 0, a change of mode"},
	{what: "every connect looks a name up on the worker, and tries one address for two minutes", tests: []string{
		"proxy/server.TestProxyToNamedUpstream", "proxy/forward.TestConnectFails", "proxy/upstream.TestNames",
		"proxy/upstream.TestNameMoves", "proxy/upstream.TestSlowLookup",
	}},
}

// TestOriginal wants every fault of the original to have tests that are there.
func TestOriginal(t *testing.T) {
	require.Len(t, original, 25)
	r := read(t, os.DirFS("."))
	have := make(map[string]bool)
	for _, s := range r.sources {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && s.test() {
				have[s.dir()+"."+f.Name.Name] = true
			}
		}
	}
	for i, f := range original {
		assert.NotEmpty(t, f.what)
		assert.NotEmpty(t, f.tests, "%d, %s: no test", i+1, f.what)
		for _, test := range f.tests {
			name := strings.TrimPrefix(path.Ext(test), ".")
			assert.True(t, strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz"), test)
			assert.True(t, have[test], "%d, %s: %s is not there; was it renamed?", i+1, f.what, test)
		}
	}
}
