# flows.sh: the checks of flow bypass and rejecting; guest.sh reads it in, after steps.sh.
#
# Role: one TCP transfer from client to engine through rules with a bypass mark, once for each way to set the
# connection mark, and one connection that is rejected.
# Invariant: connections have other bits in their marks already, and keep them.
# Does not: measure how fast a bypassed flow is.

TRANSFER=4194304      # bytes
SEGMENTS=2800         # the fewest packets with payload which that takes
SEEN_MAX=300          # what the queue may see of it: 10, and what was on its way by then
BYPASS=0x10/0x30
OTHERS=0x125          # what the connection mark is before,
MARKED=0x00000115     # and after

check_flow_bypass() { # WAY: mark or ct
    name=bypass-by-$1
    install_tcp_rule "$name" --bypass-mark $BYPASS
    watch_marks
    start_engine "$name" "$FANQ" run --queues 0-3 --summary json \
        --bypass-after 10 --bypass-mark $BYPASS --bypass-by "$1"
    transfer
    check "$name-delivered" "$received of $sent bytes" [ "$received/$sent" = "$TRANSFER/$TRANSFER" ]
    bounded 20 engine "$FANQ" rules show >shown 2>&1
    marked=$(counted 'ct mark set')
    past_queue=$(counted 'ct mark & 0x00000030')
    kept=$(bounded 10 engine $NFT list table ip watch | grep "ct mark $MARKED" | sed 's/.*packets \([0-9]*\).*/\1/')
    left_on=$(bounded 10 engine $NFT list table ip watch | grep 'meta mark' | sed 's/.*packets \([0-9]*\).*/\1/')
    stop_engine "$name"
    flat engine.json | sed 's/.*"totals"://' >totals.json
    seen=$(number totals.json packets)
    check "$name-queued" "$seen packets" [ "${seen:-0}" -ge 10 -a "${seen:-0}" -le $SEEN_MAX ]
    # The rules count a large segmented packet as one.
    check "$name-passed" "$past_queue packets before the queue rule" [ "${past_queue:-0}" -gt 0 ]
    check "$name-kept" "$kept packets of connections with the other bits too" [ "${kept:-0}" -gt 0 ]
    check "$name-left-on" "$left_on packets went on with the packet mark" [ "$left_on" = 0 ]
    repeated=$(number totals.json repeated)
    if [ "$1" = ct ]; then
        check "$name-way" "$repeated repeated, $marked marked by the rules" [ "$repeated/$marked" = 0/0 ]
    else
        check "$name-way" "$repeated repeated, $marked marked by the rules" [ "${marked:-0}" -gt 0 ]
    fi
    bounded 10 engine $NFT delete table ip watch
    remove_rule "$name"
}

# The counter-proof: it is the bypass that keeps packets away.
check_no_flow_bypass() {
    install_tcp_rule no-flow-bypass --bypass-mark $BYPASS
    start_engine no-flow-bypass "$FANQ" run --queues 0-3 --summary json
    transfer
    stop_engine no-flow-bypass
    flat engine.json | sed 's/.*"totals"://' >totals.json
    seen=$(number totals.json packets)
    check no-flow-bypass-queued "$seen packets for $received bytes" [ "${seen:-0}" -ge $SEGMENTS ]
    remove_rule no-flow-bypass
}

check_reject() {
    install_tcp_rule reject --reject-mark 0x40
    start_engine reject "$FANQ" run --queues 0-3 --summary json --mode repeat:0x40
    transfer
    said=$(tail -n 1 tcp-send.err)
    check reject-said "$said" [ "${said#*onnection refused}" != "$said" ]
    stop_engine reject
    flat engine.json | sed 's/.*"totals"://' >totals.json
    seen=$(number totals.json packets)
    check reject-queued "$seen packet" [ "$seen" = 1 ]
    remove_rule reject
}

