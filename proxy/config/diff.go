package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Change is a key, or a table that comes or goes, whose value is another one.
type Change struct {
	Key    string // "listen.port"; "upstreams.app-1.weight", where app-1 is the name
	Old    string // as it would stand in the file; empty: it is not there
	New    string
	Reload Reload
}

// String is the change in one line.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return fmt.Sprintf("%s: new, %s", c.Key, c.New)
	case c.New == "":
		return fmt.Sprintf("%s: gone, was %s", c.Key, c.Old)
	}
	return fmt.Sprintf("%s: %s -> %s", c.Key, c.Old, c.New)
}

// Diff lists what is different between two configurations, in the order of the
// reference. Upstreams are the same if their names are, certificates if their
// files are; in which order they stand is no difference.
func Diff(old, new *Config) []Change {
	d := differ{keys: Keys()}
	a, b := *old, *new // a key that asks for a table which is not there makes it
	old, new = &a, &b
	d.table("listen", "listen", old, new)
	d.tls(old, new)
	d.upstreams(old, new)
	for i := range d.keys {
		table := d.keys[i].Table()
		if table != "listen" && !within(table, secured) && !within(table, repeated) && !d.did(table) {
			d.table(table, table, old, new)
		}
	}
	for i := range d.changes {
		c := &d.changes[i]
		// Behind one port there is either HTTP or it is not: open connections
		// could not go on.
		if c.Key == "listen.mode" && (old.Listen.Mode == TCP || new.Listen.Mode == TCP) {
			c.Reload = NeedsUpgrade
		}
	}
	return d.changes
}

func within(table, outer string) bool { return table == outer || strings.HasPrefix(table, outer+".") }

type differ struct {
	keys    []Key
	done    []string // tables
	changes []Change
}

func (d *differ) did(table string) bool { return slices.Contains(d.done, table) }

// table compares the keys of one table. name is what the table is called in the
// changes.
func (d *differ) table(table, name string, old, new *Config) {
	d.done = append(d.done, table)
	for i := range d.keys {
		k := &d.keys[i]
		if k.Table() != table || k.Alias != "" {
			continue
		}
		d.add(name+"."+k.Name(), written(k.field(old)), written(k.field(new)), k.Reload)
	}
}

func (d *differ) add(key, old, new string, reload Reload) {
	if old != new {
		d.changes = append(d.changes, Change{Key: key, Old: old, New: new, Reload: reload})
	}
}

// tls compares [listen.tls], which may come and go, and the certificates in it.
func (d *differ) tls(old, new *Config) {
	a, b := old.Listen.TLS, new.Listen.TLS
	if a == nil || b == nil {
		d.add(secured, present(a != nil), present(b != nil), NewConnections)
		return
	}
	d.table(secured, secured, old, new)
	for _, c := range a.Certificates {
		if !slices.Contains(b.Certificates, c) {
			d.add(certificates, strconv.Quote(c.Cert), "", NewConnections)
		}
	}
	for _, c := range b.Certificates {
		if !slices.Contains(a.Certificates, c) {
			d.add(certificates, "", strconv.Quote(c.Cert), NewConnections)
		}
	}
}

func present(is bool) string {
	if is {
		return "there"
	}
	return ""
}

// upstreams compares those of a name.
func (d *differ) upstreams(old, new *Config) {
	for i := range old.Upstreams {
		a := &old.Upstreams[i]
		name := repeated + "." + bare(a.Name)
		b := named(new, a.Name)
		if b == nil {
			d.add(name, a.place(), "", Live)
			continue
		}
		// The keys find their values in the last upstream of a configuration.
		was, is := &Config{Upstreams: []Upstream{*a}}, &Config{Upstreams: []Upstream{*b}}
		d.table(repeated, name, was, is)
		if check := name + strings.TrimPrefix(checked, repeated); a.HealthCheck == nil || b.HealthCheck == nil {
			d.add(check, present(a.HealthCheck != nil), present(b.HealthCheck != nil), Live)
		} else {
			d.table(checked, check, was, is)
		}
	}
	for i := range new.Upstreams {
		if b := &new.Upstreams[i]; named(old, b.Name) == nil {
			d.add(repeated+"."+bare(b.Name), "", b.place(), Live)
		}
	}
}

func named(c *Config, name string) *Upstream {
	for i := range c.Upstreams {
		if c.Upstreams[i].Name == name {
			return &c.Upstreams[i]
		}
	}
	return nil
}

// place is where an upstream is.
func (u *Upstream) place() string {
	if UnixPath(u.Address) != "" {
		return u.Address
	}
	return u.Address + ":" + strconv.Itoa(u.Port)
}

// Hide replaces what the environment gave to the configuration by the names of
// these variables, so that the changes may be shown.
func (r *Reading) Hide(changes []Change) {
	for i := range changes {
		c := &changes[i]
		for _, value := range r.reader.values {
			c.Old, c.New = value.hidden(c.Old), value.hidden(c.New)
		}
	}
}
