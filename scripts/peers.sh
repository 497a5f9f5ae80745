#!/usr/bin/env bash
# peers.sh: builds the programs of bench/peers, which fanq-bench measures beside fanq.
#
# Role: installs what one of them needs and says so, builds it into the folder `peers` of the target
# folder, where fanq-bench looks for it, and tells which are there. Building twice changes nothing.
# Does not: belong to the default build or the tests; what links a GPL library is for measuring only.
#
# Usage: scripts/peers.sh [build] [NAME...]   builds those, or all
#        scripts/peers.sh check [NAME...]     says which are built and run; exit status 1 if one is not
#   plain               our own loops, raw netlink: needs cc alone
#   libnetfilter_queue  Debian's library
#   nfq                 the Rust crate
#   netfilterqueue      the Python package
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

all=(plain libnetfilter_queue nfq netfilterqueue)
peers=${CARGO_TARGET_DIR:-target}/peers
netfilterqueue_version=1.1.0
cflags=(-std=gnu11 -O2 -Wall -Wextra -Werror -pthread)

main() {
    local what=build names peer
    case ${1:-} in
    build | check) what=$1 && shift ;;
    -*) usage ;;
    esac
    names=("$@")
    (($# > 0)) || names=("${all[@]}")
    for peer in "${names[@]}"; do
        [[ " ${all[*]} " == *" $peer "* ]] || fail "there is no peer \`$peer\`: there are ${all[*]}"
    done
    if [[ $what == check ]]; then
        check "${names[@]}"
        return
    fi
    mkdir -p "$peers"
    for peer in "${names[@]}"; do
        "build_$peer"
        "$peers/$peer" -h >/dev/null || fail "$peers/$peer does not run"
        say "built $peers/$peer"
    done
}

usage() {
    sed -n 's/^# \(Usage: .*\)/\1/p; s/^#   \( .*\)/ \1/p; s/^#   \([a-z].*\)/  \1/p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

check() { # NAME...
    local peer missing=0
    for peer in "$@"; do
        if [[ ! -x $peers/$peer ]]; then
            missing=1
            printf '%-20s%s\n' "$peer" "missing: scripts/peers.sh build $peer"
        elif ! "$peers/$peer" -h >/dev/null 2>&1; then
            missing=1
            printf '%-20s%s\n' "$peer" "built, but does not run: scripts/peers.sh build $peer"
        else
            printf '%-20s%s\n' "$peer" "built: $peers/$peer"
        fi
    done
    return "$missing"
}

# --- the peers ---

build_plain() {
    need_compiler
    compile plain
}

build_libnetfilter_queue() {
    need_compiler
    need_library
    compile libnetfilter_queue -lnetfilter_queue -lnfnetlink
}

build_nfq() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"
    need_compiler # cargo links by it
    cargo build --quiet --release --locked --manifest-path bench/peers/nfq/Cargo.toml --target-dir "$peers/cargo"
    put nfq <"$peers/cargo/release/nfq"
}

# The package in an environment of its own, and a program that starts our script in it.
build_netfilterqueue() {
    need_compiler
    need_library
    need python3:python3 || fail "$why"
    has_header "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ||
        need Python.h:python3-dev || fail "$why"
    python3 -c 'import ensurepip, venv' 2>/dev/null || need ensurepip:python3-venv || fail "$why"
    local python=$peers/venv/bin/python
    if ! "$python" -c 'import netfilterqueue' 2>/dev/null || [[ $(package_version) != "$netfilterqueue_version" ]]; then
        say "installing the Python package NetfilterQueue $netfilterqueue_version into $peers/venv"
        python3 -m venv --clear "$peers/venv"
        "$python" -m pip install --quiet --disable-pip-version-check "NetfilterQueue==$netfilterqueue_version" ||
            fail "pip could not install NetfilterQueue $netfilterqueue_version"
    fi
    cp bench/peers/netfilterqueue.py "$peers/netfilterqueue.py"
    # -I: or Python takes the script, which lies beside, for the package of the same name.
    put netfilterqueue <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here/venv/bin/python" -I "$here/netfilterqueue.py" "$@"
END
}

package_version() {
    "$peers/venv/bin/python" -c 'from importlib.metadata import version; print(version("NetfilterQueue"))'
}

# --- steps ---

compile() { # NAME LIBRARY...
    cc "${cflags[@]}" -o "$peers/$1.part" "bench/peers/$1.c" "${@:2}" || fail "bench/peers/$1.c does not compile"
    mv "$peers/$1.part" "$peers/$1"
}

# put NAME: what comes on standard input becomes the program; one that runs stays as it was.
put() {
    cat >"$peers/$1.part"
    chmod +x "$peers/$1.part"
    mv "$peers/$1.part" "$peers/$1"
}

# `need` goes by commands; a header that has_header did not find goes by a name that no command has.
need_compiler() {
    need cc:gcc || fail "$why"
    has_header linux/netfilter/nfnetlink_queue.h || need nfnetlink_queue.h:libc6-dev || fail "$why"
}

need_library() {
    has_header libnetfilter_queue/libnetfilter_queue.h ||
        need libnetfilter_queue.h:libnetfilter-queue-dev || fail "$why"
}

has_header() { # PATH: whether the compiler finds it
    cc -E -include "$1" -x c - </dev/null >/dev/null 2>&1
}

main "$@"
