#!/bin/sh
# systemd.sh: the last checks in the virtual machine of scripts/vm.sh, with systemd as its first process.
#
# Role: packaging/systemd/fanq.service as it is, but for longer limits on this slow machine, serves four queues on the
# loopback, while numbered packets come from four CPUs without a pause.
# Proves:
#   systemd-start      Type=notify: the start ends when the queues are served, and the store has their four sockets
#   systemd-owner      fanq top and fanq doctor name fanq as the queues' owner, not systemd, which has the sockets, too
#   systemd-restarts   two of `systemctl restart` and two of SIGKILL lose and double no packet
#   systemd-watchdog   a program that stands still is ended and started anew, and what waited arrives
#   systemd-stop       the queues end with the service
# Does not: measure, or test the unit's limits (tools/tests/systemd.rs).
#
# Usage: by systemd itself (check.service, which scripts/vm.sh writes); goes on with guest.sh's counts and powers off.

. /steps.sh
. /run/counts

main() {
    $IP link set lo up
    $NFT -f - <<END
table inet served { chain in { type filter hook input priority 0; udp dport $PORT queue flags fanout to 0-3; }; }
END
    check_start
    check_owner
    check_restarts
    check_watchdog
    check_stop
    echo "VM-RESULT $passed passed, $failed failed"
    poweroff -f
}

property() { # NAME
    timeout -s KILL 20 systemctl show --property "$1" --value fanq
}

check_start() {
    timeout -s KILL 100 systemctl start fanq
    value="status $?, $(property ActiveState), $(property NFileDescriptorStore) descriptors kept"
    check systemd-start "$value; $(tail -n 1 /run/fanq.err)" [ "$value" = 'status 0, active, 4 descriptors kept' ]
}

check_owner() {
    pid=$(property MainPID)
    timeout -s KILL 60 "$FANQ" top --json -n 1 >top.json
    timeout -s KILL 60 "$FANQ" doctor --json --queues 0-3 >doctor.json
    top=$(grep -o "\"owner\":{\"pid\":$pid,\"name\":\"fanq\"" top.json | wc -l) # with -F busybox tells the first alone
    doctor=$(grep -cF "queues 0-3: process $pid (fanq) and process 1 (systemd)" doctor.json)
    check systemd-owner "process $pid: $top of 4 queues in top, $doctor line in doctor" [ "$top/$doctor" = 4/1 ]
}

receive() { # PACKETS
    "$BENCH" receive --bind 127.0.0.1:$PORT --expect "$1" --idle 60 >sink.json 2>sink.err &
    sink=$!
    await sink.err "$sink"
}

send() { # PACKETS of each CPU, RATE
    "$BENCH" send --to 127.0.0.1:$PORT --cpus 0-3 --count "$1" --rate "$2" >send.json 2>send.err
}

received() { # sets received, duplicates
    wait "$sink"
    received=$(number sink.json received)
    duplicates=$(number sink.json duplicates)
}

await_another() { # PID: up to 60 s, until the service runs as another process
    for _ in $(seq 120); do
        pid=$(property MainPID)
        [ "$pid" = 0 ] || [ "$pid" = "$1" ] || [ "$(property ActiveState)" != active ] || return 0
        sleep 0.5
    done
}

check_restarts() {
    receive 24000
    send 6000 300 &
    sender=$!
    for _ in 1 2; do
        sleep 1
        timeout -s KILL 60 systemctl restart fanq
        before=$(property MainPID)
        sleep 1
        kill -KILL "$before"
        await_another "$before"
    done
    wait "$sender"
    received
    value="$received of 24000, $duplicates twice; $(property NRestarts) of its own since the last systemctl restart"
    check systemd-restarts "$value; $(property ActiveState)" \
        [ "$received/$duplicates/$(property ActiveState)" = 24000/0/active ]
}

check_watchdog() {
    before=$(property MainPID)
    kill -STOP "$before"
    receive 40
    send 10 100
    await_another "$before"
    received
    check systemd-watchdog "process $before, then $pid; $received of 40, $duplicates twice" \
        [ "$received/$duplicates" = 40/0 -a "$pid" != "$before" ]
}

check_stop() {
    timeout -s KILL 100 systemctl stop fanq
    status=$?
    left=$(cat /proc/net/netfilter/nfnetlink_queue)
    check systemd-stop "status $status, nfnetlink_queue ${left:-empty}" [ "$status" = 0 -a -z "$left" ]
}

cd /tmp && main
