# shellcheck shell=bash
# common.sh: what the scripts here share; each reads it in.
#
# Role: words (say, fail, skip), missing Debian packages (need), a place of one's own in the
# kernel (in_namespaces) which vanishes with all that happened in it, and what it takes to load fanq there
# (prepare_load).
# Does not: do anything when read in, except to set PATH and `name`.

PATH=$PATH:/usr/sbin:/sbin
name=$(basename "$0" .sh)
why=
readonly skipped=77 # the exit status of what could not run here, as automake has it

say() { printf '%s: %s\n' "$name" "$*"; }

fail() {
    printf 'FAILED %s: %s\n' "$name" "$*" >&2
    exit 1
}

# What cannot run here is skipped by name; in CI nothing may be skipped.
skip() {
    [[ -z ${CI:-} ]] || fail "$* (CI is set, so this may not be skipped)"
    printf 'SKIPPED %s: %s\n' "$name" "$*" >&2
    exit "$skipped"
}

# need COMMAND:PACKAGE ...: installs the packages of the commands which are missing, and says so
# (on standard error, as some output is a file's). If it cannot, it returns 1 with the reason in `why`.
need() {
    local pair packages=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    ((${#packages[@]} > 0)) || return 0
    why="missing: ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
        why+=", and there is no apt-get to install them with"
        return 1
    fi
    if ((EUID != 0)); then
        why+=", and only root can install them (apt-get install ${packages[*]})"
        return 1
    fi
    say "installing ${packages[*]}" >&2
    local install=(apt-get install -qq --yes --no-install-recommends "${packages[@]}")
    export DEBIAN_FRONTEND=noninteractive
    # A machine on which nothing was installed yet has no list of packages.
    "${install[@]}" >/dev/null 2>&1 && return
    { apt-get update -qq && "${install[@]}" >/dev/null; } >&2 && return
    why+=", and apt-get could not install them"
    return 1
}

# in_namespaces COMMAND...: runs it, alone with its children, in new network, mount and process
# namespaces: lo is up, /run is empty, /proc is theirs. When this script ends, of whatever, they end, and
# the namespaces with them. Without root all this is in a user namespace, where the user looks like root.
in_namespaces() {
    inside=
    trap 'leave_namespaces 130' INT
    trap 'leave_namespaces 143' TERM HUP
    # In the background, so that a trap need not wait for its end.
    enter_namespaces "$@" &
    inside=$!
    wait "$inside"
}

leave_namespaces() { # STATUS
    trap '' INT TERM HUP
    kill -KILL "$inside" 2>/dev/null || true
    wait "$inside" 2>/dev/null || true
    printf '\n%s: stopped; nothing is left behind\n' "$name"
    exit "$1"
}

# can_enter_namespaces: whether this user may; if not, the reason is in `why`.
can_enter_namespaces() {
    why=$( (enter_namespaces true) 2>&1) && return
    why="no namespaces of one's own here (${why//$'\n'/; })"
    ((EUID == 0)) || why+="; run as root, or let users make user namespaces: user.max_user_namespaces > 0, \
kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0"
    return 1
}

# prepare_load WHY COMMAND:PACKAGE...: what it takes to load `fanq run` in namespaces of its own. Root, for the reason
# WHY; these commands; fanq and fanq-bench, which it builds unless FANQ_BIN_DIR names them; and the folder `scratch`,
# which goes with this script.
prepare_load() {
    ((EUID == 0)) || skip "$1"
    need iptables:iptables python3:python3 setpriv:util-linux "${@:2}" || skip "$why"
    can_enter_namespaces || skip "$why"
    if [[ -z ${FANQ_BIN_DIR:-} ]]; then
        cargo build --release --locked --package fanq-tools --package fanq-bench
    fi
    scratch=$(mktemp -d "/tmp/fanq-$name.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
}

# Replaces this shell, which some other shell started and which must end with it: hence the two signals,
# one from shell to unshare, one from unshare to the first process inside, which takes all others along.
# The user namespace comes first, by itself: the kernel gives /proc/net/netfilter/nfnetlink_queue to the
# root of the network namespace's owner, who has none before the users are mapped.
enter_namespaces() {
    local first=(setpriv --pdeathsig KILL)
    ((EUID == 0)) || first+=(unshare --user --map-root-user)
    # shellcheck disable=SC2016 # expanded inside
    exec "${first[@]}" unshare --net --mount --pid --mount-proc --fork --kill-child \
        bash -c 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"' bash "$@"
}
