"""overload_samples.py: looks at one program's memory and queues until it ends, and sums up.

Role: prints one JSON object: resident memory (first, last, highest, and the slope of all after the first fifth), and
for how long packets still waited after the last that came. A queue that is empty loses nothing at a rate that it bears,
so that is the time back to no loss.
Does not: know what the load is. It ended when no packet had come to any queue of the program's namespace.

Usage: overload_samples.py PROGRAM ANCESTOR SECONDS    waits 20 s for a process of this name which the process
  ANCESTOR, or what that started, has started; then looks for so long at most
"""

import json
import os
import sys
import time

EVERY_S = 0.004
MEMORY_EVERY = 25  # looks


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def descends(pid, ancestor):
    while pid not in (0, ancestor):
        pid = parent(pid)
    return pid == ancestor


def process_called(name, ancestor, until):
    while time.monotonic() < until:
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                with open(f"/proc/{pid}/comm") as file:
                    if file.read().strip() == name and descends(pid, ancestor):
                        return pid
            except OSError:
                pass
        time.sleep(0.01)
    sys.exit(f"overload_samples.py: no process called {name} has come")


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("VmRSS:")), None)


def queues(table):
    """Packets that wait, and all that have come so far: ids given, and those without room, which got none."""
    table.seek(0)
    rows = [[int(word) for word in line.split()] for line in table]
    return sum(row[2] for row in rows), sum(row[5] + row[7] for row in rows), len(rows)


def slope(points):
    """KiB an hour, by least squares."""
    count = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread * 3600 if spread else 0.0


def main():
    name, ancestor, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    pid = process_called(name, ancestor, time.monotonic() + 20)
    until = time.monotonic() + limit
    came_last, waited_last, came_before, deepest, looks = None, None, 0, 0, 0
    memory = []
    try:
        with open(f"/proc/{pid}/net/netfilter/nfnetlink_queue") as table:
            while time.monotonic() < until:
                now = time.monotonic()
                waiting, came, bound = queues(table)
                if came > came_before:
                    came_before, came_last, waited_last = came, now, None
                    if waiting == 0:
                        waited_last = now
                elif came_last and waited_last is None and waiting == 0 and bound:
                    waited_last = now
                deepest = max(deepest, waiting)
                if looks % MEMORY_EVERY == 0 and came > 0:
                    kib = resident_kib(pid)
                    if kib is None:
                        break
                    memory.append((now, kib))
                looks += 1
                time.sleep(EVERY_S)
    except (FileNotFoundError, ProcessLookupError):
        pass
    if not memory or came_last is None:
        sys.exit("overload_samples.py: no packet came while it looked")
    sizes = [kib for _, kib in memory]
    settled = memory[len(memory) // 5 :]
    print(json.dumps({
        "rss_kib_first": sizes[0], "rss_kib_last": sizes[-1], "rss_kib_max": max(sizes),
        "rss_kib_per_hour": round(slope(settled)),
        "rss_settled_growth_kib": settled[-1][1] - settled[0][1],
        "waiting_max": deepest,
        "recovery_ms": round((waited_last - came_last) * 1e3, 1) if waited_last is not None else None,
        "resolution_ms": EVERY_S * 1e3,
    }))


main()
