package host

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSplit(t *testing.T) {
	alone := func(core int) []int { return []int{core} }
	pairs := func(core int) []int { return []int{core &^ 1, core | 1} }
	for _, row := range []struct {
		name           string
		allowed        []int
		siblings       func(int) []int
		server, client []int
		warning        string
	}{
		{"two cores", []int{0, 1}, alone, []int{0}, []int{1}, ""},
		{"restricted mask", []int{3, 7}, alone, []int{3}, []int{7}, ""},
		{"hyperthreads are kept apart", []int{0, 1, 2, 3}, pairs, []int{0}, []int{2, 3}, ""},
		{"one physical core", []int{0, 1}, pairs, []int{0}, []int{1}, "one physical core"},
		{"many cores", []int{0, 1, 2, 3, 4, 5, 6, 7}, alone, []int{0}, []int{1, 2, 3, 4}, ""},
		{"one core", []int{5}, alone, []int{5}, []int{5}, "one core only"},
		{"unknown", nil, alone, nil, nil, "nothing is pinned"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := Split(row.allowed, row.siblings)
			require.Equal(t, row.server, got.Server)
			require.Equal(t, row.client, got.Client)
			if row.warning == "" {
				require.Empty(t, got.Warning)
			}
			require.Contains(t, got.Warning, row.warning)
		})
	}
}

func TestParseList(t *testing.T) {
	got, err := parseList("0-2,8\n")
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 8}, got)
	for _, bad := range []string{"", "a", "1-", "1-b"} {
		_, err := parseList(bad)
		require.Error(t, err, "%q", bad)
	}
	require.Equal(t, "0,2", List([]int{0, 2}))
	require.Equal(t, "any", List(nil))
}

func TestFind(t *testing.T) {
	_, err := Find("no-such-program")
	require.ErrorContains(t, err, "make setup")
	path, err := Find("sh")
	require.NoError(t, err)
	require.FileExists(t, path)
}

func TestFacts(t *testing.T) {
	facts := Facts()
	for _, f := range facts {
		require.Regexp(t, `^[a-z][a-z0-9-]*$`, f.Key)
		require.NotEmpty(t, f.Value, f.Key)
	}
	require.NotEmpty(t, Value(facts, "go"))
	require.Empty(t, Value(facts, "no-such"))
}

func TestEnvHash(t *testing.T) {
	facts := []Fact{{"cpu", "a"}, {"kernel", "6.18.1"}, {"loadavg", "1"}}
	same := []Fact{{"cpu", "a"}, {"kernel", "6.18.9"}, {"loadavg", "2"}}
	other := []Fact{{"cpu", "b"}, {"kernel", "6.18.1"}, {"loadavg", "1"}}
	require.Equal(t, EnvHash(facts), EnvHash(same), "patch level and load do not matter")
	require.NotEqual(t, EnvHash(facts), EnvHash(other))
	require.Len(t, EnvHash(facts), 6)
}

// Figures of two runs compare if all their hosts do.
func TestEnvHashOfHosts(t *testing.T) {
	here := []Fact{{"cpu", "one"}, {"kernel", "6.18.44"}}
	there := func(cpu, kernel string) string {
		return EnvHash(append(slices.Clone(here), Of("subject", []Fact{{"cpu", cpu}, {"kernel", kernel}})...))
	}
	require.NotEqual(t, EnvHash(here), there("one", "6.18.44"))
	require.NotEqual(t, there("one", "6.18.44"), there("two", "6.18.44"))
	require.Equal(t, there("one", "6.18.44"), there("one", "6.18.9"))
	require.Equal(t, []string{"cpu", "subject-host-cpu", "origin-host-cpu"}, AllRoles([]string{"cpu"}))
}
