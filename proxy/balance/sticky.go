package balance

// ID is what an upstream is known by outside of this process and this
// configuration: in tables and in cookies. 0 is none.
type ID uint64

// IDOf is the ID of the upstream of a name. It stays when the upstream changes
// its address, its weight or its place in the configuration.
func IDOf(name string) ID { return ID(max(xxh64([]byte(name)), 1)) }
