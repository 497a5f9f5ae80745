"""soak_samples.py: what scripts/soak.sh looks at while it runs, and how it judges that.

Goal: memory that creeps, descriptors that leak and packets that nobody accounts for are seen.
Method: memory and descriptors are the kernel's word (/proc), the account is the program's own, asked for by its control
socket; whether it adds up is held against the rule's counter, the receiver's and the kernel's, all of one namespace.
Does not: make the load.

Usage: soak_samples.py take PID SENDER CSV               a line every 10 seconds until the sender ends
       soak_samples.py judge CSV WARM_UP_SECONDS FOLDER  the summary; exit status 1 if a limit is passed
       soak_samples.py --self-test                       whether the judge tells good from bad
The folder has `sent`, `received` and `account` as the programs printed them, and `at_rule`, a number.
"""

import contextlib
import csv
import io
import json
import os
import socket
import sys
import time
from pathlib import Path

EVERY_SECONDS = 10
SLOPE_MIB_PER_HOUR_MAX = 1.0
LOST = ("queue_dropped", "id_gaps", "uninspected", "shed", "flushed")
COLUMNS = ("seconds", "rss_kib", "descriptors", "packets", "answered", *LOST)


def take(process, sender, path):
    began = time.monotonic()
    with open(path, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for turn in range(1 << 30):
            # From the beginning on, so that late turns do not add up.
            while (left := began + turn * EVERY_SECONDS - time.monotonic()) > 0 and runs(sender):
                time.sleep(min(left, 0.2))
            if not runs(sender):
                return
            seconds = round(time.monotonic() - began, 1)
            # Before the question, which is a descriptor of its own.
            looked = (resident_kib(process), len(os.listdir(f"/proc/{process}/fd")))
            account = counted(ask(process)["totals"])
            lines.writerow((seconds, *looked, *(account[name] for name in COLUMNS[3:])))
            file.flush()


def runs(process):
    """Whether it is there and has not ended; its parent may not have waited for it yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def resident_kib(process):
    """To the page, where /proc/PID/status may be off by some."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise ValueError("smaps_rollup has no Rss")


def ask(process):
    """docs/CONTROL.md"""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(EVERY_SECONDS)
        control.connect(f"\0fanq-{process}")
        control.sendall(b'{"version":1,"request":"statistics"}\n')
        with control.makefile() as lines:
            return json.loads(lines.readline())["ok"]


def counted(totals):
    """The counters that the account is made of, from an object of `fanq run --summary json`."""
    kinds = ("accepted", "dropped", "repeated", "stopped", "requeued")
    account = {name: totals[name] for name in ("packets", "id_gaps", "uninspected", "shed", "flushed")}
    account["answered"] = sum(totals[kind] for kind in kinds)
    account["queue_dropped"] = (totals["kernel"] or {}).get("queue_dropped", 0)
    return account


def judge(path, warm_up, folder):
    with open(path, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    rows = [row for row in rows if row["seconds"] >= warm_up]
    read = {name: json.loads(Path(folder, name).read_text()) for name in ("sent", "received", "account", "at_rule")}
    buffer_full = sum(int(line.split()[5]) for line in Path("/proc/net/snmp").read_text().splitlines()
                      if line.startswith("Udp:") and line.split()[5].isdigit())
    faults = list(faults_of_samples(rows)) + list(faults_of_account(buffer_full, **read))
    for fault in faults:
        print(f"NOT HELD: {fault}")
    return 1 if faults else 0


def faults_of_samples(rows):
    if len(rows) < 3:
        yield f"{len(rows)} samples after the warm-up: three are the fewest that say anything"
        return
    slope = slope_of([row["seconds"] / 3600 for row in rows], [row["rss_kib"] / 1024 for row in rows])
    kib, descriptors = ([int(row[name]) for row in rows] for name in ("rss_kib", "descriptors"))
    minutes = (rows[-1]["seconds"] - rows[0]["seconds"]) / 60
    print(f"{len(rows)} samples in {minutes:.1f} minutes after the warm-up")
    print(f"resident memory: {min(kib)} to {max(kib)} KiB, slope {slope:+.3f} MiB/h "
          f"(limit {SLOPE_MIB_PER_HOUR_MAX})")
    print(f"descriptors: {min(descriptors)} to {max(descriptors)}")
    if slope >= SLOPE_MIB_PER_HOUR_MAX:
        yield f"resident memory grows by {slope:.3f} MiB an hour"
    if min(descriptors) != max(descriptors):
        yield "the number of descriptors changes"


def slope_of(xs, ys):
    """Of the line with the least squares."""
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return (sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys))
            / sum((x - x_mean) ** 2 for x in xs))


