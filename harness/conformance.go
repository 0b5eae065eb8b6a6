package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"atlas/harness/conformance"
	"atlas/harness/corpus"
	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// lanesMax is how many copies of a proxy run at once: a case that waits costs
// time and no work, so there are many more than cores.
const lanesMax = 32

// proxies are the usual ones.
var proxies = []string{"atlas", "nginx-best", "haproxy"}

// proxyNames are what people call the subjects.
var proxyNames = map[string]string{
	"atlas": "Atlas", "atlas-netpoll": "Atlas (netpoll)", "nginx-best": "nginx", "haproxy": "HAProxy",
}

// conformanceOptions are what the command line asks for.
type conformanceOptions struct {
	rules    []*corpus.Rule
	corpus   string // folder
	subjects []subject.Subject
	programs subject.Programs
	out      string // file of the page, "" for stdout
	json     bool
}

// checkConformance is the verb `conformance`.
func checkConformance(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	o, err := parseConformance(stderr, args)
	if err != nil {
		return exitOptions(stderr, "conformance", err)
	}
	report, err := o.measure(ctx, stderr)
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "\nharness conformance: interrupted; everything is stopped\n")
		return exitUsage
	}
	if err == nil {
		err = o.write(stdout, report)
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness conformance: %v\n", err)
		return exitUsage
	}
	status := exitPass
	for _, c := range report.Columns {
		if !c.Strict {
			continue
		}
		for _, line := range report.Wrong(c) {
			fmt.Fprintf(stderr, "%s differs from its corpus: %s\n", c.Name, line)
			status = exitDiffers
		}
	}
	return status
}

func parseConformance(stderr io.Writer, args []string) (*conformanceOptions, error) {
	flags := flag.NewFlagSet("harness conformance", flag.ContinueOnError)
	flags.SetOutput(stderr)
	names := flags.String("subject", "",
		"comma-separated `names` of subjects (default: "+strings.Join(proxies, ",")+")")
	pattern := flags.String("rule", "*/*", "`glob` of rules, as in request/limit-*")
	folder := flags.String("corpus", "proxy/h1/testdata", "`directory` of the corpus")
	out := flags.String("o", "", "`file` for the page, instead of the standard output")
	asJSON := flags.Bool("json", false, "a line of JSON for each case, instead of the page")
	atlas := flags.String("atlas", "bin/atlas", "`path` of Atlas's binary")
	if err := parseOnly(flags, args); err != nil {
		return nil, err
	}
	programs, err := findPrograms(*atlas)
	if err != nil {
		return nil, err
	}
	o := &conformanceOptions{
		corpus: *folder, out: *out, json: *asJSON,
		programs: programs,
	}
	all, err := corpus.Read(os.DirFS(*folder))
	if err != nil {
		return nil, fmt.Errorf("corpus %s: %w", *folder, err)
	}
	for _, rule := range all {
		chosen, err := path.Match(*pattern, string(rule.Kind)+"/"+rule.Name)
		if err != nil {
			return nil, fmt.Errorf("-rule %q: %w", *pattern, err)
		}
		if chosen {
			o.rules = append(o.rules, rule)
		}
	}
	if len(o.rules) == 0 {
		return nil, fmt.Errorf("no rule matches %q", *pattern)
	}
	return o, o.choose(stderr, *names)
}

// choose finds the subjects that were named, or the usual ones.
func (o *conformanceOptions) choose(stderr io.Writer, names string) error {
	chosen, all := proxies, names != "" || os.Getenv("CI") != "" // CI promises the usual ones
	if names != "" {
		chosen = strings.Split(strings.ReplaceAll(names, " ", ""), ",")
	} else if uring := host.IOURing(); uring != "available" {
		fmt.Fprintf(stderr, "note: Atlas runs on netpoll: io_uring is %s\n", uring)
		chosen = append([]string{"atlas-netpoll"}, proxies[1:]...)
	}
	subjects, err := subject.Named(chosen)
	if err != nil {
		return err
	}
	missing := func(s subject.Subject) error { return s.Missing(o.programs) }
	o.subjects, err = present(stderr, subjects, missing, all)
	return err
}

