# steps.sh: what the checks of guest.sh are made of; guest.sh reads it in.
#
# Role: the network, the rule, the engine, the traffic, and as much of JSON as is needed. A step
# makes the checks which belong to it, under the name of the proof it is part of.
# Invariant: every command of ours or of the network runs under `timeout`.
# Does not: decide what is proved; that is guest.sh.

IP=/usr/sbin/ip # by full path: busybox has an `ip` of its own
NFT=/usr/sbin/nft
FANQ=/usr/bin/fanq
BENCH=/usr/bin/fanq-bench
SHOW=/usr/bin/show_packets

COUNT=2000 # datagrams from each CPU
TOTAL=8000
RATE=2000 # per second and CPU, so that no buffer decides the result
PORT=9000
SINK=10.9.0.2
TALK_PORT=9001
TALK_MARK=42

passed=0
failed=0
space=engine # the namespace that engines are started in

check() { # NAME EVIDENCE TEST...
    what="$1: $2"
    shift 2
    if "$@"; then
        passed=$((passed + 1))
        echo "VM-CHECK ok $what"
    else
        failed=$((failed + 1))
        echo "VM-CHECK FAIL $what"
    fi
}

# The neighbours are permanent: a packet which waits for ARP is sent by another CPU later.
lay_out() {
    $IP netns add client && $IP netns add engine &&
        $IP link add client0 netns client address 02:00:00:00:00:01 type veth \
            peer name engine0 netns engine address 02:00:00:00:00:02 &&
        lay_out_end client client0 10.9.0.1 $SINK 02:00:00:00:00:02 &&
        lay_out_end engine engine0 $SINK 10.9.0.1 02:00:00:00:00:01
    laid=$?
    rps=$(bounded 10 engine cat /sys/class/net/engine0/queues/rx-0/rps_cpus)
    check network "veth pair, exit status $laid, rps_cpus ${rps:-unread}" [ "$laid$rps" = 00 ]
}

lay_out_end() { # NAMESPACE DEVICE ADDRESS PEER PEER_MAC
    $IP -n "$1" link set lo up && $IP -n "$1" address add "$3/24" dev "$2" &&
        $IP -n "$1" link set "$2" up &&
        $IP -n "$1" neighbour replace "$4" lladdr "$5" dev "$2" nud permanent
}

bounded() { # SECONDS NAMESPACE COMMAND...
    seconds=$1 inside=$2
    shift 2
    timeout -s KILL "$seconds" $IP netns exec "$inside" "$@"
}

install_rule() { # NAME WHAT_NFT_SHOWS OPTIONS...
    name=$1 shown=$2
    shift 2
    bounded 20 engine "$FANQ" rules install --backend nft --hook input "$@" \
        --proto udp --dport $PORT >rules.out 2>&1
    status=$?
    rule=$(bounded 10 engine $NFT list ruleset | grep "$shown" | tr -s '\t ' ' ')
    check "$name-rule" "${rule:-none; exit status $status: $(tail -n 1 rules.out)}" \
        [ "$status" = 0 -a -n "$rule" ]
}

remove_rule() { # NAME
    bounded 20 engine "$FANQ" rules remove --backend nft >rules.out 2>&1
    status=$?
    left=$(bounded 10 engine $NFT list ruleset 2>&1) || left="unread: $left"
    check "$1-removed" "exit status $status, ruleset ${left:-empty}" [ "$status" = 0 -a -z "$left" ]
}

start_engine() { # NAME COMMAND...
    name=$1
    shift
    # busybox's timeout and ip both become their command, so the pid is the engine's own.
    timeout -s KILL 150 $IP netns exec "$space" "$@" >engine.json 2>engine.err &
    engine=$!
    await engine.err "$engine"
    check "$name-engine" "$(grep '^ready' engine.err || tail -n 1 engine.err)" \
        grep -q '^ready' engine.err
}

stop_engine() { # NAME: it has 40 s to end
    kill -TERM "$engine" 2>/dev/null
    for _ in $(seq 200); do
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.2
    done
    kill -KILL "$engine" 2>/dev/null
    wait "$engine"
    status=$? words=
    [ $status = 0 ] || words=": $(tail -n 1 engine.err)"
    check "$1-exit" "status $status$words" [ $status = 0 ]
    left=$(bounded 10 "$space" cat /proc/net/netfilter/nfnetlink_queue 2>&1) || left="unread: $left"
    check "$1-unbound" "nfnetlink_queue ${left:-empty}" [ -z "$left" ]
}

