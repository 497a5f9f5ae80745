# selftests.sh: the cases of the kernel's own nft_queue.sh (tools/testing/selftests/net/netfilter) that need a
# listener, with fanq as the listener; guest.sh reads it in, after steps.sh and flows.sh.
#
# Role: near -- router -- far, a ruleset for each case in the router, and what came of it. Each check is named after
# the kernel's case. What this guest has no means for is said as `VM-CHECK skip`.
# Invariant: every case ends with an empty ruleset and no queue bound.
# Does not: repeat what the kernel tests of itself without a listener, or its amounts: a CPU is emulated here.

NEAR=10.8.1.2 NEAR6=fd08:1::2
AT_ROUTER=10.8.1.1 AT_ROUTER6=fd08:1::1
FAR=10.8.2.2 FAR6=fd08:2::2
SELF_PORT=12345
SELF_BYTES=4194304
SELF_LOCAL_BYTES=2097152

check_selftests() {
    space=router
    taint=$(cat /proc/sys/kernel/tainted)
    lay_out_router
    self_no_listener
    self_hooks
    self_tcp_forward
    self_tcp_local
    self_connect_close
    self_requeue
    self_udp_race
    self_stress
    self_exit_with_packets
    self_vrf
    self_sctp
    self_udp_gro_fraglist
    after=$(cat /proc/sys/kernel/tainted)
    check selftest-taint "$after, before $taint" [ "$after" = "$taint" ]
    space=engine
}

skip_aloud() { # NAME WHY
    echo "VM-CHECK skip $1: $2"
}

lay_out_router() {
    $IP netns add near && $IP netns add router && $IP netns add far &&
        $IP link add eth0 netns near type veth peer name near0 netns router &&
        $IP link add eth0 netns far type veth peer name far0 netns router &&
        self_address near eth0 $NEAR $NEAR6 && self_address far eth0 $FAR $FAR6 &&
        self_address router near0 $AT_ROUTER $AT_ROUTER6 &&
        self_address router far0 10.8.2.1 fd08:2::1 &&
        $IP -n near route add default via $AT_ROUTER && $IP -n near route add default via $AT_ROUTER6 &&
        $IP -n far route add default via 10.8.2.1 && $IP -n far route add default via fd08:2::1 &&
        bounded 10 router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward &&
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding' &&
        self_ping $FAR && self_ping $FAR6
    check selftest-network "exit status $?" [ $? = 0 ]
}

self_address() { # NAMESPACE DEVICE IPV4 IPV6
    $IP -n "$1" link set lo up && $IP -n "$1" address add "$3/24" dev "$2" &&
        $IP -n "$1" address add "$4/64" dev "$2" nodad && $IP -n "$1" link set "$2" up
}

self_ping() { # ADDRESS: from near, one packet there and one back
    bounded 10 near ping -c 1 -W 5 "$1" >ping.out 2>&1
}

# As the kernel's script, one ruleset in the place of whatever was there; `END` follows.
self_rules() { # NAME
    { echo 'flush ruleset'; cat; } >self.nft
    bounded 10 router $NFT -f self.nft >rules.out 2>&1 || check "$1-rules" "$(cat rules.out)" false
}

self_end() {
    bounded 10 router $NFT flush ruleset
}

self_totals() { # sets packets, errors
    flat engine.json | sed 's/.*"totals"://' >totals.json
    packets=$(number totals.json packets)
    errors=$(flat totals.json | grep -oE '"(verdict_errors|id_gaps|flushed|malformed)":[1-9][0-9]*' | tr '\n' ' ')
}

self_no_listener() {
    for family in ip ip6; do
        address=$FAR
        [ $family = ip ] || address=$FAR6
        self_rules selftest-blackhole-$family <<END
table $family t { chain forward { type filter hook forward priority 0; queue num 600; }; }
END
        bounded 10 near ping -c 1 -W 1 "$address" >ping.out 2>&1
        check selftest-blackhole-$family "$(grep -o '[0-9]* packets received' ping.out)" \
            grep -q ' 0 packets received' ping.out
    done
    self_rules selftest-bypass <<END
table inet t { chain forward { type filter hook forward priority 0; queue num 600 bypass; }; }
END
    self_ping $FAR && self_ping $FAR6
    check selftest-bypass "both families pass without a listener, status $?" [ $? = 0 ]
    self_end
}

