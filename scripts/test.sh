#!/usr/bin/env bash
# test.sh: every check of this repository, for people and for CI alike.
#
# Role: runs the parts below one after the other, the cheap ones first, each within a bound of time, goes
# on after a failure, and installs what a part is missing (Rust components, Debian packages), saying so.
# A part which this machine cannot run says SKIPPED and why; where CI is set, that is a failure.
# Does not: know what is tested. That stands in the tests, in scripts/tidy.py and scripts/vm/guest.sh.
#
# Usage: scripts/test.sh [PART]   all parts, or one of:
#   tidy     structure and habits (scripts/tidy.py), scripts (shellcheck, where it can be had)
#   fmt      rustfmt
#   clippy   every target and feature, warnings are errors
#   doc      rustdoc, warnings are errors
#   unit     unit, property and documentation tests; no rights needed
#   memcheck the engine's unit tests that touch memory by hand, under valgrind (scripts/memcheck.sh)
#   netns    the tests in tests/ folders: real queues, in network namespaces of their own
#   bench    fanq-bench's smoke suite over three targets, and its page; packets by a kernel's thread; root only
#   demo     scripts/demo.sh, as root and without: both must end in `lost: 0`
#   fuzz-smoke  every fuzz target for a minute, or 12 s where all parts run (scripts/fuzz.sh); no rights needed
#   vm       scripts/vm.sh: the real nft rule on four CPUs
#   CI=1     nothing may be skipped
# What failed is said again at the end: a few lines of each part that did, then one line for each part. The last
# is `N passed, N failed, N skipped`, of parts; the exit status is 1 if any failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

words_of_failure='FAIL|panicked at|^error|^Diff in|^fanq-bench: '
logs=
parts=(tidy fmt clippy doc unit memcheck netns bench demo vm fuzz-smoke)
part_seconds_max=900
running=

main() {
    [[ ${1:-} != --only ]] || { only "$2"; return; } # from `judge`
    (($# < 2)) || usage
    [[ -z ${1:-} || " ${parts[*]} " == *" $1 "* ]] || usage
    command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"
    command -v cc >/dev/null || need cc:gcc cc:libc6-dev || fail "$why"
    trap 'stop 130' INT
    trap 'stop 143' TERM HUP

    local part passed=0 failed=0 skipped_count=0 lines=()
    if [[ -n ${1:-} ]]; then
        parts=("$1")
    else
        export FUZZ_SECONDS=${FUZZ_SECONDS:-12} # of all that there is to do, a smaller share
    fi
    logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
    for part in "${parts[@]}"; do
        judge "$part"
    done
    title summary
    [[ ! -e $logs/excerpts ]] || cat "$logs/excerpts"
    printf '%s\n' "${lines[@]}"
    echo "$passed passed, $failed failed, $skipped_count skipped"
    ((failed == 0))
}

usage() {
    sed -n 's/^# \(Usage: .*\)/\1/p; s/^#   \([a-z-]* .*\)/  \1/p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# judge PART: runs it, in a process group of its own which ends with this script, and notes how it went.
judge() {
    local began=$SECONDS status=0 verdict
    title "$1"
    setpriv --pdeathsig TERM timeout --kill-after=10 "$part_seconds_max" bash scripts/test.sh --only "$1" \
        </dev/null > >(tee "$logs/$1") 2>&1 &
    running=$!
    wait "$running" || status=$?
    running=
    case $status in
    0) verdict=passed passed=$((passed + 1)) ;;
    "$skipped") verdict=SKIPPED skipped_count=$((skipped_count + 1)) ;;
    124 | 137) verdict="FAILED (stopped at the bound of $part_seconds_max s)" failed=$((failed + 1)) ;;
    *) verdict=FAILED failed=$((failed + 1)) ;;
    esac
    lines+=("$(printf '%-8s%5d s  %s' "$1" $((SECONDS - began)) "$verdict")")
    echo "${lines[-1]}"
    [[ $verdict != FAILED* ]] || excerpt "$1" >>"$logs/excerpts"
}

