#!/bin/sh
# guest.sh: the checks made in the virtual machine of scripts/vm.sh.
#
# Role: four senders, one pinned to each CPU, send UDP over a veth pair from the namespace
# `client` to the namespace `engine`, where a queue rule in the input hook meets them.
# Proves, on a kernel with nft_queue:
#   fanout    every packet comes in the queue of its sender's CPU, to the worker on that CPU
#   bypass    with no engine all is delivered (and without the flag nothing is)
#   single    `queue to 3` gives everything to queue 3
#   hashed    `queue to 0-3` loses nothing; one pair of hosts lands in one queue
#   conntrack each packet of a TCP connection comes with it: tuple, state, mark, id, TCP's state;
#             and with the user of the local socket
#   no kernel support is named, with the remedy, and ends with status 1
#   flow bypass   after a connection's first packets none comes to the queue, whoever marks it
#   reject    a marked packet is answered by a TCP reset
#   rules file   what a rule rejects or lets past goes round by its mark once
#   doctor    what is said of real rules that nobody reads, too few read, or that lack a flag: doctor.sh
#   cpu-*     a worker whose CPU goes and comes back serves on
#   clock-*   a clock that is set while packets flow changes nothing
#   selftest-*   the cases of the kernel's own nft_queue.sh that need a listener: selftests.sh
#   removal   nothing of a rule or a queue stays behind
#   systemd-*    restarts of the unit, SIGKILL, its watchdog: systemd.sh, after all others
# Does not: measure anything, test overload or loss, or use more than one pair of hosts.
#
# Prints `VM-CHECK ok|FAIL NAME: EVIDENCE` for each check and closes with
# `VM-RESULT N passed, N failed`. Usage: guest.sh [MODULES THAT DID NOT LOAD]

. /steps.sh
. /flows.sh
. /doctor.sh
. /selftests.sh
. /faults.sh

main() {
    only=$(sed -n 's/.*fanq.checks=\([a-z_,]*\).*/\1/p' /proc/cmdline)
    check machine "kernel $(uname -r), $(nproc) CPUs, up $(cut -d ' ' -f 1 /proc/uptime) s" \
        [ "$(nproc)" = 4 ]
    check modules "not loaded:${1:- none}" [ -z "$1" ]
    lay_out
    if [ -n "$only" ]; then
        for step in $(echo "$only" | tr , ' '); do "$step"; done
    else
        all_checks
    fi
    check_kernel_log
    if [ -x /usr/lib/systemd/systemd ]; then
        # Goes on in systemd.sh.
        echo "passed=$passed failed=$failed" >/run/counts
    else
        skip_aloud systemd "there is no systemd in this guest"
        echo "VM-RESULT $passed passed, $failed failed"
    fi
}

all_checks() {
    check_no_support
    check_fanout
    check_bypass
    check_single
    check_hashed
    check_conntrack
    check_flow_bypass mark
    check_flow_bypass ct
    check_no_flow_bypass
    check_reject
    check_rules_file
    check_doctor
    check_cpu_offline
    check_clock_step
    check_selftests
}

check_no_support() {
    value=$(cat /tmp/no-support)
    check no-support "$value" [ "${value#*no nfnetlink_queue*exit 1}" = "" ]
}

check_fanout() {
    install_rule fanout 'queue flags bypass,fanout to 0-3' --queues 0-3 --fanout --bypass
    start_engine fanout "$BENCH" verify-fanout --queues 0-3
    send_all fanout
    stop_engine fanout
    for key in packets matched; do
        value=$(number engine.json $key)
        check "fanout-$key" "$value of $TOTAL" [ "$value" = $TOTAL ]
    done
    for key in mismatched unmarked; do
        value=$(number engine.json $key)
        check "fanout-$key" "$value" [ "$value" = 0 ]
    done
    for cpu in 0 1 2 3; do
        value=$(flat engine.json | grep -o "\"queue\":$cpu,\"worker_cpu\":[^}]*}")
        check "fanout-queue-$cpu" "$value" \
            [ "$value" = "\"queue\":$cpu,\"worker_cpu\":$cpu,\"from_cpu\":{\"$cpu\":$COUNT}" ]
    done
    remove_rule fanout
}

check_bypass() {
    install_rule bypass 'queue flags bypass,fanout to 0-3' --queues 0-3 --fanout --bypass
    send_all bypass
    remove_rule bypass
    # The counter-proof: it is the flag that lets them through, not a rule that matches nothing.
    install_rule no-bypass 'queue flags fanout to 0-3' --queues 0-3 --fanout
    exchange 3
    check no-bypass-delivered "$received of $sent" [ "$received/$sent" = 0/$TOTAL ]
    remove_rule no-bypass
}

check_single() {
    install_rule single 'queue to 3' --queues 3
    start_engine single "$FANQ" run --queues 3 --policy accept --summary json
    send_all single
    stop_engine single
    check_run_summary single
    value=$(queue_packets)
    check single-queue "queue:packets $value" [ "$value" = "3:$TOTAL" ]
    remove_rule single
}

check_hashed() {
    install_rule hashed 'queue to 0-3' --queues 0-3
    start_engine hashed "$FANQ" run --queues 0-3 --policy accept --summary json
    send_all hashed
    stop_engine hashed
    check_run_summary hashed
    value=$(queue_packets | tr ' ' '\n' | awk -F: '{ sum += $2; used += $2 > 0 }
        END { print sum " in " used " of 4" }')
    check hashed-sum "$value ($(queue_packets))" [ "$value" = "$TOTAL in 1 of 4" ]
    remove_rule hashed
}

check_conntrack() {
    install_conntrack_rules
    start_engine conntrack "$SHOW" 3 conntrack uid-gid
    talk
    kill_engine conntrack
    check conntrack-talk "$(number talk.json bytes) bytes, $(grep -c '^id=' engine.json) packets" \
        [ "$(number talk.json bytes)" = 100000 ]
    ends="original=\"10.9.0.1:[0-9]* > $SINK:$TALK_PORT protocol 6\""
    check_packet conntrack-first 1 "^id=1 hook=Input .* state=New $ends .* tcp=SynSent"
    check_packet conntrack-reply 2 "^id=2 hook=Output .* state=EstablishedReply $ends .* tcp=SynReceived"
    check_packet conntrack-established 3 "^id=3 hook=Input .* state=Established $ends .* tcp=Established"
    value=$(grep -c '^id=' engine.json)
    for field in "ctmark=$TALK_MARK" "$(grep -o 'ctid=[0-9]*' engine.json | head -n 1)"; do
        check conntrack-every "$field in $(grep -c " $field " engine.json) of $value packets" \
            [ "$(grep -c " $field " engine.json)" = "$value" ]
    done
    # A listener's answer to a SYN has no owner. Packets that come in may have one, the receiver: where the
    # kernel has looked the socket up early.
    value=$(grep '^id=.* hook=Output .* uid=0 gid=0 ' engine.json | head -n 1)
    check conntrack-owner "${value:-no packet shows its owner}" [ -n "$value" ]
    remove_conntrack_rules
}

check_kernel_log() {
    # A slow emulated CPU may look locked up; that is no fault of what is tested.
    value=$(dmesg | grep -E 'BUG:|WARNING:|Oops' | grep -v 'soft lockup' | head -n 3)
    check kernel-log "${value:-no BUG, WARNING or Oops}" [ -z "$value" ]
}

main "$@"
