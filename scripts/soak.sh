#!/usr/bin/env bash
# soak.sh: runs `fanq run` under a steady load for a while, and holds it to what must not change with time.
#
# Role: in namespaces of its own, numbered UDP packets over the loopback, from one sender on each CPU, through one queue
# a CPU without `bypass`, to one receiver. Every 10 seconds resident memory, open descriptors and the account (asked for
# by the control socket) become a line of a CSV. After a warm-up minute, which comes before the MINUTES, memory may
# grow by less than 1 MiB an hour (least squares), and the number of descriptors stays as it is. At the end every
# packet sent has its place: it was given to the receiver, or lost under a counter; unaccounted: 0.
# Leaves: the CSV; nothing else, however it ends: all of it lives in namespaces and in a process tree which ends with
# it.
# Does not: search for the highest rate (fanq-bench ndr does), or judge delays. Packets that are lost and counted do
# not fail it. Short runs say little of memory: a page within a minute is already 0.23 MiB an hour. Below some 250
# packets a second on each CPU no batch of the warm-up is as deep as batches get, and one that is takes its pages later.
#
# Usage: scripts/soak.sh [MINUTES [RATE [OPTION...]]]    as root; by default 30 minutes at 20000 packets a second in
#   all; the options are those of `fanq run`. Exit status 1 if anything is not held
#   FANQ_BIN_DIR=DIR    take fanq and fanq-bench from there and build nothing
#   SOAK_CSV=FILE       the CSV; by default soak.csv in the build's folder (target/)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

bin_dir=${FANQ_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}
csv=${SOAK_CSV:-${CARGO_TARGET_DIR:-target}/soak.csv}
patience=20 # seconds, for anything to be ready
warm_up=60  # seconds

main() {
    if [[ ${1:-} == --inside ]]; then
        inside "${@:2}"
        return
    fi
    local minutes=${1:-30} rate=${2:-20000} number
    for number in "$minutes" "$rate"; do
        [[ $number =~ ^[1-9][0-9]{0,6}$ ]] || fail "\`$number\` is no number from 1 to 9999999; usage: \
scripts/soak.sh [MINUTES [RATE [OPTION...]]]"
    done
    prepare_load "iptables and a large receive buffer need root"
    mkdir -p "$(dirname "$csv")"
    in_namespaces bash scripts/soak.sh --inside "$scratch" "$minutes" "$rate" "${@:3}"
}

inside() { # SCRATCH MINUTES RATE OPTION...
    scratch=$1 minutes=$2 rate=$3
    local cpus last packets service receiver sender status=0
    cpus=$(nproc) last=$(($(nproc) - 1))
    packets=$((rate * (minutes * 60 + warm_up) / cpus))
    # For `await`, which may come before those that write there.
    : >"$scratch/err"
    : >"$scratch/receiver"
    # The table exists before the first packet waits.
    iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-balance "0:$last" --queue-cpu-fanout
    "$bin_dir/fanq" run --queues "0-$last" --summary json "${@:4}" >"$scratch/account" 2>"$scratch/err" &
    service=$!
    await "$scratch/err" ready:
    "$bin_dir/fanq-bench" receive --bind 127.0.0.1:9000 --expect $((packets * cpus)) --idle 3 \
        >"$scratch/received" 2>"$scratch/receiver" &
    receiver=$!
    await "$scratch/receiver" ready:
    say "$((packets * cpus)) packets at $rate a second: $minutes minutes behind a warm-up of $warm_up s; memory, \
descriptors and account every 10 s: $csv"
    "$bin_dir/fanq-bench" send --to 127.0.0.1:9000 --cpus "0-$last" --count "$packets" --rate $((rate / cpus)) \
        >"$scratch/sent" &
    sender=$!
    # Within the warm-up one batch as deep as batches get, so that all memory to receive into has been used: else the
    # deepest batch so far, whenever it comes, takes a page for each of its packets.
    sleep 5
    kill -STOP "$service"
    sleep 0.3
    kill -CONT "$service"
    python3 scripts/soak_samples.py take "$service" "$sender" "$csv" || {
        cat "$scratch/err" >&2
        fail "the program could not be asked"
    }
    wait "$sender" || status=1
    wait "$receiver" || status=1
    iptables -nvxL INPUT | awk '/NFQUEUE/ { print $1 }' >"$scratch/at_rule"
    kill -TERM "$service" || status=1
    wait "$service" || status=1
    python3 scripts/soak_samples.py judge "$csv" "$warm_up" "$scratch" || status=1
    if ((status != 0)); then
        cat "$scratch/err" "$scratch/account" >&2
        fail "something was not held: see above"
    fi
}

# await FILE TEXT: until the file has it.
await() {
    local until=$((SECONDS + patience))
    until grep -q "$2" "$1"; do
        ((SECONDS < until)) || fail "no \`$2\` in: $(tail -n 5 "$1")"
        sleep 0.05
    done
}

main "$@"
