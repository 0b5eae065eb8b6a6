// Package watch tells when files may have changed.
//
// It reads none of them: whether what is in a file is news is for its owner to
// find out, best by a hash, for it is told too often rather than not at all. It
// watches the folders and not the files: one that an editor or Kubernetes has
// replaced is another file, and a watch of the old one would see nothing any more.
//
// A Files is safe for any goroutine.
package watch

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long files are left alone after a change: a certificate
	// and its key are two, and editors write in pieces.
	settleTime = 100 * time.Millisecond
	// settleMax is after how much of that they are looked at all the same.
	settleMax = time.Second
	// lookInterval is how often files are looked at although nothing was told of
	// them: not every file system tells.
	lookInterval = time.Minute
)

// Files are the files that are watched.
type Files struct {
	// C says that they may have changed. It holds one word: who reads it looks
	// at all of them.
	C <-chan struct{}

	changed chan struct{}
	watcher *fsnotify.Watcher // nil: files are looked at once a minute only
	ending  chan struct{}
	done    chan struct{}

	mu    sync.Mutex
	files []string
}

// Start begins to watch no files. An error says that nothing is told of them at
// once; they are to be looked at every minute all the same.
func Start() (*Files, error) {
	changed := make(chan struct{}, 1)
	f := &Files{C: changed, changed: changed, ending: make(chan struct{}), done: make(chan struct{})}
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		f.watcher = watcher
	}
	go f.run()
	return f, err
}

// Set watches these files from now on, and no others.
func (f *Files) Set(files []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = slices.Clone(files)
	f.follow()
}

// Stop ends it.
func (f *Files) Stop() {
	close(f.ending)
	<-f.done
}

// follow watches the folders of the files. It is called under mu.
func (f *Files) follow() {
	if f.watcher == nil {
		return
	}
	var folders []string
	for _, file := range f.files {
		folders = append(folders, foldersOf(file)...)
	}
	slices.Sort(folders)
	folders = slices.Compact(folders)
	for _, watched := range f.watcher.WatchList() {
		if !slices.Contains(folders, watched) {
			_ = f.watcher.Remove(watched) // gone already, else
		}
	}
	for _, folder := range folders {
		// A folder that is not there, or is watched already, is no news: who reads
		// the files in it sees what is wrong.
		_ = f.watcher.Add(folder)
	}
}

// foldersOf is where a change of the file may be seen: its own folder and, where it
// is a link, those that the link leads through. Each is asked for by itself, as the
// file at the end may be missing for the moment, and it is there that it comes back.
func foldersOf(file string) []string {
	const linksMax = 40 // as the kernel has it
	folders := []string{filepath.Dir(file)}
	for range linksMax {
		folder, err := filepath.EvalSymlinks(filepath.Dir(file))
		if err != nil {
			break
		}
		folders = append(folders, folder)
		link, err := os.Readlink(file)
		if err != nil {
			break // the file itself, or its place
		}
		if file = link; !filepath.IsAbs(link) {
			file = filepath.Join(folder, link)
		}
	}
	return folders
}

func (f *Files) run() {
	defer close(f.done)
	var events chan fsnotify.Event
	var errs chan error
	if f.watcher != nil {
		defer f.watcher.Close()
		events, errs = f.watcher.Events, f.watcher.Errors
	}
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	var settled <-chan time.Time // nil: nothing has happened
	var latest time.Time         // when they are looked at, whatever happens
	for {
		select {
		case <-f.ending:
			return
		case e := <-events:
			if f.concerns(e) {
				settled, latest = settle(settled, latest)
			}
		case <-errs: // events were lost
			settled, latest = settle(settled, latest)
		case <-settled:
			settled = nil
			f.tell()
		case <-look.C:
			f.tell()
		}
	}
}

// settle puts the look off, within bounds.
func settle(settled <-chan time.Time, latest time.Time) (<-chan time.Time, time.Time) {
	now := time.Now()
	if settled == nil {
		latest = now.Add(settleMax)
	}
	return time.After(min(settleTime, latest.Sub(now))), latest
}

// concerns leaves out what is written to other files of the folders: a log may
// stand beside a configuration. What comes and goes may be a link on the way.
func (f *Files) concerns(e fsnotify.Event) bool {
	if e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range f.files {
		if filepath.Clean(file) == filepath.Clean(e.Name) {
			return true
		}
		if target, err := filepath.EvalSymlinks(file); err == nil && target == filepath.Clean(e.Name) {
			return true
		}
	}
	return false
}

// tell never waits: a word that nobody has heard yet says the same.
func (f *Files) tell() {
	f.mu.Lock()
	f.follow() // links lead elsewhere now, and folders may have come back
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}