# A packet to far and one to the router, each answered: 6 and 4 times at a hook.
self_hooks() {
    for family in ip ip6; do
        to="$FAR $AT_ROUTER" echoes='icmp type { echo-request, echo-reply }'
        [ $family = ip ] || { to="$FAR6 $AT_ROUTER6" && echoes='icmpv6 type { echo-request, echo-reply }'; }
        { echo 'flush ruleset'; self_five_hooks one 0; } >self.nft
        bounded 10 router $NFT -f self.nft
        self_ping_counted selftest-hooks-$family 10
        self_five_hooks two 5 >self.nft
        bounded 10 router $NFT -f self.nft
        self_ping_counted selftest-second-chain-$family 20
    done
    self_end
}

self_five_hooks() { # TABLE PRIORITY; the rule is in $echoes
    echo "table inet $1 {"
    for hook in prerouting input forward output postrouting; do
        echo "chain $hook { type filter hook $hook priority $2; $echoes queue to 0-3; }"
    done
    echo '}'
}

self_ping_counted() { # NAME PACKETS
    start_engine "$1" "$FANQ" run --queues 0-3 --placement none --summary json
    for address in $to; do
        self_ping "$address" || check "$1-ping" "$address: $(tail -n 2 ping.out)" false
    done
    stop_engine "$1"
    self_totals
    check "$1" "$packets of $2 packets, ${errors:-no errors}" [ "$packets$errors" = "$2" ]
}

# TCP over the router, as large packets that stand for many segments.
self_tcp_forward() {
    self_rules selftest-tcp-forward <<END
table inet t {
    chain forward {
        type filter hook forward priority 0
        tcp dport $SELF_PORT queue to 0-3
        tcp sport $SELF_PORT queue to 0-3
    }
}
END
    for way in plain gso; do
        options=
        [ $way = plain ] || options=--gso
        start_engine selftest-tcp-forward-$way "$FANQ" run --queues 0-3 --placement none --summary json $options
        self_transfer near far $FAR $SELF_BYTES
        stop_engine selftest-tcp-forward-$way
        self_totals
        check selftest-tcp-forward-$way "$received of $SELF_BYTES bytes, $packets packets, ${errors:-no errors}" \
            [ "$received$errors" = $SELF_BYTES -a "${packets:-0}" -gt 100 ]
    done
    self_end
}

# The same on the router's loopback.
self_tcp_local() {
    self_rules selftest-tcp-local <<END
table inet t {
    chain output { type filter hook output priority 0; tcp dport $SELF_PORT queue to 0-1; }
    chain input { type filter hook input priority 0; tcp sport $SELF_PORT queue to 0-1; }
}
END
    start_engine selftest-tcp-local "$FANQ" run --queues 0-1 --placement none --summary json
    self_transfer router router 127.0.0.1 $SELF_LOCAL_BYTES
    stop_engine selftest-tcp-local
    self_totals
    check selftest-tcp-local "$received of $SELF_LOCAL_BYTES bytes, $packets packets, ${errors:-no errors}" \
        [ "$received$errors" = $SELF_LOCAL_BYTES -a "${packets:-0}" -gt 20 ]
    self_end
}

self_transfer() { # FROM TO ADDRESS BYTES: sets received
    self_sink "$2" tcp-receive --bind "$3:$SELF_PORT"
    bounded 60 "$1" "$BENCH" tcp-send --to "$3:$SELF_PORT" --bytes "$4" >send.json 2>send.err || kill "$sink"
    wait "$sink"
    received=$(number sink.json bytes)
}

self_sink() { # NAMESPACE WORDS...: starts the bench there as a receiver
    inside=$1
    shift
    timeout -s KILL 60 $IP netns exec "$inside" "$BENCH" "$@" >sink.json 2>sink.err &
    sink=$!
    await sink.err "$sink"
}

