#!/usr/bin/env bash
# restarts.sh: restarts `fanq run` again and again under load, and counts what got lost or came twice.
#
# Role: in namespaces of its own, numbered UDP packets over the loopback, from one sender on each CPU, through one
# queue a CPU without `bypass`, to one receiver. Three runs: no restart; restarts by handover; restarts by SIGKILL with
# a descriptor store, which starts the program again as systemd does. What a killed process had read is accepted
# (--on-orphan accept), so in each run every packet must arrive, once. What the restarts cost shows in the delays,
# beside those of the first run.
# Leaves: nothing, however it ends: all of it lives in namespaces and in a process tree which ends with it.
# Does not: search for the highest rate (fanq-bench ndr does), or restart systemd itself.
#
# Usage: scripts/restarts.sh [PACKETS [RATE [RESTARTS]]]    as root; by default 200000 packets at 20000 a second in
#   all, and 10 restarts by each way. Exit status 1 if any packet is lost or doubled
#   FANQ_BIN_DIR=DIR    take fanq and fanq-bench from there and build nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

bin_dir=${FANQ_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}
patience=20 # seconds, for anything to be ready

main() {
    if [[ ${1:-} == --inside ]]; then
        inside "${@:2}"
        return
    fi
    local packets=${1:-200000} rate=${2:-20000} restarts=${3:-10} number
    for number in "$packets" "$rate" "$restarts"; do
        [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || fail "\`$number\` is no number from 1 to 999999999"
    done
    prepare_load "iptables and a large receive buffer need root"
    in_namespaces bash scripts/restarts.sh --inside "$scratch" "$packets" "$rate" "$restarts"
}

inside() { # SCRATCH PACKETS RATE RESTARTS
    scratch=$1 packets=$2 rate=$3 restarts=$4
    cpus=$(nproc) last=$(($(nproc) - 1))
    packets=$((packets / cpus * cpus))
    # The table exists before the first packet waits.
    iptables -A INPUT -p udp --dport 9000 -j NFQUEUE --queue-balance "0:$last" --queue-cpu-fanout
    fanq=("$bin_dir/fanq" run --queues "0-$last" --summary json --on-orphan accept)
    printf '%-9s %9s %9s %6s %8s %9s %9s %9s\n' restarts packets by lost doubled 'p50 us' 'p99 us' 'max us'
    local status=0
    run none 0 || status=1
    run handover "$restarts" || status=1
    run kill "$restarts" || status=1
    return "$status"
}

# run WAY COUNT: one load from begin to end, with so many restarts spread over it.
run() {
    local way=$1 count=$2 receiver sender turn
    local pause
    pause=$(awk "BEGIN { print $packets / $rate / ($count + 1) }")
    "begin_$way"
    : >"$scratch/receiver" # of the run before
    "$bin_dir/fanq-bench" receive --bind 127.0.0.1:9000 --expect "$packets" --idle 3 \
        >"$scratch/received" 2>"$scratch/receiver" &
    receiver=$!
    await "$scratch/receiver" ready: 1
    "$bin_dir/fanq-bench" send --to 127.0.0.1:9000 --cpus "0-$last" --count $((packets / cpus)) \
        --rate $((rate / cpus)) >"$scratch/sent" &
    sender=$!
    for ((turn = 1; turn <= count; turn++)); do
        sleep "$pause"
        "again_$way" "$turn"
    done
    wait "$sender" "$receiver"
    "end_$way"
    python3 - "$scratch/received" "$packets" "$way" "$count" <<'PYTHON' || { explain; return 1; }
import json, sys
path, packets, way, count = sys.argv[1:]
got = json.load(open(path))
lost, delay = int(packets) - got["received"], got["latency_us"]
print(f"{count:<9} {packets:>9} {way:>9} {lost:>6} {got['duplicates']:>8} "
      f"{delay['p50']:>9.0f} {delay['p99']:>9.0f} {delay['max']:>9.0f}", flush=True)
sys.exit(lost != 0 or got["duplicates"] != 0)
PYTHON
}

# explain: what is known of a run that lost or doubled packets: drops on the way, what the program said, its account.
explain() {
    grep ^Udp: /proc/net/snmp
    grep -v -e WATCHDOG -e FDSTORE=1 "$scratch/err"
    cat "$scratch/out" "$scratch/sent" "$scratch/received"
} >&2

# await FILE TEXT COUNT: until the file has so many lines with the text.
await() {
    local until=$((SECONDS + patience))
    until [[ $(grep -c "$2" "$1") -ge $3 ]]; do
        ((SECONDS < until)) || fail "no \`$2\` in: $(tail -n 5 "$1")"
        sleep 0.005
    done
}

begin_none() { begin_handover; }
again_none() { :; }
end_none() { end_handover; }

begin_handover() { again_handover 0; }

again_handover() { # TURN
    : >"$scratch/err"
    # Appended to, since the one before says its last words there.
    "${fanq[@]}" --handover "$scratch/door" 2>>"$scratch/err" >"$scratch/out" &
    service=$!
    await "$scratch/err" ready: 1
}

end_handover() {
    kill -TERM "$service"
    wait "$service"
}

begin_kill() {
    mkfifo "$scratch/orders"
    python3 scripts/descriptor_store.py "$scratch/notify" "${fanq[@]}" <"$scratch/orders" >"$scratch/out" \
        2>"$scratch/err" &
    store=$!
    exec 9>"$scratch/orders"
    start_kept 1
}

again_kill() { # TURN
    kill -KILL "$service"
    await "$scratch/err" '^ended' "$1"
    start_kept $(($1 + 1))
}

start_kept() { # HOW_OFTEN
    echo start >&9
    await "$scratch/err" READY=1 "$1"
    service=$(sed -n 's/^started //p' "$scratch/err" | tail -n 1)
}

end_kill() {
    kill -TERM "$service"
    exec 9>&-
    wait "$store" || true
    rm "$scratch/orders"
}

main "$@"
