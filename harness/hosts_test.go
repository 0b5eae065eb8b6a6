package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/scenarios"
)

func TestFitHosts(t *testing.T) {
	far := roles{subject: subject.Engine{Name: "far", Address: "198.18.77.2"}}
	both := roles{far.subject, subject.Engine{Address: "198.18.77.1"}}
	for _, row := range []struct {
		name, pattern string
		roles         roles
		left          int
		want          string
	}{
		{"one host", "proxy-1k,readme-static-1k", roles{}, 2, ""},
		{"nobody forwards", "static-1k", far, 1, ""},
		{"who reaches the origin", "proxy-1k", far, 1, "-origin-host is the IP address"},
		{"shared cores", "proxy-1k,readme-static-1k", both, 1, ""},
		{"shared cores alone", "readme-static-1k", both, 0, "no scenario is left"},
	} {
		t.Run(row.name, func(t *testing.T) {
			all, err := scenarios.Match(scenarios.Files, row.pattern)
			require.NoError(t, err)
			o := &options{scenarios: all, roles: row.roles}
			if row.roles.far() {
				require.ErrorContains(t, o.roles.counted(), "not counted on another host")
			}
			err = o.fitHosts()
			require.Len(t, o.scenarios, row.left)
			if row.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, row.want)
		})
	}
}

func TestRunRefusesHosts(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"-subject-context", "far", "-subject-host", "198.18.77.2"}, "say -launch compose as well"},
		{[]string{"-launch", "compose", "-subject-context", "far"}, "-subject-context needs -subject-host"},
		{[]string{"-launch", "compose", "-origin-host", "localhost"}, "want one IP address"},
	} {
		_, err := parseOptions(&bytes.Buffer{}, "run", row.args)
		require.ErrorContains(t, err, row.want)
	}
}

// Whose cores are whose, with a subject on another host.
func TestCoresOfHosts(t *testing.T) {
	there := &host.Report{Cores: host.Cores{Server: []int{4}, Client: []int{5, 6}}}
	one := &subject.Compose{}
	h := hosts{subject: one, origin: &subject.Compose{}, subjectReport: there}
	require.Equal(t, host.Cores{Server: []int{4}, Client: []int{0, 1, 2, 3}}, h.cores([]int{0, 1, 2, 3, 4, 5}))
	require.Equal(t, []int{0, 1}, h.originCores([]int{0, 1}), "the origin is here")
	h.originReport = &host.Report{Cores: host.Cores{Client: []int{7}}}
	require.Equal(t, []int{7}, h.originCores([]int{0, 1}), "on a third host")
	h.origin, h.originReport = one, nil
	require.Equal(t, []int{5, 6}, h.originCores([]int{0, 1}), "beside the subject")
}

func TestReport(t *testing.T) {
	var out, errs bytes.Buffer
	require.Equal(t, exitPass, run(&out, &errs, []string{"report"}))
	var r host.Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	require.NotEmpty(t, host.Value(r.Facts, "goos"))
	require.NotEmpty(t, host.Value(host.Of("subject", r.Facts), "subject-host-goos"))
	require.Equal(t, exitInvalid, run(&out, &errs, []string{"report", "-listen", "192.0.2.200"}))
	require.Contains(t, errs.String(), "servers cannot listen on 192.0.2.200, which has to be an address of this host")
}
