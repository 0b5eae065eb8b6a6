package h1

// Reason is the one word for why bytes were refused. Reasons are dense from 0 to ReasonCount-1, so that a worker can
// count them in an array; String gives the metric label.
type Reason uint8

const (
	reasonNone  Reason = iota // inside the package: go on
	reasonShort               // inside the package: ErrShort

	// lines
	reasonBareLF
	reasonBareCR
	reasonLeadingSpace
	reasonEmptyLine

	// request line
	reasonMethod
	reasonMethodLong
	reasonTarget
	reasonTargetFragment
	reasonTargetForm
	reasonTargetScheme
	reasonTargetAuthority
	reasonLineLong
	reasonVersion
	reasonVersionUnsupported

	// status line
	reasonStatusCode
	reasonReasonPhrase

	// fields
	reasonHeadLong
	reasonFieldsMany
	reasonFieldName
	reasonFieldNameEmpty
	reasonFieldNameSpace
	reasonFieldNoColon
	reasonFieldValue
	reasonObsFold

	// routing
	reasonHostMissing
	reasonHostRepeated
	reasonHostInvalid
	reasonHostMismatch

	// framing
	reasonLengthInvalid
	reasonLengthOverflow
	reasonLengthRepeated
	reasonLengthAndCoding
	reasonCodingInvalid
	reasonCodingUnknown
	reasonCodingRepeated
	reasonCodingOrder
	reasonCodingHTTP10

	// connection
	reasonConnectionInvalid
	reasonConnectionLong

	// chunked bodies
	reasonChunkSize
	reasonChunkOverflow
	reasonChunkExt
	reasonChunkExtLong
	reasonChunkEnd
	reasonTrailerFraming
	reasonTrailerLong
	reasonTrailerMany

	// ReasonCount is the number of reasons; reasons are below it.
	ReasonCount = int(iota)
)

// SyntaxError says that no continuation of the bytes can become valid. The values are shared and constant: refusing a
// message allocates nothing, and two refusals for the same cause are the same pointer.
type SyntaxError struct {
	Status int    // what to answer a client; for an upstream's response it is always 502
	Reason Reason // stable, for metrics and logs
	text   string
}

func (e *SyntaxError) Error() string { return "h1: " + e.Why() }

// Why is the text for the peer who sent it: what is wrong, and the rule.
func (e *SyntaxError) Why() string { return e.text + " (" + e.Reason.String() + ")" }

// Refusals lists every SyntaxError, so that counters can be registered before the first request.
func Refusals() []*SyntaxError {
	var all []*SyntaxError
	for r := reasonBareLF; int(r) < ReasonCount; r++ {
		all = append(all, &syntaxErrors[r])
	}
	return all
}

// Labels are the metric labels by Reason, "" for what refuses nothing.
func Labels() []string {
	labels := make([]string, ReasonCount)
	for _, e := range Refusals() {
		labels[e.Reason] = e.Reason.String()
	}
	return labels
}

// String is the metric label: lower case, dashes, stable over releases.
func (r Reason) String() string {
	if int(r) >= len(refusals) {
		return "unknown"
	}
	return refusals[r].label
}

// err turns a verdict of the inner parsers into the error that callers see.
func (r Reason) err() error {
	switch r {
	case reasonNone:
		return nil
	case reasonShort:
		return ErrShort
	}
	return &syntaxErrors[r]
}

// syntaxErrors holds the values that err returns, built once from refusals.
var syntaxErrors = func() (errs [ReasonCount]SyntaxError) {
	for r, why := range refusals {
		errs[r] = SyntaxError{Status: why.status, Reason: Reason(r), text: why.text}
	}
	return errs
}()

// refusal is one line of the table below.
type refusal struct {
	status int
	label  string
	text   string
}