# Sockets that are closed while their first packet waits.
self_connect_close() {
    self_rules selftest-connect-close <<END
table inet t { chain output { type filter hook output priority 0; tcp dport $SELF_PORT queue to 0; }; }
END
    start_engine selftest-connect-close "$FANQ" run --queues 0 --placement none --summary json
    kill -STOP "$engine"
    clients=
    for _ in 1 2 3 4 5 6 7 8; do
        timeout -s KILL 60 $IP netns exec router "$BENCH" tcp-send --to 127.0.0.1:$SELF_PORT --bytes 1 \
            >client.out 2>&1 &
        clients="$clients $!"
    done
    self_await_waiting 8
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $clients
    # shellcheck disable=SC2086
    wait $clients
    waiting=$(self_waiting)
    kill -CONT "$engine"
    stop_engine selftest-connect-close
    self_totals
    check selftest-connect-close "$waiting waited, $packets packets, ${errors:-no errors}" \
        [ "${waiting:-0}" -ge 8 -a "${packets:-0}" -ge 8 -a -z "$errors" ]
    self_end
}

self_waiting() { # packets in all queues of the router
    bounded 10 router cat /proc/net/netfilter/nfnetlink_queue | awk '{ sum += $3 } END { print sum + 0 }'
}

self_await_waiting() { # PACKETS: up to 40 s
    for _ in $(seq 200); do
        [ "$(self_waiting)" -lt "$1" ] || return
        sleep 0.2
    done
}

# One listener hands each packet to another's queue, after 150 ms.
self_requeue() {
    self_rules selftest-requeue <<END
table inet t { chain output { type filter hook output priority 0; tcp dport $SELF_PORT queue num 0; }; }
END
    timeout -s KILL 150 $IP netns exec router "$FANQ" run --queues 1 --placement none --summary json \
        >second.json 2>second.err &
    second=$!
    await second.err "$second"
    start_engine selftest-requeue "$FANQ" run --queues 0 --placement none --summary json --mode route:1 \
        --work-ns 150000000
    self_transfer router router 127.0.0.1 20000
    kill -TERM "$second"
    wait "$second"
    flat second.json | sed 's/.*"totals"://' >second.totals
    there=$(number second.totals packets)
    stop_engine selftest-requeue
    self_totals
    requeued=$(number totals.json requeued)
    check selftest-requeue "$received of 20000 bytes, $requeued of $packets handed on, $there came" \
        [ "$received$errors" = 20000 -a "${packets:-0}" -gt 3 -a "$requeued" = "$packets" ]
    self_end
}

# Two packets of one new flow wait together, and each has an unconfirmed connection that is translated: when both are
# accepted, both arrive, as one connection.
self_udp_race() {
    self_rules selftest-udp-race <<END
table inet t {
    chain to { type nat hook prerouting priority -100; ip daddr 10.6.6.6 udp dport $SELF_PORT dnat ip to $FAR; }
    chain wait { type filter hook postrouting priority -10; udp dport $SELF_PORT queue num 12; }
}
END
    start_engine selftest-udp-race "$FANQ" run --queues 12 --placement none --summary json
    kill -STOP "$engine"
    self_sink far receive --bind $FAR:$SELF_PORT --expect 2 --idle 20
    bounded 20 near "$BENCH" send --to 10.6.6.6:$SELF_PORT --cpus 0 --count 2 --rate 100 >send.json 2>send.err
    self_await_waiting 2
    waiting=$(self_waiting)
    kill -CONT "$engine"
    wait "$sink"
    # Of this flow: what another case has left in flight makes entries of its own.
    bounded 10 router cat /proc/net/nf_conntrack >connections
    entries=$(grep -c ' dst=10\.6\.6\.6 ' connections)
    stop_engine selftest-udp-race
    received=$(number sink.json received)
    check selftest-udp-race "$waiting waited, $received arrived, $entries connection of $(wc -l <connections)" \
        [ "$waiting/$received/$entries" = 2/2/1 ]
    self_end
}

