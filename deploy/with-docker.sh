#!/usr/bin/env bash
# Runs a command with Docker: `deploy/with-docker.sh COMMAND...` installs docker and
# docker-compose with apt-get where they are missing, and starts a daemon for as long
# as the command runs where none answers. It fails where it cannot.
set -euo pipefail

fail() {
	echo "with-docker: $*" >&2
	exit 1
}

work=$(mktemp -d)
daemon="" # the process, if it is ours
cleanup() {
	status=$?
	if [ -n "$daemon" ]; then
		[ $status = 0 ] || tail -n 20 "$work/dockerd.log" >&2
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap cleanup EXIT

packages=""
command -v docker >/dev/null || packages="docker.io"
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || packages="$packages docker-compose"
if [ -n "$packages" ]; then
	command -v apt-get >/dev/null || fail "missing: $packages; install them"
	as_root=""
	[ "$(id -u)" = 0 ] || as_root="sudo -n"
	echo "with-docker: installing $packages"
	$as_root apt-get -qq update
	# shellcheck disable=SC2086 # two words are two packages
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $packages tini >/dev/null
fi
answers() { docker info >/dev/null 2>&1; }
if ! answers; then
	[ "$(id -u)" = 0 ] || fail "the daemon of docker does not answer"
	PATH="$PATH:/usr/sbin:/sbin" dockerd >"$work/dockerd.log" 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		answers && break
		kill -0 "$daemon" 2>/dev/null || fail "the daemon of docker does not start"
		sleep 0.2
	done
	answers || fail "the daemon of docker does not answer"
fi
"$@"
