#!/usr/bin/env bash
# The whole way of compose: images, up, healthy, answers, down; scenarios measured in
# containers; and after an interrupt nothing is left. It fails where there is no
# Docker: `bash deploy/with-docker.sh bash deploy/compose-test.sh` brings one.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "compose-test: $*" >&2
	exit 1
}
work=$(mktemp -d)
lab=""
cleanup() {
	[ -z "$lab" ] || kill "$lab" 2>/dev/null || true
	bin/harness down >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap cleanup EXIT
left() { docker ps --all --quiet --filter label=com.docker.compose.project=atlas-lab; }

eval "$(bash deploy/images.sh)"
export NGINX_IMAGE HAPROXY_IMAGE
[ -z "$(left)" ] || fail "containers of an earlier run are here: make down"

bin/harness up
for port in 18080 18081 18082 18083; do
	bin/harness probe "http://127.0.0.1:$port/1k.html" || fail "port $port does not answer"
done
docker kill atlas-lab_origin_1 >/dev/null 2>&1 || docker kill atlas-lab-origin-1 >/dev/null
bin/harness probe http://127.0.0.1:18083/1k.html 2>"$work/probe" && fail "a probe without an origin passes"
bin/harness down
[ -z "$(left)" ] || fail "down leaves containers: $(left)"
echo "compose-test: up and down"

bin/harness run -launch compose -scenario static-1k,proxy-1k -subject atlas,nginx-best -count 1 -out "$work/runs"
grep -q '^launch: compose' "$work"/runs/*/results.bench || fail "the results do not say that they come from containers"
[ -z "$(left)" ] || fail "a run leaves containers"

bin/harness run -launch compose -scenario proxy-1k -subject atlas -duration 60s -out "$work/runs" 2>"$work/log" &
lab=$!
for _ in $(seq 100); do
	[ "$(left | wc -l)" -ge 2 ] && break
	kill -0 "$lab" 2>/dev/null || fail "the run ended by itself: $(cat "$work/log")"
	sleep 0.2
done
kill -INT "$lab"
wait "$lab" && fail "an interrupted run succeeds"
lab=""
grep -q interrupted "$work/log" || fail "the run does not say that it was interrupted: $(cat "$work/log")"
[ -z "$(left)" ] || fail "an interrupted run leaves containers"
echo "compose-test: done"