# Verdicts from the last to the first, each among 50 for packets that do not exist.
self_stress() {
    self_rules selftest-stress <<END
table inet t { chain forward { type filter hook forward priority 0; udp dport $SELF_PORT queue to numgen inc mod 8; }; }
END
    start_engine selftest-stress "$BENCH" disorder --queues 0-7
    self_sink far receive --bind $FAR:$SELF_PORT --expect 2000 --idle 20
    bounded 60 near "$BENCH" send --to $FAR:$SELF_PORT --cpus 0-3 --count 500 --rate 250 >send.json 2>send.err
    wait "$sink"
    stop_engine selftest-stress
    received=$(number sink.json received) twice=$(number sink.json duplicates)
    bogus=$(number engine.json bogus) refused=$(number engine.json refused)
    check selftest-stress "$received of 2000, $twice twice, $bogus bogus verdicts, $refused refused" \
        [ "$received/$twice/$bogus" = 2000/0/100000 -a "${refused:-0}" -gt 0 ]
    self_end
}

# The listener is killed with packets in its queue.
self_exit_with_packets() {
    self_rules selftest-exit <<END
table inet t { chain forward { type filter hook forward priority 0; udp dport $SELF_PORT queue num 0; }; }
END
    start_engine selftest-exit "$FANQ" run --queues 0 --placement none --summary json
    kill -STOP "$engine"
    bounded 20 near "$BENCH" send --to $FAR:$SELF_PORT --cpus 0 --count 50 --rate 500 >send.json 2>send.err
    self_await_waiting 50
    waiting=$(self_waiting)
    kill -KILL "$engine"
    wait "$engine" 2>/dev/null
    left=$(bounded 10 router cat /proc/net/netfilter/nfnetlink_queue)
    after=$(cat /proc/sys/kernel/tainted)
    check selftest-exit-with-packets "$waiting waited; then ${left:-no queue}, taint $after" \
        [ "$waiting/$after" = "50/$taint" -a -z "$left" ]
    self_end
}

# A packet that leaves by a VRF comes to the queue twice: from the VRF's device and from the one below it.
self_vrf() {
    $IP -n near link add tvrf type vrf table 9876 2>vrf.err || {
        skip_aloud selftest-vrf "$(tail -n 1 vrf.err)"
        return
    }
    $IP -n near link set tvrf up && $IP -n near link set eth0 master tvrf &&
        $IP -n near route add 10.8.2.0/24 via $AT_ROUTER dev eth0 table 9876
    cat >self.nft <<END
table inet t {
    chain output { type filter hook output priority 0; icmp type echo-request queue num 1; }
    chain post { type filter hook postrouting priority 0; icmp type echo-request queue num 1; }
}
END
    bounded 10 near $NFT -f self.nft
    space=near
    start_engine selftest-vrf "$FANQ" run --queues 1 --placement none --summary json
    bounded 10 near ping -c 1 -W 5 -I tvrf $FAR >ping.out 2>&1
    answered=$?
    stop_engine selftest-vrf
    space=router
    self_totals
    check selftest-vrf "ping's status $answered, $packets packets, ${errors:-no errors}" \
        [ "$answered/$packets$errors" = 0/4 ]
    bounded 10 near $NFT flush ruleset
    # A device that leaves a VRF has lost its routes but those to its own networks.
    $IP -n near link del tvrf && $IP -n near route replace default via $AT_ROUTER && self_ping $FAR
    check selftest-vrf-left "far is reached again, exit status $?" [ $? = 0 ]
}

# Through the forward hook, and from the output hook, where a packet may still stand for several chunks.
self_sctp() {
    [ -x /usr/bin/socat ] || {
        skip_aloud selftest-sctp "no socat in this guest"
        return
    }
    grep -q '^sctp ' /proc/modules || {
        skip_aloud selftest-sctp "this kernel has no module sctp"
        return
    }
    head -c 500000 /dev/urandom >sctp.sent
    self_sctp_transfer || {
        skip_aloud selftest-sctp "socat does not get through without a rule: $(grep -v Killed sctp.err | tail -n 1)"
        return
    }
    for way in forward output; do
        at=router
        [ $way = forward ] || at=near
        cat >self.nft <<END
table inet t { chain c { type filter hook $way priority 0; sctp dport $SELF_PORT queue num 10; }; }
END
        bounded 10 $at $NFT -f self.nft
        space=$at
        start_engine selftest-sctp-$way "$FANQ" run --queues 10 --placement none --summary json --gso
        self_sctp_transfer
        whole=$?
        stop_engine selftest-sctp-$way
        self_totals
        value="$(wc -c <sctp.got) bytes, $packets packets, ${errors:-no errors}"
        check selftest-sctp-$way "$value $(tail -n 1 sctp.err)" [ "$whole" = 0 -a "${packets:-0}" -gt 10 ]
        bounded 10 $at $NFT flush ruleset
    done
    space=router
}

