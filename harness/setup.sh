#!/bin/sh
# Installs the programs that the lab uses, and those that are named, by the
# system's package manager: as root, or by sudo where it asks no password. Says
# what it runs, starts no service, and ends well where it cannot install: the lab
# goes on without.
set -eu

# The lab needs the first two; the others make more of it possible.
# sbin is not in the PATH of ordinary users everywhere.
with_sbin() (
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    "$@"
)

# nginx forwards TCP by a module, which is a package of its own on some systems.
has_stream() {
    options=$(with_sbin nginx -V 2>&1) || return 1
    case $options in
    *--with-stream=dynamic*)
        modules=${options#*--modules-path=}
        [ -e "${modules%% *}/ngx_stream_module.so" ]
        ;;
    *) true ;; # compiled in, or not to be had
    esac
}

missing=""
for program in nginx wrk haproxy curl openssl "$@"; do
    with_sbin command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
has_stream || missing="$missing nginx-stream"
if [ -z "$missing" ]; then
    echo "setup: nginx with its stream module, wrk, haproxy, curl, openssl${1:+ and $*} are here"
    exit 0
fi

manager=""
for candidate in apt-get dnf apk brew; do
    if command -v "$candidate" >/dev/null 2>&1; then
        manager=$candidate
        break
    fi
done

give_up() {
    echo "setup: missing:$missing"
    echo "setup: $1"
    echo "setup: the lab runs without them, with Go's own servers as origin and peer and vegeta as the only load generator"
    exit 0
}

[ -n "$manager" ] || give_up "no apt-get, dnf, apk or brew here: install them by hand"

# What they call it; brew's nginx has it compiled in.
package() {
    case $manager-$1 in
    apt-get-nginx-stream) echo libnginx-mod-stream ;;
    *-nginx-stream) echo nginx-mod-stream ;;
    *) echo "$1" ;;
    esac
}
packages=""
for program in $missing; do
    packages="$packages $(package "$program")"
done
as_root=""
if [ "$manager" != brew ] && [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null ||
        give_up "installing needs root: run 'sudo $manager install$packages', then 'make setup' again"
    as_root="sudo -n"
fi

run() {
    echo "setup: $*"
    "$@"
}

# Debian starts a server as soon as it is installed, unless this file forbids it.
policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
forbid_services() {
    [ -e "$policy" ] && return
    trap '$as_root rm -f "$policy"' EXIT
    echo "setup: writing $policy while installing, so that no service starts"
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
}

install_one() {
    case $manager in
    apt-get) run $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" ;;
    dnf) run $as_root dnf install -y "$1" ;;
    apk) run $as_root apk add "$1" ;;
    brew) run brew install "$1" ;;
    esac
}

if [ "$manager" = apt-get ]; then
    forbid_services
    # Without a network this must fail soon, not after minutes.
    run $as_root apt-get update -q -o Acquire::Retries=0 -o Acquire::http::Timeout=10 ||
        echo "setup: the package lists are stale, trying with them"
fi

left=""
for program in $missing; do
    if [ "$program" = nginx-stream ] && has_stream; then
        continue # it came with nginx
    fi
    if install_one "$(package "$program")"; then
        # It would start with the next boot, and hold port 80.
        case $manager-$program in
        apt-get-nginx | apt-get-haproxy)
            if command -v systemctl >/dev/null 2>&1 && ! run $as_root systemctl disable "$program"; then
                echo "setup: no systemd is running here, so nothing will start $program"
            fi
            ;;
        esac
    else
        left="$left $program"
    fi
done
missing=$left
[ -z "$missing" ] || give_up "$manager could not install them"
echo "setup: done"
