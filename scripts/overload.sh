#!/usr/bin/env bash
# overload.sh: loads `fanq run` with twice what it bears, and says what still gets through and how soon it is well.
#
# Role: in a lab of fanq-bench's (namespaces, load made in the kernel): first the loss-free rate, if it is not given;
# then a load at that rate, and one at the double of it. Of the second it prints the packets delivered a second as a
# share of the loss-free rate, where all others went, the resident memory while it lasted, and for how long packets
# still waited after its last one: at an empty queue nothing is lost any more.
# Leaves: nothing, however it ends: fanq-bench ends with this script, and takes its namespaces along.
# Does not: judge figures of a busy machine: it says which are met, and fails only if a packet has no place.
#
# Usage: scripts/overload.sh [SECONDS [RATE]]    as root; by default 5 seconds of each load, and a search of the rate,
#   which takes some minutes
#   FANQ_BIN_DIR=DIR        take fanq and fanq-bench from there and build nothing
#   FANQ_RUN_OPTIONS=...    more options for `fanq run`
#   FANQ_TOPOLOGY=threaded  who takes the packets up on the worker's CPU: threaded, a thread of the kernel, which the
#                           scheduler weighs against the worker; split, a soft interrupt, which goes before it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

bin_dir=${FANQ_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}
seconds_max=600
packets_max=16777216

main() {
    local seconds=${1:-5} rate=${2:-}
    topology=${FANQ_TOPOLOGY:-threaded}
    if [[ ! $seconds =~ ^[1-9][0-9]{0,2}$ ]] || ((seconds > seconds_max)); then
        fail "\`$seconds\` is no number of seconds from 1 to $seconds_max"
    fi
    [[ -z $rate || $rate =~ ^[1-9][0-9]{0,7}$ ]] || fail "\`$rate\` is no rate from 1 to 99999999 packets a second"
    [[ $topology == threaded || $topology == split ]] || fail "FANQ_TOPOLOGY is threaded or split, not \`$topology\`"
    (($(nproc) > 1)) || skip "with one CPU the load would keep fanq from running"
    prepare_load "making load in the kernel needs root" ip:iproute2 ethtool:ethtool
    measure
}

measure() {
    local lab sampler senders target
    # Half of the CPUs make the load.
    senders=$(($(nproc) / 2))
    target=fanq${FANQ_RUN_OPTIONS:+:$FANQ_RUN_OPTIONS}
    lab=(--topology "$topology" --target "$target")
    if [[ -z $rate ]]; then
        say "searching the loss-free rate"
        bench ndr "${lab[@]}" --trials 60 --out "$scratch/ndr.json" >&2
        rate=$(loss_free)
    fi
    ((2 * rate * seconds / senders <= packets_max)) ||
        fail "fanq-bench follows $packets_max packets of a sender, and $seconds s at $((2 * rate)) a second are more; \
take $((packets_max * senders / (2 * rate))) seconds"
    load 100 "$rate"
    python3 scripts/overload_samples.py fanq $$ $((seconds + 60)) >"$scratch/samples" &
    sampler=$!
    load 200 $((2 * rate))
    wait "$sampler"
    report
}

loss_free() {
    python3 - "$scratch/ndr.json" <<'PYTHON'
import json, sys
rates = json.load(open(sys.argv[1]))["findings"]["rates"]
found = [rate["pps"] for rate in rates if rate["loss_allowed"] == 0]
sys.exit("no loss-free rate was found") if not found or found[0] < 1 else print(int(found[0]))
PYTHON
}

load() { # PERCENT RATE
    say "$seconds s at $2 packets a second, $1 % of the loss-free rate, $topology"
    bench load "${lab[@]}" --rate "$2" --packets $(($2 * seconds / senders)) >"$scratch/load-$1"
}

# Ends with this script, and what it started with it.
bench() {
    setpriv --pdeathsig KILL "$bin_dir/fanq-bench" "$@"
}

report() {
    python3 - "$scratch" "$rate" "$seconds" <<'PYTHON'
import json, sys
scratch, rate, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3]
borne, twice, samples = (json.load(open(f"{scratch}/{name}")) for name in ("load-100", "load-200", "samples"))
print(f"loss-free rate {rate}/s, {seconds} s of each load")
for percent, load in (100, borne), (200, twice):
    account = {key: count for key, count in load["account"].items() if count or key == "unaccounted"}
    print(f"at {percent} %: offered {load['offered_pps']:.0f}/s, delivered {load['delivered_pps']:.0f}/s, {account}")
    if load["void"]:
        print(f"at {percent} %: VOID: {load['void']}")
goodput = twice["delivered_pps"] / rate
recovery = samples["recovery_ms"]
print(f"resident: {samples['rss_kib_first']} KiB first, {samples['rss_kib_last']} last, "
      f"{samples['rss_kib_max']} at most; "
      f"{samples['rss_settled_growth_kib']} KiB after the first fifth, {samples['rss_kib_per_hour']} KiB an hour")
print(f"waiting: {samples['waiting_max']} packets at most; {recovery} ms after the last packet came none "
      f"(to {samples['resolution_ms']:.0f} ms)")
for what, met in [
    (f"goodput at least 0.95 of the loss-free rate: {goodput:.3f}", goodput >= 0.95),
    (f"memory flat: {samples['rss_settled_growth_kib']} KiB", abs(samples["rss_settled_growth_kib"]) <= 256),
    (f"no loss within 100 ms of the load's end: {recovery} ms", recovery is not None and recovery <= 100),
]:
    print(("met      " if met else "NOT MET  ") + what)
sys.exit(any(load["account"]["unaccounted"] for load in (borne, twice)))
PYTHON
}

main "$@"