# Of a long run only the end may be kept: what a failed part said about it.
excerpt() { # PART
    echo "$1:"
    sleep 0.5 # for `tee` to have written it
    grep -aE "$words_of_failure" "$logs/$1" | cut -c -200 | head -n 12 | sed 's/^/    /'
}

stop() { # STATUS
    trap '' INT TERM HUP
    [[ -z $running ]] || { kill -TERM "$running" && wait "$running"; } 2>/dev/null || true
    exit "$1"
}

title() { printf '\n== %s ==\n' "$*"; }

# --- the parts; a status of `skipped` comes from `skip` ---

only() { # PART
    name=$1 # in what is said from here on
    "part_${1//-/_}"
}

part_tidy() {
    local status=0
    need python3:python3 git:git || skip "$why"
    python3 scripts/tidy.py || status=1
    python3 scripts/soak_samples.py --self-test || status=1
    # It judges scripts; that it cannot be had is no reason to leave the rest unchecked.
    if need shellcheck:shellcheck; then
        shellcheck --external-sources scripts/*.sh .ci/run || status=1
    else
        say "scripts are not checked: $why"
    fi
    return "$status"
}

part_fmt() {
    component fmt rustfmt
    cargo fmt --check
}

part_clippy() {
    component clippy clippy
    cargo clippy --workspace --all-targets --all-features --locked -- --deny warnings
}

# One after the other, as the library and the program are both called fanq.
part_doc() {
    export RUSTDOCFLAGS='--deny warnings'
    cargo doc --locked --no-deps --package fanq
    cargo doc --locked --no-deps --package fanq-tools --package fanq-bench --bins --document-private-items
    cargo doc --locked --no-deps --package fanq-accel --document-private-items
}

part_unit() {
    cargo test --locked --workspace --lib --bins
    cargo test --locked --workspace --doc
    cargo test --locked --package fanq --features _loom --lib every_interleaving
}

part_memcheck() {
    scripts/memcheck.sh
}

part_netns() {
    need ip:iproute2 iptables:iptables nft:nftables unshare:util-linux ethtool:ethtool python3:python3 ||
        skip "$why"
    [[ -e /usr/include/libnetfilter_queue/libnetfilter_queue.h ]] ||
        need libnetfilter_queue.h:libnetfilter-queue-dev || say "its loop is not accelerated: $why"
    need dhcpoptinj:dhcpoptinj || say "it is not accelerated: $why"
    ruby -e 'require "nfqueue"' 2>/dev/null || need ruby-nfqueue:ruby-nfqueue || say "it is not accelerated: $why"
    scripts/peers.sh build netfilterqueue || say "Python's program is not accelerated: see above"
    fetch_opensnitch || say "it is not accelerated: $why"
    need chromium:chromium || say "the report is not laid out in a browser: $why"
    fetch_promtool || say "metrics and alerts are not judged by promtool: $why"
    need systemd-analyze:systemd || say "the unit is not judged: $why"
    can_enter_namespaces || skip "$why"
    local test=(cargo test --locked --workspace --features fanq/_privileged --test '*')
    cargo build --locked --package fanq --examples # which a test runs
    cargo build --locked --package fanq-accel # which tests load under programs
    "${test[@]}" --no-run # out here, where the network may be needed
    in_namespaces "${test[@]}" --no-fail-fast
}

# Whether it measures at all, not what: the figures of a debug build on a busy machine mean nothing.
part_bench() {
    need ip:iproute2 iptables:iptables unshare:util-linux ethtool:ethtool || skip "$why"
    ((EUID == 0)) || skip "loading BPF programs needs root"
    cargo build --locked --package fanq-tools --package fanq-bench
    scripts/peers.sh build plain
    local out
    out=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$out'" EXIT
    # Out here, as a process namespace hides the kernel's threads.
    cargo test --locked --package fanq-bench --test measure a_thread_of_the_kernel -- --nocapture
    target/debug/fanq-bench run --suite smoke --target fanq --target limit --target kernel --out "$out/smoke.json"
    target/debug/fanq-bench report "$out/smoke.json"
    grep -q '</svg>' "$out/smoke.html"
}

part_demo() {
    scratch=$(mktemp -d /tmp/fanq-demo.XXXXXX)
    trap 'rm -rf "$scratch"' EXIT
    if ((EUID == 0)); then
        demo
        demo_without_root
    else
        demo
        skip "the half as root (that without root passed): you are not root"
    fi
}

# In two steps: together, the example's libraries would have all be built anew.
part_vm() {
    cargo build --release --locked --package fanq-tools --package fanq-bench # as the demo does
    cargo build --release --locked --package fanq --example show_packets
    scripts/vm.sh
}

# --- steps ---

part_fuzz_smoke() {
    need c++:g++ || skip "$why"
    scripts/fuzz.sh "${FUZZ_SECONDS:-60}"
}

# Makes promtool available. Debian has it beside the server, which an installation would start: unpacked only.
fetch_promtool() {
    local folder=${CARGO_TARGET_DIR:-$PWD/target}/promtool
    PATH=$PATH:$folder/usr/bin
    command -v promtool >/dev/null || unpack prometheus "$folder" ./usr/bin/promtool
}

# Makes opensnitch available to a test. An installation would start it, for the whole machine: unpacked only.
fetch_opensnitch() {
    local folder=${CARGO_TARGET_DIR:-$PWD/target}/opensnitch
    [[ -x $folder/usr/bin/opensnitchd ]] || unpack opensnitch "$folder" ./usr/bin/opensnitchd ./etc/opensnitchd
}

# unpack PACKAGE FOLDER FILE...: these files of a Debian package into the folder. If it cannot, it returns 1 with the
# reason in `why`.
unpack() {
    local package=$1 folder=$2
    shift 2
    why="$package is missing, and apt-get could not fetch Debian's package"
    command -v apt-get >/dev/null || return 1
    say "fetching $package"
    mkdir -p "$folder"
    local download=(apt-get download -qq "$package")
    (cd "$folder" && { "${download[@]}" || { apt-get update -qq && "${download[@]}"; }; } &&
        dpkg-deb --fsys-tarfile "$package"_*.deb | tar x "$@" && rm "$package"_*.deb) >/dev/null 2>&1
}

# component COMMAND COMPONENT: makes `cargo COMMAND` work.
component() {
    ! cargo "$1" --version >/dev/null 2>&1 || return 0
    command -v rustup >/dev/null || skip "cargo $1 is missing, and there is no rustup to install $2 with"
    say "installing the Rust component $2"
    rustup component add "$2" || skip "rustup could not install $2"
}

# demo COMMAND...: runs the demo, by way of the command, and holds it to its last line.
demo() {
    "$@" scripts/demo.sh | tee "$scratch/transcript"
    [[ $(tail -n 1 "$scratch/transcript") == 'lost: 0' ]] || fail "the demo did not end in \`lost: 0\`"
}

# As the user nobody, who may not be able to read this checkout: from a copy of what it takes.
demo_without_root() {
    mkdir "$scratch/bin"
    cp -r scripts "$scratch/"
    cp "${CARGO_TARGET_DIR:-target}"/release/{fanq,fanq-bench} "$scratch/bin/"
    chmod -R a+rX "$scratch"
    local nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ "FANQ_BIN_DIR=$scratch/bin")
    # shellcheck disable=SC2016 # expanded by that bash
    "${nobody[@]}" bash -c '. "$1"; can_enter_namespaces || { echo "$why"; false; }' \
        bash "$scratch/scripts/common.sh" || skip "the half without root: see above"
    cd "$scratch"
    demo "${nobody[@]}"
}

main "$@"
