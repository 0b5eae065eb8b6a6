package looptest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a test has started ends with it, also where it is killed.
func TestStartLeavesNoOrphan(t *testing.T) {
	const parent = "LOOPTEST_PARENT"
	if os.Getenv(parent) != "" { // then this is the test that is killed
		cmd := exec.Command("sleep", "3600")
		cmd.Stdout = os.Stdout
		require.NoError(t, Start(cmd))
		fmt.Println("started")
		require.NoError(t, cmd.Wait())
		return
	}
	from, to, err := os.Pipe()
	require.NoError(t, err)
	defer from.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStartLeavesNoOrphan$")
	cmd.Env = append(os.Environ(), parent+"=1")
	cmd.Stdout = to
	require.NoError(t, cmd.Start())
	require.NoError(t, to.Close())
	require.NoError(t, from.SetReadDeadline(time.Now().Add(2*patience)))
	said := bufio.NewReader(from)
	line, err := said.ReadString('\n')
	assert.NoError(t, err)
	assert.Equal(t, "started\n", line)
	assert.NoError(t, cmd.Process.Kill())
	assert.Error(t, cmd.Wait(), "it was killed")
	_, err = io.ReadAll(said)
	assert.NoError(t, err, "somebody still has the pipe")
}
