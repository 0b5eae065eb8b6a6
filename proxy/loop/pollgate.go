package loop

import "time"

// awaitRoom waits, without the baton, until the gate has counted in a connection
// that was accepted at its bound. The end of listening ends the wait: what was
// accepted is served.
func (pl *pollListener) awaitRoom() {
	l := pl.loop
	gate := l.config.Gate
	granted := make(chan struct{})
	place := gate.wait(func() { close(granted) })
	l.counters.Full.Add(1)
	l.config.held(ErrFull)
	for {
		gate.makeRoom()
		select {
		case <-granted:
			return
		case <-pl.closes:
			if gate.giveUp(place) {
				gate.force()
			} else {
				<-granted
			}
			return
		case <-time.After(acceptPause):
		}
	}
}

// evictIdle ends the connection that has been idle for longest of some, and
// reports whether there was one. A map begins anywhere.
func (l *pollLoop) evictIdle() bool {
	var oldest *pollConn
	latest := now() - Instant(evictAge)
	looked, passed := 0, 0
	for c := range l.conns {
		if passed++; passed > evictScan {
			break
		}
		if !c.idle || c.closing || c.readDeadline == Past {
			continue
		}
		if looked++; looked > evictLook {
			break
		}
		if c.rested <= latest {
			oldest, latest = c, c.rested
		}
	}
	if oldest == nil {
		return false
	}
	l.counters.Evicted.Add(1)
	oldest.SetReadDeadline(Past)
	return true
}
