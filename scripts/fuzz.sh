#!/usr/bin/env bash
# fuzz.sh: random bytes, guided by coverage, into what reads bytes from outside (fuzz/targets).
#
# Role: builds the targets with the stable compiler and libFuzzer's coverage, but without a sanitizer (these need
# another compiler), runs each from its small corpus in fuzz/corpus, and says how many runs it made. What it finds
# beyond stays in a folder of its own, which is gone afterwards, unless KEEP names one.
# Leaves: no fuzzer behind, however it ends: each ends with the shell that started it, and that with this one.
# Does not: change the corpus in the repository.
#
# Usage: scripts/fuzz.sh [SECONDS] [TARGET...]   60 seconds for each target; all targets, two at a time
#   scripts/fuzz.sh 900 decode                   a long run of one; its line says how often it decoded
# A failing input is kept under fuzz/artifacts, and the way to replay it said. Exit status 1 then.
# Words that a target's inputs are made of, where it has any, stand in fuzz/dictionaries.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh
name=fuzz

main() {
    if [[ ${1:-} == --run ]]; then
        run "${@:2}"
        return
    fi
    local seconds=${1:-60} target
    [[ $seconds =~ ^[0-9]+$ ]] || fail "SECONDS is $seconds; usage: scripts/fuzz.sh [SECONDS] [TARGET...]"
    shift $(($# > 0 ? 1 : 0))
    local targets=("$@") all
    mapfile -t all < <(find fuzz/targets -name '*.rs' -printf '%f\n' | sed 's/\.rs$//' | sort)
    ((${#targets[@]})) || targets=("${all[@]}")
    for target in "${targets[@]}"; do
        [[ -e fuzz/targets/$target.rs ]] || fail "there is no target $target; there are: ${all[*]}"
    done
    need c++:g++ setpriv:util-linux || fail "$why"
    build

    running=()
    found=$(mktemp -d)
    trap 'rm -rf "$found"' EXIT
    trap 'stop 130' INT
    trap 'stop 143' TERM HUP
    local failed=0
    for target in "${targets[@]}"; do
        setpriv --pdeathsig TERM bash scripts/fuzz.sh --run "$target" "$seconds" "$found" "$host" &
        running+=($!)
        if ((${#running[@]} == 2)); then
            wait "${running[0]}" || failed=1
            running=("${running[1]}")
        fi
    done
    for job in "${running[@]}"; do
        wait "$job" || failed=1
    done
    # Of those that came to their end.
    cat "$found"/*.sum 2>/dev/null |
        awk '{ runs += $1; decoded += $2 } END { print "fuzz: in all " runs + 0 " runs, decoded: " decoded + 0 }'
    return "$failed"
}

# The compiler's own pass writes down which edges were taken, and libFuzzer reads it; only the host's code has it.
build() {
    local flags=(--cfg fuzzing -Cpasses=sancov-module)
    local option
    for option in level=4 inline-8bit-counters pc-table trace-compares; do
        flags+=("-Cllvm-args=-sanitizer-coverage-$option")
    done
    host=$(rustc -vV | sed -n 's/^host: //p')
    CARGO_TARGET_DIR=$PWD/target/fuzz RUSTFLAGS="${flags[*]}" \
        cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host"
}

stop() { # STATUS
    trap '' INT TERM HUP
    kill -TERM "${running[@]}" 2>/dev/null || true
    wait # for those that write to the folder which goes now
    exit "$1"
}

# Runs one, in a shell of its own; told to end, it ends the fuzzer first.
run() { # TARGET SECONDS FOUND HOST
    local target=$1 status=0
    found=$3 host=$4 fuzzer=
    local log=$found/$target.log corpus=${KEEP:-$found}/$target
    trap 'kill -TERM $fuzzer 2>/dev/null || true; wait $fuzzer || true; exit 143' TERM
    trap '' INT # from a terminal it comes to all; the first shell says when to end
    mkdir -p "$corpus" "fuzz/artifacts/$target"
    local words=("target/fuzz/$host/release/$target" "$corpus")
    [[ ! -d fuzz/corpus/$target ]] || words+=("fuzz/corpus/$target")
    [[ ! -e fuzz/dictionaries/$target ]] || words+=("-dict=fuzz/dictionaries/$target")
    words+=(-max_total_time="$2" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1
        -artifact_prefix="fuzz/artifacts/$target/")
    setpriv --pdeathsig TERM "${words[@]}" >"$log" 2>&1 &
    fuzzer=$!
    wait "$fuzzer" || status=$?
    if ((status)); then
        tail -n 40 "$log"
        say "$target: FAILED; the input is under fuzz/artifacts/$target; again: ${words[0]} FILE"
        return 1
    fi
    rmdir --ignore-fail-on-non-empty "fuzz/artifacts/$target" fuzz/artifacts 2>/dev/null || true
    local runs edges decoded
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    # A run of `decode` decodes an input at each length.
    decoded=$(sed -n 's/^decoded: //p' "$log" | tail -n 1)
    echo "$runs ${decoded:-0}" >"$found/$target.sum"
    say "$target: $runs runs${decoded:+ ($decoded decoded)} in $2 s, $edges edges, no failure"
}

main "$@"
