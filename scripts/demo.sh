#!/usr/bin/env bash
# demo.sh: watch real packets go through a per-CPU engine, and see that none is lost.
#
# Role: installs what is missing, builds, and then, in network namespaces of its own, sends UDP (from one
# sender pinned to each CPU) and TCP from a client over an engine to a server:
#
#     client 10.77.1.2 ---- 10.77.1.1 engine 10.77.2.1 ---- 10.77.2.2 server
#                           rule in the forward hook: queues 0-N, fanout, bypass
#                           fanq run: one worker for each queue
#
# Proves: every UDP packet arrived once, every TCP byte is as it was sent, each queue was filled by its
# CPU, and the engine answered all it got. Else its exit status is 1 and `lost:` is not 0.
# Leaves: nothing, however it ends, kill -9 included: all of it lives in namespaces and in a process tree
# which the kernel takes down with this script. Only the build and installed packages stay.
# Does not: touch the machine's own network or rules, overload anything, or measure (fanq-bench does).
#
# Usage: scripts/demo.sh          as root or as any user; without root it says what differs
#   FANQ_BIN_DIR=DIR              take fanq and fanq-bench from there and build nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

bin_dir=${FANQ_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}
seconds=5               # of UDP
rate_each_max=2000      # packets a second from each CPU: a demonstration, no test of the machine,
rate_all_max=20000      # nor of the one socket at the other end
udp_bytes=256           # in each packet
tcp_bytes=$((256 << 20))
server=10.77.2.2

main() {
    case ${1:-} in
    '') outside ;;
    --inside) inside "$2" ;; # from `outside`
    *)
        echo "usage: scripts/demo.sh (it takes no arguments)" >&2
        exit 2
        ;;
    esac
}

# --- outside: prepare and go in ---

outside() {
    prepare
    can_enter_namespaces || fail "$why"
    local who=root
    ((EUID == 0)) || who=user
    in_namespaces bash "$PWD/scripts/demo.sh" --inside "$who"
}

prepare() {
    need ip:iproute2 unshare:util-linux setpriv:util-linux taskset:util-linux || fail "$why"
    # Either will do, if the kernel takes its rule.
    need nft:nftables iptables:iptables || command -v nft iptables >/dev/null || fail "$why"
    if [[ -z ${FANQ_BIN_DIR:-} ]]; then
        command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs); \
if it is there without sudo: sudo env \"PATH=\$PATH\" scripts/demo.sh"
        need cc:gcc || fail "$why"
        say "building (the first time takes a few minutes)"
        cargo build --release --locked --package fanq-tools --package fanq-bench
    fi
    local binary
    for binary in fanq fanq-bench; do
        [[ -x $bin_dir/$binary ]] || fail "there is no program $bin_dir/$binary"
    done
}

# --- inside: the demonstration; this is the first process of its namespace ---

inside() {
    who=$1 # root, or a mere user that looks like root in here
    work=/run/demo # on the tmpfs that in_namespaces mounted
    mkdir "$work"
    declare -gA pids=() # of what `start` started,
    declare -gA voices=() # and of what shows its words
    plan
    title "CPUs $online, queues $queues: the kernel spreads packets by CPU, a worker serves each queue"
    explain_user
    lay_out
    title "The rule, and the engine"
    in_space engine "$bin_dir/fanq" rules install --hook forward --queues "$queues" --fanout --bypass
    start engine engine "$bin_dir/fanq" run --queues "$queues" --placement "$placement" --stats 1 --summary json
    send_udp
    send_tcp
    title "The engine stops (SIGTERM), the rule goes"
    kill -TERM "${pids[engine]}"
    finish engine
    in_space engine "$bin_dir/fanq" rules remove
    account
}

