package admin

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"atlas/proxy/config"
	"atlas/proxy/server"
)

// Examine says what would keep Start from listening, but for others that listen
// there now: this process may, with the same configuration.
func Examine(cfg *config.Admin) []server.Finding {
	const key = "admin.address"
	path := config.UnixPath(cfg.Address)
	if path == "" {
		host, _, _ := net.SplitHostPort(cfg.Address)
		found := server.ExamineAddress(key, host)
		// As desk.warn at the start; a name is looked up there.
		if at, err := netip.ParseAddr(host); found == nil && err == nil && !at.IsLoopback() && !cfg.AllowRemote {
			found = []server.Finding{{Key: key, Message: remoteWarning, Hint: remoteHint, Warning: true}}
		}
		return found
	}
	if stat, err := os.Lstat(path); err == nil && stat.Mode()&fs.ModeSocket == 0 {
		return []server.Finding{{Key: key, Message: path + " is a file, and no socket", Hint: "choose another path"}}
	}
	made, err := os.CreateTemp(filepath.Dir(path), ".atlas-check-*")
	if err == nil {
		err = errors.Join(made.Close(), os.Remove(made.Name()))
	}
	if err == nil {
		return nil
	}
	hint := "make that folder, for the user of the server"
	if errors.Is(err, fs.ErrPermission) {
		hint = "let the user of the server write to that folder"
	}
	var why *fs.PathError
	if errors.As(err, &why) {
		err = &fs.PathError{Op: "create", Path: path, Err: why.Err}
	}
	return []server.Finding{{Key: key, Message: err.Error(), Hint: hint}}
}