// refusals is the list of everything that is refused. "Why was this 400?" is answered here and by the file of
// testdata that carries the label in its name.
var refusals = [ReasonCount]refusal{
	reasonNone:  {0, "none", ""},
	reasonShort: {0, "short", ""},

	reasonBareLF: {400, "bare-lf", "line ends in LF without CR, RFC 9112 section 2.2"},
	reasonBareCR: {400, "bare-cr", "CR without LF, RFC 9112 section 2.2"},
	reasonLeadingSpace: {400, "leading-space",
		"white space before the start line or the first field, RFC 9112 section 2.2"},
	reasonEmptyLine: {400, "empty-line", "more than one empty line before the request line, RFC 9112 section 2.2"},

	reasonMethod:         {400, "method", "method is not a token, RFC 9110 section 9.1"},
	reasonMethodLong:     {501, "method-long", "method is longer than any we know, RFC 9112 section 3"},
	reasonTarget:         {400, "target", "request target is empty or has a byte no URI has, RFC 9112 section 3.2"},
	reasonTargetFragment: {400, "target-fragment", "request target has a fragment, RFC 9112 section 3.2"},
	reasonTargetForm: {400, "target-form",
		"request target has a form its method does not allow, RFC 9112 section 3.2"},
	reasonTargetScheme: {400, "target-scheme",
		"absolute request target is neither http nor https, RFC 9110 section 4.2"},
	reasonTargetAuthority: {400, "target-authority",
		"authority of the request target is not host[:port], RFC 9110 section 4.2"},
	reasonLineLong:           {414, "line-long", "start line over the limit, RFC 9112 section 3"},
	reasonVersion:            {400, "version", "start line without a well-formed HTTP version, RFC 9112 section 2.3"},
	reasonVersionUnsupported: {505, "version-unsupported", "HTTP major version other than 1, RFC 9110 section 15.6.6"},

	reasonStatusCode:   {502, "status-code", "status code is not three digits from 100 to 599, RFC 9110 section 15"},
	reasonReasonPhrase: {502, "reason-phrase", "reason phrase has a control byte, RFC 9112 section 4"},

	reasonHeadLong:       {431, "head-long", "head over the limit, RFC 6585 section 5"},
	reasonFieldsMany:     {431, "fields-many", "more field lines than the limit, RFC 6585 section 5"},
	reasonFieldName:      {400, "field-name", "field name is not a token, RFC 9110 section 5.1"},
	reasonFieldNameEmpty: {400, "field-name-empty", "field name is empty, RFC 9110 section 5.1"},
	reasonFieldNameSpace: {400, "field-name-space", "white space before the colon, RFC 9112 section 5.1"},
	reasonFieldNoColon:   {400, "field-no-colon", "field line without a colon, RFC 9112 section 5"},
	reasonFieldValue:     {400, "field-value", "control byte in a field value, RFC 9110 section 5.5"},
	reasonObsFold:        {400, "obs-fold", "field value continued on the next line, RFC 9112 section 5.2"},

	reasonHostMissing:  {400, "host-missing", "HTTP/1.1 request without Host, RFC 9112 section 3.2"},
	reasonHostRepeated: {400, "host-repeated", "more than one Host, RFC 9112 section 3.2"},
	reasonHostInvalid:  {400, "host-invalid", "Host is not host[:port], RFC 9110 section 7.2"},
	reasonHostMismatch: {400, "host-mismatch",
		"Host differs from the authority of the request target, RFC 9112 section 3.2.2"},

	reasonLengthInvalid:   {400, "cl-invalid", "Content-Length is not a plain decimal number, RFC 9112 section 6.3"},
	reasonLengthOverflow:  {400, "cl-overflow", "Content-Length is beyond 63 bits, RFC 9110 section 8.6"},
	reasonLengthRepeated:  {400, "cl-repeated", "more than one Content-Length, RFC 9112 section 6.3"},
	reasonLengthAndCoding: {400, "cl-te", "both Content-Length and Transfer-Encoding, RFC 9112 section 6.1"},
	reasonCodingInvalid:   {400, "te-invalid", "Transfer-Encoding is not a list of plain codings, RFC 9112 section 7"},
	reasonCodingUnknown:   {501, "te-unknown", "transfer coding other than chunked, RFC 9112 section 6.1"},
	reasonCodingRepeated:  {400, "te-repeated", "chunked applied more than once, RFC 9112 section 6.1"},
	reasonCodingOrder:     {400, "te-order", "chunked is not the final transfer coding, RFC 9112 section 6.3"},
	reasonCodingHTTP10:    {400, "te-http10", "Transfer-Encoding in an HTTP/1.0 message, RFC 9112 section 6.1"},

	reasonConnectionInvalid: {400, "connection-invalid", "Connection is not a list of tokens, RFC 9110 section 7.6.1"},
	reasonConnectionLong:    {431, "connection-long", "Connection values over the limit, RFC 6585 section 5"},

	reasonChunkSize:     {400, "chunk-size", "chunk size is not hexadecimal, RFC 9112 section 7.1"},
	reasonChunkOverflow: {400, "chunk-overflow", "chunk size has over 16 digits or 63 bits, RFC 9112 section 7.1"},
	reasonChunkExt:      {400, "chunk-ext", "malformed chunk extension, RFC 9112 section 7.1.1"},
	reasonChunkExtLong:  {400, "chunk-ext-long", "chunk extensions over the limit, RFC 9112 section 7.1.1"},
	reasonChunkEnd:      {400, "chunk-end", "chunk does not end where its size said, RFC 9112 section 7.1"},
	reasonTrailerFraming: {400, "trailer-framing",
		"framing or routing field in a trailer section, RFC 9110 section 6.5.1"},
	reasonTrailerLong: {431, "trailer-long", "trailer section over the limit, RFC 6585 section 5"},
	reasonTrailerMany: {431, "trailer-many", "more trailer fields than the limit, RFC 6585 section 5"},
}
