# faults.sh: faults that only a machine of one's own may have; guest.sh reads it in, after steps.sh.
#
# Role: a CPU that goes away under its worker and comes back, and a clock that is set while packets flow.
# Invariant: every CPU is online at the end, and the clock is as it was, but for the time that passed.
# Does not: measure; the CPUs are emulated.

# exchange_from CPUS PACKETS: from each of these CPUs $COUNT packets. Sets received, duplicates.
exchange_from() {
    timeout -s KILL 60 $IP netns exec engine "$BENCH" receive \
        --bind $SINK:$PORT --expect "$2" --idle 30 >sink.json 2>sink.err &
    sink=$!
    await sink.err "$sink"
    bounded 60 client "$BENCH" send --to $SINK:$PORT --cpus "$1" --count $COUNT --rate $RATE >send.json 2>send.err
    wait "$sink"
    [ -s sink.json ] || echo "receive printed nothing: $(tail -n 1 sink.err)"
    received=$(number sink.json received)
    duplicates=$(number sink.json duplicates)
}

allowed_cpus() { # THREAD: where that thread of the engine's may run
    for task in /proc/"$engine"/task/*; do
        [ "$(cat "$task"/comm)" != "$1" ] || sed -n 's/^Cpus_allowed_list:[^0-9]*//p' "$task"/status
    done
}

check_cpu_offline() {
    install_rule cpu-offline 'queue flags fanout to 0-3' --queues 0-3 --fanout
    start_engine cpu-offline "$FANQ" run --queues 0-3 --summary json
    before=$(allowed_cpus fanq-3)
    echo 0 >/sys/devices/system/cpu/cpu3/online
    online=$(cat /sys/devices/system/cpu/online)
    check cpu-offline "online $online, worker 3 on CPU $before before" [ "$online/$before" = 0-2/3 ]
    exchange_from 0-2 6000
    check cpu-offline-delivered "$received of 6000 from the other CPUs, $duplicates duplicates" \
        [ "$received/$duplicates" = 6000/0 ]
    echo 1 >/sys/devices/system/cpu/cpu3/online
    online=$(cat /sys/devices/system/cpu/online)
    exchange_from 0-3 8000
    check cpu-online-delivered "$received of 8000, online $online" \
        [ "$received/$duplicates/$online" = 8000/0/0-3 ]
    # The watchdog looks once a second.
    for _ in $(seq 20); do
        after=$(allowed_cpus fanq-3)
        [ "$after" != 3 ] || break
        sleep 0.5
    done
    check cpu-online-place "worker 3 may run on CPU $after" [ "$after" = 3 ]
    stop_engine cpu-offline
    check_totals_of cpu-offline 14000
    # Its queue is not silent: what comes from its CPU again is answered.
    value=$(queue_packets)
    check cpu-online-queues "queue:packets $value" [ "$value" = '0:4000 1:4000 2:4000 3:2000' ]
    remove_rule cpu-offline
}

check_clock_step() {
    install_rule clock-step 'queue flags fanout to 0-3' --queues 0-3 --fanout
    start_engine clock-step "$FANQ" run --queues 0-3 --summary json --inspect-deadline 10
    for step in -3600 7200 -3600; do
        { sleep 0.3; date -s "@$(($(date +%s) + step))" >/dev/null; } &
        stepping=$!
        exchange_from 0-3 8000
        wait "$stepping"
        longest=$(number sink.json max)
        check clock-step-delivered "$received of 8000 while it goes $step s, delayed $longest us at most" \
            [ "$received/$duplicates" = 8000/0 -a "${longest:-99999999}" -lt 60000000 ]
    done
    stop_engine clock-step
    check_totals_of clock-step 24000
    value="hangs $(number totals.json hangs), busy $(number totals.json busy_ns) ns"
    check clock-step-times "$value" \
        [ "$(number totals.json hangs)" = 0 -a "$(number totals.json busy_ns)" -lt 200000000000 ]
    remove_rule clock-step
}

check_totals_of() { # NAME PACKETS: all of them accepted, none lost
    flat engine.json | sed 's/.*"totals"://' >totals.json
    value="packets $(number totals.json packets), accepted $(number totals.json accepted)"
    faults='queue_dropped|user_dropped|id_gaps|uninspected|flushed|malformed|verdict_errors|faulted'
    lost=$(flat totals.json | grep -oE "\"($faults)\":[1-9][0-9]*" | tr '\n' ' ')
    check "$1-account" "$value, ${lost:-no losses}" [ "$value$lost" = "packets $2, accepted $2" ]
}
