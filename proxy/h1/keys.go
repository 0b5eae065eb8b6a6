package h1

// Key names a field that some handler acts upon, so that handlers compare integers and never strings.
type Key uint8

const (
	KeyOther      Key = iota // none of the names below
	KeyUnderscore            // none of them either, and has an underscore: applications confuse it with the dashed name

	KeyConnection
	KeyHTTP2Settings
	KeyKeepAlive
	KeyProxyAuthenticate
	KeyProxyAuthenticationInfo
	KeyProxyAuthorization
	KeyProxyConnection
	KeyTE
	KeyTransferEncoding
	KeyUpgrade

	KeyAccept
	KeyAcceptEncoding
	KeyAcceptRanges
	KeyAge
	KeyAllow
	KeyAltSvc
	KeyAuthorization
	KeyCacheControl
	KeyClientCert
	KeyClientCertChain
	KeyContentEncoding
	KeyContentLength
	KeyContentLocation
	KeyContentRange
	KeyContentType
	KeyCookie
	KeyDate
	KeyETag
	KeyExpect
	KeyExpires
	KeyForwarded
	KeyHost
	KeyIfMatch
	KeyIfModifiedSince
	KeyIfNoneMatch
	KeyIfRange
	KeyIfUnmodifiedSince
	KeyLastModified
	KeyLocation
	KeyMaxForwards
	KeyOrigin
	KeyPragma
	KeyProxyStatus
	KeyRange
	KeyReferer
	KeyRetryAfter
	KeySecWebSocketKey
	KeyServer
	KeyServerTiming
	KeySetCookie
	KeyTraceparent
	KeyTrailer
	KeyUserAgent
	KeyVary
	KeyVia
	KeyWWWAuthenticate
	KeyXForwardedFor
	KeyXForwardedHost
	KeyXForwardedPort
	KeyXForwardedProto
	KeyXRealIP
	KeyXRequestID

	keyCount // at most 64: sets of keys are bits of a uint64
)

// keySet is a set of keys.
type keySet uint64

func keysOf(keys ...Key) (s keySet) {
	for _, k := range keys {
		s |= 1 << k
	}
	return s
}

func (s keySet) has(k Key) bool { return s>>(k&63)&1 != 0 }

// keyNames are the names in lower case.
var keyNames = [keyCount]string{
	KeyConnection:              "connection",
	KeyHTTP2Settings:           "http2-settings",
	KeyKeepAlive:               "keep-alive",
	KeyProxyAuthenticate:       "proxy-authenticate",
	KeyProxyAuthenticationInfo: "proxy-authentication-info",
	KeyProxyAuthorization:      "proxy-authorization",
	KeyProxyConnection:         "proxy-connection",
	KeyTE:                      "te",
	KeyTransferEncoding:        "transfer-encoding",
	KeyUpgrade:                 "upgrade",

	KeyAccept:            "accept",
	KeyAcceptEncoding:    "accept-encoding",
	KeyAcceptRanges:      "accept-ranges",
	KeyAge:               "age",
	KeyAllow:             "allow",
	KeyAltSvc:            "alt-svc",
	KeyAuthorization:     "authorization",
	KeyCacheControl:      "cache-control",
	KeyClientCert:        "client-cert",
	KeyClientCertChain:   "client-cert-chain",
	KeyContentEncoding:   "content-encoding",
	KeyContentLength:     "content-length",
	KeyContentLocation:   "content-location",
	KeyContentRange:      "content-range",
	KeyContentType:       "content-type",
	KeyCookie:            "cookie",
	KeyDate:              "date",
	KeyETag:              "etag",
	KeyExpect:            "expect",
	KeyExpires:           "expires",
	KeyForwarded:         "forwarded",
	KeyHost:              "host",
	KeyIfMatch:           "if-match",
	KeyIfModifiedSince:   "if-modified-since",
	KeyIfNoneMatch:       "if-none-match",
	KeyIfRange:           "if-range",
	KeyIfUnmodifiedSince: "if-unmodified-since",
	KeyLastModified:      "last-modified",
	KeyLocation:          "location",
	KeyMaxForwards:       "max-forwards",
	KeyOrigin:            "origin",
	KeyPragma:            "pragma",
	KeyProxyStatus:       "proxy-status",
	KeyRange:             "range",
	KeyReferer:           "referer",
	KeyRetryAfter:        "retry-after",
	KeySecWebSocketKey:   "sec-websocket-key",
	KeyServer:            "server",
	KeyServerTiming:      "server-timing",
	KeySetCookie:         "set-cookie",
	KeyTraceparent:       "traceparent",
	KeyTrailer:           "trailer",
	KeyUserAgent:         "user-agent",
	KeyVary:              "vary",
	KeyVia:               "via",
	KeyWWWAuthenticate:   "www-authenticate",
	KeyXForwardedFor:     "x-forwarded-for",
	KeyXForwardedHost:    "x-forwarded-host",
	KeyXForwardedPort:    "x-forwarded-port",
	KeyXForwardedProto:   "x-forwarded-proto",
	KeyXRealIP:           "x-real-ip",
	KeyXRequestID:        "x-request-id",
}

// String is the field name in lower case, "" for KeyOther and KeyUnderscore.
func (k Key) String() string {
	if k >= keyCount {
		return ""
	}
	return keyNames[k]
}