def faults_of_account(buffer_full, sent, received, account, at_rule):
    """Each packet at the rule has its verdict or its loss, and each that was let pass arrived or found the receiver's
    buffer full."""
    sent, arrived, doubled = sent["sent"], received["received"], received["duplicates"]
    totals = account["totals"]
    told = counted(totals)
    in_kernel = told["queue_dropped"] + told["id_gaps"] + told["shed"] + told["flushed"]
    unaccounted = abs(at_rule - told["packets"] - in_kernel) + abs(told["packets"] - told["answered"])
    # Of these three some pass, by the policies; the receiver says how many.
    may_pass = told["uninspected"] + told["shed"] + told["flushed"]
    missing = totals["accepted"] - arrived - buffer_full
    unaccounted += max(missing, 0) + max(-missing - may_pass, 0)
    losses = ", ".join(f"{name} {told[name]}" for name in LOST)
    print(f"packets: {sent} sent, {at_rule} at the rule, {told['answered']} answered, {arrived} arrived, "
          f"{doubled} twice; receiver's buffer full: {buffer_full}")
    print(f"not inspected: {losses}; unaccounted: {unaccounted}")
    if sent != at_rule:
        yield f"{sent - at_rule} of the packets sent did not come to the rule"
    if unaccounted:
        yield f"{unaccounted} packets are unaccounted"
    if doubled:
        yield f"{doubled} packets arrived twice"


def self_test():
    def samples(mib_per_hour, leak):
        return [{"seconds": 60 + 10 * n, "rss_kib": 9000 + n % 2 + mib_per_hour * 1024 * n / 360,
                 "descriptors": 20 + leak * (n // 60)} for n in range(180)]

    def account(**changed):
        totals = {"packets": 90, "accepted": 90, "dropped": 0, "repeated": 0, "stopped": 0, "requeued": 0,
                  "id_gaps": 7, "uninspected": 0, "shed": 0, "flushed": 0, "kernel": {"queue_dropped": 3}}
        told = {"sent": 100, "at_rule": 100, "received": 88, "duplicates": 0, "buffer_full": 2, **changed}
        return list(faults_of_account(
            told["buffer_full"], {"sent": told["sent"]},
            {"received": told["received"], "duplicates": told["duplicates"]}, {"totals": {**totals, **changed}},
            told["at_rule"]))

    with contextlib.redirect_stdout(io.StringIO()):
        for good in (samples(0.9, 0), samples(-5, 0)):
            assert not list(faults_of_samples(good))
        for bad in (samples(1.1, 0), samples(0, 1), samples(0, 0)[:2]):
            assert len(list(faults_of_samples(bad))) == 1, bad[:3]
        assert not account() and not account(uninspected=2, received=90)
        for wrong in ({"sent": 101}, {"id_gaps": 6}, {"received": 87}, {"received": 89}, {"duplicates": 1},
                      {"packets": 91}, {"dropped": 1}):
            assert account(**wrong), wrong
    print("the judge tells good from bad")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["take", process, sender, path]:
            try:
                take(int(process), int(sender), path)
            except (OSError, ValueError) as error:
                sys.exit(f"no sample of process {process}: {error}")
        case ["judge", path, warm_up, folder]:
            sys.exit(judge(path, float(warm_up), folder))
        case ["--self-test"]:
            self_test()
        case _:
            sys.exit(__doc__)
