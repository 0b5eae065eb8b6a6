#!/usr/bin/env bash
# Makes the images of docker-compose.yml and prints their names as shell variables:
#
#   eval "$(deploy/images.sh)"
#
# NGINX_IMAGE and HAPROXY_IMAGE, where they are set, stay; else the official images
# are pulled, and where none can be, stand-ins are built from the packages of this
# machine: the program, the libraries that it loads, and its modules. Atlas's image
# holds bin/atlas.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

say() { echo "images: $*" >&2; }
fail() {
	say "$*"
	exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# standin NAME FILE...: an image of a program of this machine, with more files
standin() {
	local name=$1 program root="$work/$1" tag
	shift
	program=$(command -v "$name") || fail "neither is $name installed, run make setup, nor can its image be pulled"
	mkdir -p "$root/usr/sbin" "$root/tmp" "$root/etc" "$root/var/log/$name" "$root/var/lib/$name"
	cp -L "$program" "$root/usr/sbin/$name"
	cp /etc/passwd /etc/group "$root/etc/"
	local file library
	for file in "$program" "$@"; do
		if [ "$file" != "$program" ]; then
			mkdir -p "$root$(dirname "$file")"
			cp -rL "$file" "$root$file"
		fi
		for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do
			mkdir -p "$root$(dirname "$library")"
			cp -L "$library" "$root$library"
		done
	done
	# docker looks at what is there when it fills the image, not at who owns it here
	printf 'FROM scratch\nCOPY . /\nENTRYPOINT ["/usr/sbin/%s"]\n' "$name" >"$work/$name.Dockerfile"
	tag="atlas-standin-$name:local"
	DOCKER_BUILDKIT=0 docker build -q -f "$work/$name.Dockerfile" -t "$tag" "$root" >/dev/null
	say "$name: $tag, built from the package of this machine"
	image=$tag
}

# official NAME DEFAULT: pulled, if it is not here
official() {
	local default
	default=$(sed -nE "s/.*\\\$\{$2:-([^}]*)\}.*/\1/p" docker-compose.yml | head -n 1)
	if docker image inspect "$default" >/dev/null 2>&1 || timeout 300 docker pull -q "$default" >/dev/null 2>"$work/pull"; then
		say "$1: $default"
		image=$default
		return
	fi
	say "$1: $default cannot be pulled ($(tail -n 1 "$work/pull"))"
	return 1
}

docker info >/dev/null 2>&1 || fail "docker is not installed, or its daemon does not run"
[ -x bin/atlas ] && [ -x bin/harness ] || fail "there is no bin/atlas or bin/harness: make build"

if [ -z "${NGINX_IMAGE:-}" ]; then
	official nginx NGINX_IMAGE || standin nginx $(ls -d /usr/lib/nginx/modules/*.so /usr/share/nginx/modules 2>/dev/null)
	NGINX_IMAGE=$image
fi
if [ -z "${HAPROXY_IMAGE:-}" ]; then
	official haproxy HAPROXY_IMAGE || standin haproxy
	HAPROXY_IMAGE=$image
fi
mkdir "$work/atlas"
cp bin/atlas "$work/atlas/"
DOCKER_BUILDKIT=0 docker build -q -f deploy/Dockerfile -t atlas:lab "$work/atlas" >/dev/null
say "atlas: atlas:lab, of bin/atlas"
printf 'export NGINX_IMAGE=%q HAPROXY_IMAGE=%q\n' "$NGINX_IMAGE" "$HAPROXY_IMAGE"