kill_engine() { # NAME: for one that does not end by itself
    kill -TERM "$engine" 2>/dev/null
    wait "$engine" 2>/dev/null
    left=$(bounded 10 "$space" cat /proc/net/netfilter/nfnetlink_queue 2>&1) || left="unread: $left"
    check "$1-unbound" "nfnetlink_queue ${left:-empty}" [ -z "$left" ]
}

# Both directions of one TCP port go to queue 3; that a rule names `ct` makes the kernel track.
install_conntrack_rules() {
    bounded 10 engine $NFT -f - 2>rules.out <<END
table inet talk {
    chain marking { type filter hook prerouting priority -150; tcp dport $TALK_PORT ct mark set $TALK_MARK; }
    chain incoming { type filter hook input priority 0; tcp dport $TALK_PORT queue to 3; }
    chain outgoing { type filter hook output priority 0; tcp sport $TALK_PORT queue to 3; }
}
END
    check conntrack-rules "exit status $? $(cat rules.out)" [ ! -s rules.out ]
}

remove_conntrack_rules() {
    bounded 10 engine $NFT delete table inet talk >rules.out 2>&1
    check conntrack-removed "exit status $? $(cat rules.out)" [ ! -s rules.out ]
}

talk() { # one TCP connection with 100,000 bytes
    timeout -s KILL 60 $IP netns exec engine "$BENCH" tcp-receive --bind $SINK:$TALK_PORT \
        >talk.json 2>sink.err &
    sink=$!
    await sink.err "$sink"
    bounded 60 client "$BENCH" tcp-send --to $SINK:$TALK_PORT --bytes 100000 >send.json 2>send.err
    wait "$sink"
    [ -s talk.json ] || echo "tcp-receive printed nothing: $(tail -n 1 sink.err)"
}

check_packet() { # NAME NUMBER PATTERN: that packet which show_packets showed
    value=$(grep '^id=' engine.json | sed -n "$2p")
    check "$1" "${value:-no such packet}" grep -q "$3" <<END
$value
END
}

await() { # FILE PID: up to 40 s for the line `ready`, while the process lives
    for _ in $(seq 200); do
        if grep -q '^ready' "$1" || ! kill -0 "$2" 2>/dev/null; then return; fi
        sleep 0.2
    done
}

# Sets sent, received, duplicates; a tool that failed leaves its last words. The sink ends with the last packet, or when
# nothing came for so long: 30 s, unless nothing is to come, as a sender may be slow to start on an emulated CPU.
exchange() { # [SECONDS]
    timeout -s KILL 60 $IP netns exec engine "$BENCH" receive \
        --bind $SINK:$PORT --expect $TOTAL --idle "${1:-30}" >sink.json 2>sink.err &
    sink=$!
    await sink.err "$sink"
    bounded 60 client "$BENCH" send --to $SINK:$PORT --cpus 0-3 --count $COUNT --rate $RATE \
        >send.json 2>send.err
    wait "$sink"
    for tool in send sink; do
        [ -s $tool.json ] || echo "$tool printed nothing: $(tail -n 1 $tool.err)"
    done
    sent=$(number send.json sent)
    received=$(number sink.json received)
    duplicates=$(number sink.json duplicates)
}

send_all() { # NAME
    exchange
    check "$1-delivered" "$received of $sent, $duplicates duplicates" \
        [ "$sent/$received/$duplicates" = "$TOTAL/$TOTAL/0" ]
}

# --- JSON, as far as it is needed ---

flat() { tr -d ' \t\n' <"$1"; }

number() { # FILE KEY: the first one in the file
    flat "$1" | grep -o "\"$2\":[0-9]*" | head -n 1 | cut -d: -f2
}

queue_packets() { # of `fanq run`, as QUEUE:PACKETS ...
    flat engine.json | sed 's/"totals".*//' |
        grep -o '"queue":[0-9]*,"cpu":[^,]*,"packets":[0-9]*' |
        sed 's/"queue":\([0-9]*\),.*"packets":/\1:/' | tr '\n' ' ' | sed 's/ $//'
}

check_run_summary() { # NAME: what `fanq run` says it saw is what was sent, and it lost nothing
    flat engine.json | sed 's/.*"totals"://' >totals.json
    value="packets $(number totals.json packets), accepted $(number totals.json accepted)"
    check "$1-totals" "$value" [ "$value" = "packets $TOTAL, accepted $TOTAL" ]
    faults='queue_dropped|user_dropped|id_gaps|uninspected|flushed|malformed|verdict_errors'
    value=$(flat engine.json | grep -oE "\"($faults)\":[1-9][0-9]*" | tr '\n' ' ')
    check "$1-losses" "${value:-none}" [ -s engine.json -a -z "$value" ]
}
