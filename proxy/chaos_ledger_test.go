package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
)

// ledger knows every request that was made. It is joined with the upstreams'
// journals when all is over.
type ledger struct {
	mu      sync.Mutex
	entries []entry // by id; the first is nobody's
}

// entry is what the client's side knows of a request.
type entry struct {
	method string
	kind   string // of client
	fate   fate
}

// fate is a set of facts.
type fate uint8

const (
	headSent   fate = 1 << iota // all of its head may have left
	sent                        // all of it may have
	answered                    // an upstream that had all of it answered
	refused                     // Atlas said that nobody has it
	idempotent                  // it may arrive more than once
)

var fateNames = []string{"head sent", "sent", "answered", "refused", "idempotent"}

func (f fate) String() string {
	var names []string
	for i, name := range fateNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func newLedger() *ledger { return &ledger{entries: make([]entry, 1, 1<<16)} }

// issue gives the request its id.
func (l *ledger) issue(a *ask, kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.id = uint64(len(l.entries))
	e := entry{method: a.method, kind: kind}
	if a.idempotent() {
		e.fate = idempotent
	}
	l.entries = append(l.entries, e)
}

func (l *ledger) mark(id uint64, f fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[id].fate |= f
}

func (l *ledger) issued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries) - 1
}

// arrivals is what the journals know of a request.
type arrivals struct{ heads, bodies uint8 }

// join reads the journals and tells what is lost, doubled or from nowhere.
func (l *ledger) join(journals []string, fail func(format string, args ...any)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	arrived := make([]arrivals, len(l.entries))
	if err := readJournals(journals, func(journal, letter string, id uint64, line string) {
		switch {
		case letter == "W":
			fail("%s: wrong: %s", journal, line)
		case id == 0 || id >= uint64(len(arrived)):
			fail("%s: %s: nobody has sent that", journal, line)
		case letter == "H":
			arrived[id].heads++
		case letter == "B":
			arrived[id].bodies++
		}
	}); err != nil {
		return err
	}
	suspects := make(map[uint64]string)
	for id := range arrived {
		if why := verdict(l.entries[id].fate, arrived[id]); why != "" && len(suspects) < failuresShown {
			suspects[uint64(id)] = why
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	found := make(map[uint64][]string)
	err := readJournals(journals, func(journal, _ string, id uint64, line string) {
		if suspects[id] != "" {
			found[id] = append(found[id], journal+": "+line)
		}
	})
	for id, why := range suspects {
		e := l.entries[id]
		fail("id %d, %s of %q (%s): %s; the journals have %q", id, e.method, e.kind, e.fate, why, found[id])
	}
	return err
}

// readJournals calls f for every line.
func readJournals(files []string, f func(journal, letter string, id uint64, line string)) error {
	for i, file := range files {
		journal, err := os.Open(file)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(journal)
		for lines.Scan() {
			var letter string
			var id uint64
			if _, err := fmt.Sscan(lines.Text(), &letter, &id); err != nil {
				return fmt.Errorf("%s: %q: %w", file, lines.Text(), err)
			}
			f(fmt.Sprint("u", i), letter, id, lines.Text())
		}
		if err := lines.Err(); err != nil {
			return err
		}
		if err := journal.Close(); err != nil {
			return err
		}
	}
	return nil
}
