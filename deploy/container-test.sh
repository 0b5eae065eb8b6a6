#!/usr/bin/env bash
# Builds the image and runs it under Docker: with the seccomp profile it has to use
# io_uring, if this machine has it, and without io_uring to fall back and say why.
# It needs Docker: `deploy/with-docker.sh deploy/container-test.sh` brings it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "container-test: $*" >&2
	exit 1
}

work=$(mktemp -d)
started="" # containers
cleanup() {
	status=$?
	for name in $started; do
		[ $status = 0 ] || docker logs "$name" >&2 || true
		docker rm -f "$name" >/dev/null 2>&1 || true
	done
	rm -rf "$work"
}
trap cleanup EXIT

[ -x bin/atlas ] || fail "there is no bin/atlas: make build"
image="atlas-test:$$"
mkdir "$work/image" "$work/root" "$work/config"
cp bin/atlas "$work/image/"
echo "hello from a container" >"$work/root/index.html"
{
	cat deploy/examples/static.toml
	printf '[admin]\naddress = "unix:/run/atlas/admin.sock"\n'
} >"$work/config/atlas.toml"
chmod -R a+rX "$work"
DOCKER_BUILDKIT=0 docker build -q -f deploy/Dockerfile -t "$image" "$work/image" >/dev/null
echo "container-test: $(docker image inspect -f '{{.Size}}' "$image") bytes, user $(docker image inspect -f '{{.Config.User}}' "$image")"

# What Docker 25 and newer do by themselves.
cat >"$work/no-io_uring.json" <<'JSON'
{
  "defaultAction": "SCMP_ACT_ALLOW",
  "syscalls": [
    {"names": ["io_uring_setup", "io_uring_enter", "io_uring_register"], "action": "SCMP_ACT_ERRNO"}
  ]
}
JSON

# start NAME PROFILE: runs the example that serves files, as somebody who may
# nothing, and waits until it listens. It sets log and address.
start() {
	started="$started $1"
	docker run -d --name "$1" --network host --read-only --cap-drop ALL \
		--security-opt no-new-privileges --security-opt "seccomp=$2" \
		-e ADDRESS=127.0.0.1 -e PORT=0 -e ROOT=/srv -v "$work/root:/srv:ro" \
		-v "$work/config:/etc/atlas:ro" --tmpfs /run/atlas:mode=1777 "$image" >/dev/null
	for _ in $(seq 100); do
		log=$(docker logs "$1" 2>&1)
		address=$(sed -n 's/.*msg=listening address=\([^ ]*\).*/\1/p' <<<"$log")
		[ -n "$address" ] && return
		sleep 0.1
	done
	fail "$1 does not listen: $log"
}

# healthy NAME: what the image asks by itself, and what a probe would.
healthy() {
	for _ in $(seq 300); do
		health=$(docker inspect -f '{{.State.Health.Status}}' "$1")
		[ "$health" = healthy ] && break
		sleep 0.1
	done
	[ "$health" = healthy ] || fail "$1 is $health: $(docker inspect -f '{{json .State.Health}}' "$1")"
	[ "$(docker exec "$1" /atlas ready --live /etc/atlas/atlas.toml)" = ok ] || fail "$1 is not alive"
}

# ends NAME: SIGTERM ends it in order.
ends() {
	docker stop -t 20 "$1" >/dev/null
	[ "$(docker inspect -f '{{.State.ExitCode}}' "$1")" = 0 ] || fail "$1 did not end in order"
}

serves() {
	[ "$(curl -sS --max-time 10 "http://$address/")" = "hello from a container" ] || fail "wrong answer"
}

# Has this machine a ring at all? As .ci/run asks.
engine=netpoll
if [ "$(printf '6.1\n%s\n' "$(uname -r)" | sort -V | head -n 1)" = 6.1 ] &&
	perl -e 'my $params = "\0" x 120; exit(syscall(425, 8, $params) < 0)'; then
	engine=io_uring
fi
start "atlas-test-ring-$$" deploy/seccomp-io_uring.json
grep -q "engine=$engine" <<<"$log" || fail "want engine $engine: $log"
serves
healthy "atlas-test-ring-$$"
ends "atlas-test-ring-$$"
echo "container-test: with deploy/seccomp-io_uring.json it runs on $engine"

start "atlas-test-poll-$$" "$work/no-io_uring.json"
grep -q 'msg="fell back" engine=netpoll reason=' <<<"$log" || fail "it does not say why: $log"
grep -q "msg=listening .*engine=netpoll" <<<"$log" || fail "want engine netpoll: $log"
serves
ends "atlas-test-poll-$$"
echo "container-test: without io_uring: $(sed -n 's/.*\(msg="fell back".*\)/\1/p' <<<"$log")"
docker rmi -f "$image" >/dev/null
