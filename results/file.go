package results

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// ErrEmpty is the error of a file without a single sample. It must never pass
// for "no regressions".
var ErrEmpty = errors.New("holds no samples")

var keyGrammar = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// Write writes f in Go benchmark format. Settings, names and units outside
// the grammar are errors, found before the first byte is written.
func Write(w io.Writer, f *File) error {
	if err := f.check(); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	for _, u := range Units {
		if line := u.line(); line != "" {
			fmt.Fprintln(out, line)
		}
	}
	for _, s := range f.Settings {
		fmt.Fprintf(out, "%s: %s\n", s.Key, s.Value)
	}
	fmt.Fprintln(out)
	for _, s := range f.Samples {
		fmt.Fprintf(out, "Benchmark%s %d", s.Name, s.Requests)
		for _, u := range Units {
			if v, ok := s.Values[u.Name]; ok {
				fmt.Fprintf(out, " %s %s", strconv.FormatFloat(v, 'f', u.Decimals, 64), u.Name)
			}
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// check says what of f cannot be written and read back.
func (f *File) check() error {
	for _, s := range f.Settings {
		if !keyGrammar.MatchString(s.Key) {
			return fmt.Errorf("setting %q: want lower-case words joined by '-'", s.Key)
		}
		if s.Value == "" || s.Value != strings.TrimSpace(s.Value) || strings.ContainsAny(s.Value, "\r\n") {
			return fmt.Errorf("setting %s: value %q is empty, has outer spaces or several lines", s.Key, s.Value)
		}
	}
	for _, s := range f.Samples {
		if _, err := ParseName(s.Name.String()); err != nil {
			return err
		}
		if s.Requests < 1 || len(s.Values) == 0 {
			return fmt.Errorf("%s: a sample without requests or values", s.Name)
		}
		for unit := range s.Values {
			if _, ok := UnitNamed(unit); !ok {
				return fmt.Errorf("%s: unknown unit %q", s.Name, unit)
			}
		}
	}
	return nil
}

// Open reads a results file from disk. A missing file is an error that wraps
// fs.ErrNotExist; one without samples, ErrEmpty.
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return Read(file, path)
}

// Read reads one results file; name is for its errors.
func Read(r io.Reader, name string) (*File, error) {
	reader := benchfmt.NewReader(r, name)
	f := &File{}
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, record
		case *benchfmt.Result:
			if err := f.add(record); err != nil {
				_, line := record.Pos()
				return nil, fmt.Errorf("%s:%d: %w", name, line, err)
			}
		}
	}
	if err := reader.Err(); err != nil {
		return nil, err
	}
	if len(f.Samples) == 0 {
		return nil, fmt.Errorf("%s %w", name, ErrEmpty)
	}
	return f, nil
}

// add copies one record, which benchfmt reuses, into f.
func (f *File) add(record *benchfmt.Result) error {
	settings := fileSettings(record)
	if len(f.Samples) == 0 {
		f.Settings = settings
	}
	for _, s := range settings {
		if f.Setting(s.Key) != s.Value {
			return fmt.Errorf("setting %s changes to %q within the file", s.Key, s.Value)
		}
	}
	name, err := ParseName(record.Name.String())
	if err != nil {
		return err
	}
	values := make(map[string]float64, len(record.Values))
	for _, v := range record.Values {
		if v.OrigUnit != "" { // benchfmt turned our ns into seconds
			v.Unit, v.Value = v.OrigUnit, v.OrigValue
		}
		if _, ok := UnitNamed(v.Unit); !ok {
			return fmt.Errorf("unknown unit %q", v.Unit)
		}
		if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) || v.Value < 0 {
			return fmt.Errorf("%v %s is no measurement", v.Value, v.Unit)
		}
		values[v.Unit] = v.Value
	}
	f.Samples = append(f.Samples, Sample{Name: name, Requests: record.Iters, Values: values})
	return nil
}

// fileSettings returns the record's "key: value" lines.
func fileSettings(record *benchfmt.Result) []Setting {
	var settings []Setting
	for _, c := range record.Config {
		if c.File {
			settings = append(settings, Setting{Key: c.Key, Value: string(c.Value)})
		}
	}
	return settings
}
