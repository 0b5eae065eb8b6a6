#!/usr/bin/env bash
# The lab on two hosts: a network namespace with a Docker daemon of its own is the
# other one, which a veth pair and a Docker context lead to. Subjects run there, the
# origin here and then there, the load here; what is wrong is told, and nothing is
# left there. As root: `bash deploy/with-docker.sh bash deploy/hosts-test.sh`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

name=atlas-lab-far
here=198.18.77.1 there=198.18.77.2 # of the net for benchmarks, RFC 2544
work=$(mktemp -d)
daemon=""
lab="" server=""
cleanup() {
	status=$?
	[ $status = 0 ] || tail -n 5 "$work/dockerd.log" >&2 2>/dev/null || true
	[ -z "$lab" ] || kill "$lab" 2>/dev/null || true
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	docker context rm --force $name >/dev/null 2>&1 || true
	ip netns delete $name 2>/dev/null || true # the pair goes with it
	awk -v "work=$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount || true
	rm -rf "$work"
}
fail() {
	echo "hosts-test: $*" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || fail "namespaces and a daemon need root"
for tool in ip nsenter docker dockerd; do
	command -v $tool >/dev/null || fail "$tool is not installed"
done
[ ! -e /run/netns/$name ] || fail "the namespace $name is here: another test runs, or ip netns delete $name"
! docker context inspect $name >/dev/null 2>&1 || fail "there is a Docker context $name: docker context rm $name"
trap cleanup EXIT

ip netns add $name
ip link add atlas-lab0 type veth peer name eth0 netns $name
ip address add $here/30 dev atlas-lab0
ip link set atlas-lab0 up
ip -n $name address add $there/30 dev eth0
ip -n $name link set eth0 up
ip -n $name link set lo up

# nsenter, as `ip netns exec` has a /sys without control groups
echo '{}' >"$work/daemon.json" # not the file of this machine's daemon
nsenter --net=/run/netns/$name dockerd --config-file "$work/daemon.json" --data-root "$work/root" \
	--exec-root "$work/exec" --pidfile "$work/pid" --host "unix://$work/docker.sock" \
	--bridge=none --iptables=false --ip-forward=false >"$work/dockerd.log" 2>&1 &
daemon=$!
docker context create $name --docker "host=unix://$work/docker.sock" >/dev/null
far() { docker --context $name "$@"; }
for _ in $(seq 150); do
	far info >/dev/null 2>&1 && break
	kill -0 "$daemon" 2>/dev/null || fail "the daemon of the other host does not start"
	sleep 0.2
done
left() { # on the other host; compose-test looks at this one
	far ps --all --quiet --filter label=com.docker.compose.project=atlas-lab
	far volume ls --quiet --filter label=com.docker.compose.project=atlas-lab
}
clean() { [ -z "$(left)" ] || fail "$1 leaves $(left)"; }

# refused TEXT ARGUMENTS: a run that ends at once, says so, and leaves nothing
refused() {
	local text=$1
	shift
	bin/harness run -launch compose -scenario proxy-1k -subject atlas -count 1 -out "$work/runs" "$@" 2>"$work/log" &&
		fail "a run with $* succeeds"
	grep -q -- "$text" "$work/log" || fail "a run with $* does not say \"$text\": $(cat "$work/log")"
	clean "a refused run"
}
eval "$(bash deploy/images.sh)"
export NGINX_IMAGE HAPROXY_IMAGE
two="-subject-context $name -subject-host $there"
# shellcheck disable=SC2086 # these are several words
{
	refused "docker context ls" -subject-context atlas-lab-nobody -subject-host $there
	refused "-origin-host is the IP address" $two
	refused "DOCKER_CONTEXT=$name make images" $two -origin-host $here
}
docker save "$NGINX_IMAGE" atlas:lab | far load >/dev/null
refused "which has to be an address of this host" -subject-context $name -subject-host $here -origin-host $here
echo "hosts-test: the other host is up, refusals say why"

# measured ARGUMENTS: a run whose CPU time is the other host's, with its facts
measured() {
	local run
	rm -rf "$work/runs"
	bin/harness run -launch compose -generator vegeta -count 1 -warmup 100ms -out "$work/runs" "$@" >"$work/tables"
	clean "a run"
	run=$(echo "$work"/runs/*/)
	# of every sample: the server was on the other host, and worked
	awk '/^Benchmark/ { n++; for (i = 3; i < NF; i += 2) if ($(i + 1) == "cpu-ns/req" && $i > 100) with++ }
		END { exit n < 1 || n != with }' "$run/results.bench" || fail "CPU time is missing: $(cat "$run/results.bench")"
	grep -q '^subject-host-kernel: ' "$run/results.bench" || fail "the results do not name the other host's kernel"
	grep -q '"subject-host-address"' "$run/manifest.json" || fail "the manifest does not name the other host"
}
# shellcheck disable=SC2086
measured $two -origin-host $here -scenario proxy-1k -subject atlas,nginx-best
grep -q '/latency=raw' "$work"/runs/*/results.hlog || fail "there are no histograms"
# shellcheck disable=SC2086
measured $two -origin-context $name -origin-host $there -scenario tls-proxy-1k -subject atlas
echo "hosts-test: measured, with the origin here and there"

# together: two generators, here and on the other host, load a server there. Those that
# a busy machine starts too far apart are refused, and begin again.
bin/harness documents -o "$work/documents" >/dev/null
cat >"$work/atlas.toml" <<END
[listen]
address = "$there"
port = 8080
mode = "static"
workers = 1

[static_files]
root = "$work/documents"
END
nsenter --net=/run/netns/$name bin/atlas "$work/atlas.toml" >"$work/log" 2>&1 &
server=$!
for _ in $(seq 150); do
	bin/harness probe "http://$there:8080/1k.html" 2>/dev/null && break
	kill -0 "$server" 2>/dev/null || fail "Atlas does not start: $(cat "$work/log")"
	sleep 0.2
done
generate() { # DIRECTORY [PREFIX...]: one generator, by a command in front of it on the other host
	local out=$1
	shift
	"$@" bin/harness run -url "mine=http://$there:8080" -scenario static-1k-latency -generator vegeta \
		-count 1 -duration 2s -out "$out" >/dev/null 2>"$out.log" || fail "a generator fails: $(cat "$out.log")"
}
merged=""
for _ in 1 2 3; do
	rm -rf "$work/a" "$work/b" "$work/merged"
	generate "$work/a" &
	one=$!
	generate "$work/b" nsenter --net=/run/netns/$name
	wait "$one" || exit 1 # it has said why
	bin/compare merge -o "$work/merged" "$work"/a/*/results.bench "$work"/b/*/results.bench >/dev/null && merged=1 && break
done
kill "$server"
wait "$server" || fail "Atlas ends with an error: $(cat "$work/log")"
server=""
[ -n "$merged" ] || fail "what two generators saw cannot be merged"
grep -q 'conns=128/rate=4000.*subject=mine' "$work/merged/results.bench" || fail "merged: $(cat "$work/merged/results.bench")"
bin/compare report "$work/merged/results.bench" >/dev/null
echo "hosts-test: two generators, merged"

# shellcheck disable=SC2086
bin/harness run -launch compose -scenario static-1k -subject atlas -duration 60s -out "$work/runs" $two 2>"$work/log" &
lab=$!
for _ in $(seq 150); do
	[ "$(far ps --quiet | wc -l)" -ge 1 ] && break
	kill -0 "$lab" 2>/dev/null || fail "the run ended by itself: $(cat "$work/log")"
	sleep 0.2
done
kill -INT "$lab"
wait "$lab" && fail "an interrupted run succeeds"
lab=""
grep -q interrupted "$work/log" || fail "the run does not say that it was interrupted: $(cat "$work/log")"
clean "an interrupted run"
echo "hosts-test: done"