self_sctp_transfer() {
    : >sctp.got
    timeout -s KILL 12 $IP netns exec far socat -d -d -u SCTP4-LISTEN:$SELF_PORT OPEN:sctp.got 2>sctp.err &
    sink=$!
    sleep 1
    bounded 10 near socat -d -d -u OPEN:sctp.sent SCTP4:$FAR:$SELF_PORT 2>>sctp.err
    wait "$sink"
    cmp -s sctp.sent sctp.got
}

# Datagrams that the router joins as they come in (GRO, a list of packets) are one packet with one unconfirmed
# connection, which is queued whole and goes on whole. Those that came alone are not tracked and pass by the queue.
self_udp_gro_fraglist() {
    [ -x /usr/sbin/ethtool ] || {
        skip_aloud selftest-udp-gro-fraglist "no ethtool in this guest"
        return
    }
    bounded 10 router /usr/sbin/ethtool -K near0 rx-udp-gro-forwarding on rx-gro-list on \
        generic-receive-offload on >gro.out 2>&1 || {
        skip_aloud selftest-udp-gro-fraglist "near0: $(tail -n 1 gro.out)"
        return
    }
    # What has come waits a moment for more, else it would take two CPUs at once for two packets to meet.
    bounded 10 router sh -c 'echo 20000000 >/sys/class/net/near0/gro_flush_timeout'
    self_rules selftest-udp-gro-fraglist <<END
table inet t {
    chain pre {
        type filter hook prerouting priority -300
        iifname near0 meta l4proto udp meta length > 1000 accept
        notrack
    }
    chain to {
        type filter hook postrouting priority 0
        udp dport $SELF_PORT ct status ! confirmed counter mark set 1 queue num 1
    }
    chain from { type filter hook postrouting priority 1; mark 1 counter; }
}
END
    start_engine selftest-udp-gro-fraglist "$FANQ" run --queues 1 --placement none --summary json --gso --conntrack
    self_sink far receive --bind $FAR:$SELF_PORT --expect 8000 --idle 20
    # Until the first of them is answered, all have a connection that is not confirmed.
    kill -STOP "$engine"
    bounded 60 near "$BENCH" send --to $FAR:$SELF_PORT --cpus 0 --count 8000 --size 512 >send.json 2>send.err
    kill -CONT "$engine"
    wait "$sink"
    stop_engine selftest-udp-gro-fraglist
    self_totals
    received=$(number sink.json received) sent=$(number send.json sent)
    # shellcheck disable=SC2046 # two numbers
    set -- $(bounded 10 router $NFT list ruleset | grep -o 'counter packets [0-9]*' | grep -o '[0-9]*$')
    if [ "$1" = 0 ]; then
        value="none of ${sent:-0} datagrams was joined with another $(tail -n 1 send.err)"
        skip_aloud selftest-udp-gro-fraglist "$value"
    else
        check selftest-udp-gro-fraglist \
            "$1 to the queue, $2 from it, $packets inspected, ${errors:-no errors}, $received of $sent datagrams" \
            [ "$1/$packets$errors" = "$2/$2" -a "$received" = "$sent" ]
    fi
    bounded 10 router /usr/sbin/ethtool -K near0 rx-udp-gro-forwarding off rx-gro-list off generic-receive-offload off
    bounded 10 router sh -c 'echo 0 >/sys/class/net/near0/gro_flush_timeout'
    self_end
}