# One queue for each CPU that is online, one sender for each that this process may use.
plan() {
    online=$(</sys/devices/system/cpu/online)
    cpus=$(taskset -cp $$)
    cpus=${cpus##*: }
    count=$(getconf _NPROCESSORS_ONLN)
    placement=same
    queues=0-$((count - 1))
    ((count > 1)) || queues=0
    senders=$(list_length "$cpus")
    if ((senders != count)); then
        placement=none
        note="of the CPUs $online only $cpus may be used here, so workers are not pinned (--placement none)"
    fi
    rate=$((rate_all_max / count))
    ((rate <= rate_each_max)) || rate=$rate_each_max
    packets=$((rate * seconds)) # from each CPU
}

explain_user() {
    [[ -z ${note:-} ]] || echo "$note"
    [[ $who != root ]] || return 0
    cat <<END
Without root, in a user namespace, it is the same rule, engine and traffic, but a receive buffer
cannot be made larger than net.core.rmem_max ($(</proc/sys/net/core/rmem_max) bytes; SO_RCVBUFFORCE is refused),
so TCP's window is kept small enough to fit in. The engine warns of this and of what else is refused.
END
}

# The neighbours are permanent: a packet which waits for ARP is sent by another CPU later.
lay_out() {
    local space
    for space in client engine server; do
        ip netns add "$space"
        ip -n "$space" link set lo up
    done
    cable client client0 10.77.1.2 02:00:00:00:01:02 engine0 10.77.1.1 02:00:00:00:01:01
    cable server server0 $server 02:00:00:00:02:02 engine1 10.77.2.1 02:00:00:00:02:01
    ip -n client route add default via 10.77.1.1
    ip -n server route add default via 10.77.2.1
    in_space engine sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    [[ $who == root ]] || in_space server sh -c 'echo 4096 65536 131072 >/proc/sys/net/ipv4/tcp_rmem'
    echo "client 10.77.1.2 ---- engine ---- $server server, three network namespaces"
}

cable() { # SPACE DEVICE ADDRESS MAC ENGINE_DEVICE ENGINE_ADDRESS ENGINE_MAC
    ip link add "$2" netns "$1" address "$4" type veth peer name "$5" netns engine address "$7"
    ip -n "$1" address add "$3/24" dev "$2"
    ip -n engine address add "$6/24" dev "$5"
    ip -n "$1" link set "$2" up
    ip -n engine link set "$5" up
    ip -n "$1" neighbour replace "$6" lladdr "$7" dev "$2" nud permanent
    ip -n engine neighbour replace "$3" lladdr "$4" dev "$5" nud permanent
}

send_udp() {
    local total=$((packets * senders))
    title "UDP: $rate packets a second from each of the CPUs $cpus, for $seconds s"
    start udp-server server "$bin_dir/fanq-bench" receive --bind $server:9000 --expect $total --idle 3
    in_space client "$bin_dir/fanq-bench" send --to $server:9000 --cpus "$cpus" --count "$packets" \
        --rate "$rate" --size "$udp_bytes" >"$work/udp-client.json"
    finish udp-server
}

send_tcp() {
    title "TCP: one stream of $((tcp_bytes >> 20)) MiB, compared byte by byte"
    start tcp-server server "$bin_dir/fanq-bench" tcp-receive --bind $server:9001
    in_space client "$bin_dir/fanq-bench" tcp-send --to $server:9001 --bytes "$tcp_bytes" >"$work/tcp-client.json"
    finish tcp-server
}

account() {
    local sent received duplicates tcp_sent tcp_received queue_lost lost
    sent=$(number udp-client sent)
    received=$(number udp-server received)
    duplicates=$(number udp-server duplicates)
    tcp_sent=$(number tcp-client bytes)
    tcp_received=$(number tcp-server bytes)
    # What the kernel could not put into a queue or into the engine's socket, of UDP or TCP.
    queue_lost=$(($(total queue_dropped) + $(total id_gaps) - $(total uninspected)))
    lost=$((sent - received))
    ((lost >= queue_lost)) || lost=$queue_lost

    title "The account"
    entry "UDP packets" "sent $sent" "received $received" "twice $duplicates"
    entry "TCP bytes" "sent $tcp_sent" "received $tcp_received" "all compared"
    entry "verdicts" "packets $(total packets)" "accepted $(total accepted)" "dropped $(total dropped)"
    entry "not served" "queue full $(total queue_dropped)" "socket full $(total user_dropped)" \
        "flushed $(total flushed)"
    entry "calls" "receive $(total recv_calls)" "send $(total send_calls)" "CPU $(($(total cpu_us) / 1000)) ms"
    judge
    echo "lost: $lost"
    ((lost == 0)) || fail "packets were lost"
}

judge() {
    ((sent == packets * senders)) || fail "the senders sent $sent packets"
    ((duplicates == 0)) || fail "$duplicates packets arrived twice"
    ((tcp_received == tcp_sent && tcp_sent == tcp_bytes)) || fail "TCP bytes are missing"
    ((received <= sent && $(total packets) >= sent)) || fail "packets went past the engine"
    ((lost > 0 || $(total accepted) == $(total packets))) || fail "not every packet was accepted"
    [[ $(total verdict_errors) == 0 ]] || fail "the kernel refused verdicts"
    local queue
    # Where each CPU has its own queue, what that CPU sent must have come in it.
    [[ $placement == same && $online == "$queues" ]] || return 0
    for queue in $(seq 0 $((count - 1))); do
        (($(queue_packets "$queue") >= packets || lost > 0)) || fail "queue $queue did not get its CPU's packets"
    done
}

# --- steps ---

title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

entry() { printf '  %-12s %-22s %-22s %s\n' "$@"; }

in_space() { ip netns exec "$@"; }

# start NAME SPACE COMMAND...: runs it in the background and returns once it says `ready:`. Its words are
# shown as they come, its output is kept for `number`.
start() {
    local part=$1 space=$2 line words
    shift 2
    mkfifo "$work/$part.words"
    # exec, so that the pid is the program's own.
    exec ip netns exec "$space" "$@" >"$work/$part.json" 2>"$work/$part.words" &
    pids[$part]=$!
    exec {words}<"$work/$part.words"
    while IFS= read -r -t 20 line <&"$words"; do
        echo "  $part | $line"
        [[ $line != ready:* ]] || break
    done
    [[ ${line:-} == ready:* ]] || fail "$part did not start"
    sed -u "s/^/  $part | /" <&"$words" &
    voices[$part]=$!
    exec {words}<&-
}

# finish NAME: waits for its end, which must be a good one.
finish() {
    local status=0
    wait "${pids[$1]}" || status=$?
    wait "${voices[$1]}"
    ((status == 0)) || fail "$1 ended with status $status"
}

# number NAME KEY: the first number under that key in what NAME printed.
number() {
    local json
    json=$(<"$work/$1.json")
    [[ $json =~ \"$2\":([0-9]+) ]] || fail "$1 printed no $2: $json"
    echo "${BASH_REMATCH[1]}"
}

total() { # KEY: in the engine's totals, or after them
    local json
    json=$(<"$work/engine.json")
    [[ ${json#*\"totals\":} =~ \"$1\":([0-9]+) ]] || fail "the engine printed no $1: $json"
    echo "${BASH_REMATCH[1]}"
}

queue_packets() { # QUEUE
    [[ $(<"$work/engine.json") =~ \"queue\":$1,\"cpu\":[^,]*,\"packets\":([0-9]+) ]] || fail "no queue $1"
    echo "${BASH_REMATCH[1]}"
}

list_length() { # LIST: how many CPUs `0-3,8` names
    local part parts length=0
    IFS=, read -ra parts <<<"$1"
    for part in "${parts[@]}"; do
        length=$((length + ${part#*-} - ${part%-*} + 1))
    done
    echo $length
}

bold='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi

main "$@"
