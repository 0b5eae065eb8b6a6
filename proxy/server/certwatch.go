package server

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long files are left alone after a change: a certificate
	// and its key are two.
	settleTime = 100 * time.Millisecond
	// lookInterval is how often files are looked at although nothing was told of
	// them: not every file system tells.
	lookInterval = time.Minute
)

// start begins to follow the files.
func (s *secure) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan struct{})
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.Warn("certificate files are looked at once a minute only", "error", err)
	}
	if watcher != nil {
		s.watchFolders(watcher)
	}
	go s.follow(ctx, watcher)
}

// stop ends it.
func (s *secure) stop() {
	if s.cancel != nil {
		s.cancel()
		<-s.done
	}
}

// watchFolders watches the folders of the files, not the files: one that is
// replaced is another, and what a watch was on is gone. Where a file is a link,
// its target's folder is watched as well.
func (s *secure) watchFolders(watcher *fsnotify.Watcher) {
	sources := []source{s.clients, s.staple}
	for _, p := range s.pairs {
		sources = append(sources, p.source)
	}
	var folders []string
	for _, f := range sources {
		for _, file := range f.files {
			folders = append(folders, filepath.Dir(file))
			if target, err := filepath.EvalSymlinks(file); err == nil {
				folders = append(folders, filepath.Dir(target))
			}
		}
	}
	slices.Sort(folders)
	for _, folder := range slices.Compact(folders) {
		// A folder that is not there, or is watched already, is no news: the
		// files in it say what is wrong.
		_ = watcher.Add(folder)
	}
}

func (s *secure) follow(ctx context.Context, watcher *fsnotify.Watcher) {
	defer close(s.done)
	var events chan fsnotify.Event
	var errs chan error
	if watcher != nil {
		defer watcher.Close()
		events, errs = watcher.Events, watcher.Errors
	}
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	var settled <-chan time.Time // a while after the first event
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if settled == nil {
				settled = time.After(settleTime)
			}
		case <-errs: // events were lost
			settled = time.After(settleTime)
		case <-settled:
			settled = nil
			s.look(time.Now())
			if watcher != nil {
				s.watchFolders(watcher) // links lead elsewhere now
			}
		case now := <-look.C:
			s.look(now)
		}
	}
}

// look takes over what has changed, says what is wrong, and rotates keys.
func (s *secure) look(now time.Time) {
	changed, problems := s.refresh(now)
	for _, problem := range problems {
		s.log.Error("certificate not taken over: what was there before stays in use", "error", problem)
	}
	s.mu.Lock()
	rotated := s.tickets.due(now)
	if rotated {
		s.tickets.rotate(now)
	}
	s.mu.Unlock()
	if changed || rotated {
		s.publish()
	}
	if changed {
		s.log.Info("certificates loaded", "cert", s.pairs[0].files[0],
			"until", s.pairs[0].good.Leaf.NotAfter.UTC().Format(time.DateTime))
	}
	s.warnExpiry(now)
}