// present returns the subjects that this machine has, and names the others.
// Atlas must be there, and where all is set everybody.
func present(
	stderr io.Writer, subjects []subject.Subject, missing func(subject.Subject) error, all bool,
) (there []subject.Subject, err error) {
	for _, s := range subjects {
		err := missing(s)
		switch {
		case err == nil:
			there = append(there, s)
		case all || ours(s):
			return nil, fmt.Errorf("subject %s: %w", s.Name, err)
		default:
			fmt.Fprintf(stderr, "note: %s is left out: %v\n", proxyName(s), err)
		}
	}
	return there, nil
}

// ours says that a subject is Atlas, which has to keep the corpus.
func ours(s subject.Subject) bool { return strings.HasPrefix(s.Name, "atlas") }

func proxyName(s subject.Subject) string {
	if name, ok := proxyNames[s.Name]; ok {
		return name
	}
	return s.Name
}

// measure sends the corpus through one subject after the other.
func (o *conformanceOptions) measure(ctx context.Context, stderr io.Writer) (report *conformance.Report, err error) {
	scratch, err := os.MkdirTemp("", "atlas-lab-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if err := os.Chmod(scratch, 0o755); err != nil { // as in openSession
		return nil, err
	}
	report = &conformance.Report{
		Rules: o.rules, Corpus: o.fromPage(),
		Machine: fmt.Sprintf("%s %s", runtime.GOOS, host.Value(host.Facts(), "kernel")),
		Date:    time.Now().UTC().Format(time.DateOnly),
	}
	launcher := subject.Launcher{Programs: o.programs, Scratch: scratch}
	for _, s := range o.subjects {
		c := conformance.Column{Name: proxyName(s), Version: s.Version(o.programs), Strict: ours(s)}
		began := time.Now()
		if c.Outcomes, err = o.check(ctx, stderr, launcher, s); err != nil {
			return nil, err
		}
		report.Columns = append(report.Columns, c)
		fmt.Fprintf(stderr, "%s: %d cases in %v, %d not as the corpus wants\n",
			c.Name, len(c.Outcomes), time.Since(began).Round(100*time.Millisecond), len(report.Wrong(c)))
	}
	return report, nil
}

// fromPage returns the path of the corpus from the page's folder, which is
// docs unless a file is named.
func (o *conformanceOptions) fromPage() string {
	page := "docs"
	if o.out != "" {
		page = filepath.Dir(o.out)
	}
	link, err := filepath.Rel(absolute(page), absolute(o.corpus))
	if err != nil {
		return o.corpus
	}
	return filepath.ToSlash(link)
}

// check starts copies of a subject and sends the corpus through them.
func (o *conformanceOptions) check(
	ctx context.Context, stderr io.Writer, launcher subject.Launcher, s subject.Subject,
) (outcomes []conformance.Outcome, err error) {
	p := conformance.Proxy{Strict: ours(s)}
	var copies []*subject.Running
	defer func() {
		for _, running := range copies {
			err = errors.Join(err, running.Stop())
		}
		for _, lane := range p.Lanes {
			lane.Close()
		}
	}()
	for range lanesMax {
		lane, err := conformance.NewLane()
		if err != nil {
			return nil, err
		}
		p.Lanes = append(p.Lanes, lane)
		running, err := launcher.Start(ctx, s, subject.Site{
			Kind: scenarios.Proxy, Origin: lane.Origin(),
			Path: conformance.SentinelPath, Length: conformance.SentinelLength,
		}, nil)
		if err != nil {
			return nil, err
		}
		copies = append(copies, running)
		lane.Proxy = running.Address
	}
	if isTerminal(stderr) {
		p.Progress = func(done int) { fmt.Fprintf(stderr, "\r\x1b[K%s: case %d", proxyName(s), done+1) }
		defer fmt.Fprint(stderr, "\r\x1b[K")
	}
	outcomes, err = p.Check(ctx, o.rules)
	for _, running := range copies {
		if ended := running.Ended(); ended != nil {
			err = errors.Join(err, ended)
		}
	}
	return outcomes, err
}

// write puts the report where it was asked for.
func (o *conformanceOptions) write(stdout io.Writer, report *conformance.Report) error {
	form := report.Markdown
	if o.json {
		form = report.JSON
	}
	if o.out == "" {
		return form(stdout)
	}
	var text bytes.Buffer
	if err := form(&text); err != nil {
		return err
	}
	return os.WriteFile(o.out, text.Bytes(), 0o644)
}
