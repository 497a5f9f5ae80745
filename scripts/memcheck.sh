#!/usr/bin/env bash
# memcheck.sh: unit tests under valgrind, which sees reads and writes that no test asserts on.
#
# Role: builds the unit tests of the engine and runs those of the parts with `unsafe` code, or next to it (the codec,
# the receive ring and its lent slots, the coalescer, queues, deferral, rewriting), one at a time under memcheck:
# memory read or written outside of what was allocated or after it was freed, decisions on bytes never written, memory
# lost. Random cases are fewer than in the unit part, as everything takes tens of times as long.
# Does not: find races (loom does, in the unit part), or see beyond the end of a mapping that the kernel made.
# Why valgrind: AddressSanitizer and Miri need a compiler that is not the stable one.
#
# Usage: scripts/memcheck.sh [FILTER...]    tests whose names have one of these; by default those above
#   PROPTEST_CASES, FANQ_SEEDS    how many random cases of each property and schedules, by default 8 and 20
# Exit status 1 if memcheck or a test finds something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

filters=(nfq:: wire:: sys:: verdicts:: queue deferral:: edits:: worker:: pipeline::)

main() {
    (($# == 0)) || filters=("$@")
    need valgrind:valgrind || skip "$why"
    local binary
    binary=$(cargo test --locked --package fanq --lib --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    [[ -x $binary ]] || fail "cargo named no program with the unit tests"
    export PROPTEST_CASES=${PROPTEST_CASES:-8} FANQ_SEEDS=${FANQ_SEEDS:-20}
    # Backtraces of expected panics would take minutes.
    export RUST_BACKTRACE=0
    local check=(valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite
        --show-leak-kinds=definite --num-callers=30 --fair-sched=yes)
    (cd engine && "${check[@]}" "$binary" --test-threads 1 "${filters[@]}") ||
        fail "see above; by hand: ${check[*]} $binary NAME"
}

main "$@"