# A rules file's own actions, with the rules that `fanq rules` makes for them: one port is rejected, the
# other leaves the queue after its first packet.
check_rules_file() {
    cat >rules.toml <<END
reject-mark = "0x10/0x30"
bypass-mark = "0x20/0x30"
[[rule]]
name = "no"
protocol = "tcp"
destination-port = 9001
action = "reject"
[[rule]]
name = "past"
protocol = "tcp"
destination-port = $PORT
action = "bypass"
END
    bounded 20 engine "$FANQ" rules install --backend nft --hook input --queues 0-3 --proto tcp \
        --reject-mark 0x10/0x30 --bypass-mark 0x20/0x30 >rules.out 2>&1
    check rules-file-rule "exit status $?: $(tail -n 1 rules.out)" [ $? = 0 ]
    start_engine rules-file "$FANQ" run --queues 0-3 --summary json --policy rules.toml
    transfer
    check rules-file-bypassed "$received of $sent bytes" [ "$received/$sent" = "$TRANSFER/$TRANSFER" ]
    timeout -s KILL 60 $IP netns exec engine "$BENCH" tcp-receive --bind $SINK:9001 >knocked.json 2>knocked.err &
    sink=$!
    await knocked.err "$sink"
    bounded 60 client "$BENCH" tcp-send --to $SINK:9001 --bytes 1 >knock.json 2>knock.err
    kill "$sink"
    wait "$sink"
    said=$(tail -n 1 knock.err)
    check rules-file-rejected "$said" [ "${said#*onnection refused}" != "$said" ]
    stop_engine rules-file
    value=$(flat engine.json | grep -oE '"(name|packets)":("no"|"past"|[0-9]+)' | tr '\n' ' ')
    flat engine.json | sed 's/.*"totals"://' >totals.json
    seen=$(number totals.json packets) repeated=$(number totals.json repeated)
    back=$(flat engine.json | grep -oE '"(rejects|bypasses)_returned":[1-9][0-9]*')
    check rules-file-once "$repeated of $seen packets went round, ${back:-none twice}: ${value#* }" \
        [ "$repeated" = "$seen" -a "${seen:-0}" -ge 2 -a "${seen:-0}" -le $SEEN_MAX -a -z "$back" ]
    remove_rule rules-file
}

install_tcp_rule() { # NAME OPTIONS...
    name=$1
    shift
    bounded 20 engine "$FANQ" rules install --backend nft --hook input --queues 0-3 --proto tcp --dport $PORT \
        "$@" >rules.out 2>&1
    status=$?
    check "$name-rule" "exit status $status: $(tail -n 1 rules.out)" [ "$status" = 0 ]
}

# Connections that begin get other bits, and behind our rules marks are counted.
watch_marks() {
    bounded 10 engine $NFT -f - <<END
add table ip watch
add chain ip watch first { type filter hook prerouting priority -100; }
add rule ip watch first ct state new ct mark set $OTHERS
add chain ip watch behind { type filter hook input priority 10; }
add rule ip watch behind ct mark $MARKED counter
add rule ip watch behind meta mark & 0x30 == 0x10 counter
END
    check "$name-watch" "exit status $?" [ $? = 0 ]
}

transfer() { # sets sent and received, in bytes
    timeout -s KILL 60 $IP netns exec engine "$BENCH" tcp-receive --bind $SINK:$PORT \
        >tcp-receive.json 2>tcp-receive.err &
    sink=$!
    await tcp-receive.err "$sink"
    bounded 60 client "$BENCH" tcp-send --to $SINK:$PORT --bytes $TRANSFER >tcp-send.json 2>tcp-send.err
    [ $? = 0 ] || kill "$sink"
    wait "$sink"
    sent=$(number tcp-send.json bytes)
    received=$(number tcp-receive.json bytes)
}

counted() { # PART: packets of the rules of `fanq rules show` with this in them
    grep -F "$1" shown | awk '{ sum += $1 } END { print sum + 0 }'
}
