#!/usr/bin/env python3
"""aa.py: whether `fanq-bench cpu` and `compare` tell what differs from what does not, on this machine, now.

Goal: two runs of the same fanq differ by less than 5 % in the median of CPU time per packet, `compare` calls them the
same in 19 of 20 tries, and finds a slowdown of 10 % made on purpose in 19 of 20.
Method: one run more than tries, each with fanq, the same fanq as a control, and one that works some nanoseconds more
on each packet, in turn. Each run is compared with the next: fanq with fanq, and fanq with the slower one under fanq's
name. All by --control, as a host's other guests move the cost of a packet by more than what is looked for. How many
nanoseconds make 10 % is found first.
Does not: build anything, nor judge the machine; disturbed trials are void, and tried again, by the bench itself.

Usage: scripts/aa.py [TRIES] [ROUNDS]    20 tries of 80 rounds take about 12 minutes where the host is quiet; root only.
FANQ_BENCH names the program, else target/release/fanq-bench. Exit status 1 if a promise is not met.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Rests take up to 300 s of it.
RUN_SECONDS_MAX = 450
SLOWDOWN = 0.10
FIRST_WORK_NS = 100
CALIBRATION_RUNS = 4


def main():
    tries, rounds = (int(word) for word in (sys.argv[1:] + ["20", "80"][len(sys.argv) - 1:])[:2])
    bench = os.environ.get("FANQ_BENCH", "target/release/fanq-bench")
    if not Path(bench).is_file():
        sys.exit(f"aa.py: there is no {bench}; build it: cargo build --release, or name it by FANQ_BENCH")
    with tempfile.TemporaryDirectory(prefix="fanq-aa-") as folder:
        lab = Runs(bench, Path(folder))
        work_ns = calibrate(lab, rounds)
        print(f"a slowdown of {SLOWDOWN:.0%} takes --work-ns {work_ns}")
        print(f"{'run':>3} {'us/packet':>10} {'to control':>11} {'change':>8} {'A/A':>9} {'slower':>8} {'A/slower':>9}")
        runs, rows = [], []
        for number in range(tries + 1):
            runs.append(lab.measure(number, rounds, work_ns))
            rows.append(row(lab, runs))
            print(rows[-1].line(number), flush=True)
    sys.exit(verdict(rows, tries))


class Runs:
    """Runs of the bench, their results in a folder that is gone in the end."""

    def __init__(self, bench, folder):
        self.bench, self.folder = bench, folder

    def measure(self, number, rounds, work_ns):
        out = self.folder / f"{number}.json"
        targets = ["fanq", "control=fanq", f"slower=fanq:--work-ns {work_ns}"]
        words = [word for target in targets for word in ("--target", target)]
        command = [self.bench, "cpu", "--rounds", str(rounds), "--out", str(out), *words]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=RUN_SECONDS_MAX + 3 * rounds)
        if ended.returncode != 0:
            sys.exit(f"aa.py: a run failed:\n{ended.stdout[-2000:]}")
        return json.loads(out.read_text())

    def compare(self, a, b):
        """The verdict on two documents, each reduced to fanq and its control."""
        paths = [self.folder / "a.json", self.folder / "b.json"]
        for path, document in zip(paths, (a, b)):
            path.write_text(json.dumps(document))
        command = [self.bench, "compare", "--json", "--control", "control", *map(str, paths)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
        return json.loads(ended.stdout)["verdict"]


class Row:
    """What one run shows, beside the one before."""

    def __init__(self, us, ratio, slower, change, same, found):
        self.us, self.ratio, self.slower, self.change = us, ratio, slower, change
        self.same, self.found = same, found

    def line(self, number):
        change = "" if self.change is None else f"{self.change:+.1%}"
        return (f"{number:>3} {self.us:>10.3f} {self.ratio:>11.3f} {change:>8} {self.same or '':>9} "
                f"{self.slower - 1:>+8.1%} {self.found or '':>9}")


def row(lab, runs):
    now = runs[-1]
    ratio = statistics.median(ratios(now, "fanq", "control"))
    slower = statistics.median(ratios(now, "slower", "fanq"))
    us = statistics.median(costs(now, "fanq").values())
    if len(runs) == 1:
        return Row(us, ratio, slower, None, None, None)
    before = statistics.median(ratios(runs[-2], "fanq", "control"))
    alone = [only(run, "fanq") for run in runs[-2:]]
    same = lab.compare(*alone)
    found = lab.compare(alone[0], only(now, "slower"))
    return Row(us, ratio, slower, ratio / before - 1, same, found)


def only(document, target):
    """The document with this target, under fanq's name, and the control alone."""
    names = {target: "fanq", "control": "control"}
    reduced = {**document, "findings": {key: [] for key in document["findings"]}}
    trials = [{**trial, "target": names[trial["target"]]} for trial in document["trials"] if trial["target"] in names]
    targets = [{**one, "name": names[one["name"]]} for one in document["targets"] if one["name"] in names]
    return {**reduced, "trials": trials, "targets": targets}


def costs(document, target):
    """CPU time per packet by round, of the trials that count."""
    trials = (trial for trial in document["trials"] if trial["target"] == target and not trial["void"])
    return {trial["round"]: trial["cpu"]["us"] / trial["cpu"]["answered"] for trial in trials}


def ratios(document, target, other):
    own, others = costs(document, target), costs(document, other)
    return [own[number] / others[number] for number in own if number in others]


def calibrate(lab, rounds):
    """How many nanoseconds a packet are the slowdown looked for: from some runs, as one may be 2 % off."""
    runs = [lab.measure(f"first-{number}", rounds, FIRST_WORK_NS) for number in range(CALIBRATION_RUNS)]
    slower = statistics.median(ratio for run in runs for ratio in ratios(run, "slower", "fanq"))
    return round(FIRST_WORK_NS * min(max(SLOWDOWN / max(slower - 1, 0.01), 0.3), 3))


def verdict(rows, tries):
    changes = [abs(one.change) for one in rows if one.change is not None]
    least = math.ceil(tries * 19 / 20)
    within = sum(change < 0.05 for change in changes)
    same = sum(one.same == "same" for one in rows)
    found = sum(one.found == "worse" for one in rows)
    slower = statistics.median(one.slower for one in rows) - 1
    print(f"two runs differ by less than 5 %: {within} of {tries}, median {statistics.median(changes):.1%}, "
          f"most {max(changes):.1%}")
    print(f"`compare` says same: {same} of {tries}; wanted {least}")
    print(f"`compare` finds the slowdown ({slower:+.1%}): {found} of {tries}; wanted {least}")
    return 0 if within >= least and same >= least and found >= least else 1


if __name__ == "__main__":
    main()
