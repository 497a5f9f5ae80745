# SPDX-License-Identifier: MIT OR Apache-2.0
"""netfilterqueue: accepts every packet of some NFQUEUE queues by means of the Python package NetfilterQueue, the
way that its documentation shows: bind, run, and a callback which accepts. A process for each queue, as threads
would share one interpreter.

Invariant: a failure is one line on standard error and exit status 1, and no process stays behind, not even when the
first of them is killed.

Does not: copy whole packets, as the package asks the kernel for at most 4,016 bytes of each, whatever it is told.

Usage: python3 -I netfilterqueue.py -h    (-I, or this file is taken for the package, which has the same name)
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys

from netfilterqueue import NetfilterQueue

SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5
PR_SET_PDEATHSIG = 1
ENDING = (signal.SIGTERM, signal.SIGINT)


def main():
    options = read_options()
    # Blocked until each process is ready for them, so that none is lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, signal.SIGCHLD))
    first, last = options.queues
    servers = []
    for index, queue in enumerate(range(first, last + 1)):
        cpus = options.cpus or range(os.cpu_count())
        servers.append(Server(queue, cpus[index % len(cpus)], options))
    for server in servers:
        if server.read_line() != "ready":
            fail(None, servers)  # it has said why
    print(f"ready: netfilterqueue: queues {first}-{last}", file=sys.stderr, flush=True)

    # A process that ends before it is told to has failed; one that was merely stopped has not ended.
    while signal.sigwait((*ENDING, signal.SIGCHLD)) == signal.SIGCHLD:
        if os.waitpid(-1, os.WNOHANG)[0]:
            fail("a process ended by itself", servers)
    for server in servers:
        os.kill(server.pid, signal.SIGTERM)
    accounts = [server.read_line() for server in servers]
    if not all(accounts):
        fail("a process ended without its account", servers)
    total = {"packets": 0, "recv_calls": 0, "send_calls": 0, "cpu_us": 0}
    for account in map(json.loads, accounts):
        # The package makes one receive call and one send call for each packet.
        for key, value in zip(total, (account["packets"],) * 3 + (account["cpu_us"],)):
            total[key] += value
    print(json.dumps(total, separators=(",", ":")), flush=True)


class Server:
    """The process of one queue, seen from the first process."""

    def __init__(self, queue, cpu, options):
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            status = 1
            try:
                serve(queue, cpu, options, writer)
                status = 0
            except Exception as error:
                print(f"netfilterqueue: queue {queue}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        os.close(writer)
        self.words = os.fdopen(reader)

    def read_line(self):
        """Empty once the process has ended."""
        return self.words.readline().strip()


class Ended(BaseException):
    """SIGTERM, raised in the receive call."""


def serve(queue, cpu, options, writer):
    """Serves one queue until SIGTERM; says `ready`, and at the end its account."""
    # Ends with its parent, whatever ends that.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise OSError(f"no process on CPU {cpu} (offline, or not allowed?): {error}; give other CPUs with -c") from None
    packets = 0

    def accept(packet):
        nonlocal packets
        packet.accept()
        packets += 1

    def end(*_):
        raise Ended

    handle = NetfilterQueue()
    with socket.socket(fileno=os.dup(handle.get_fd())) as same_socket:
        same_socket.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
    try:
        handle.bind(queue, accept, max_len=options.maxlen, range=65535, sock_len=options.rcvbuf)
    except OSError as error:
        raise OSError(f"{error} (another program has it, or CAP_NET_ADMIN is missing)") from None
    cpu_us_at_start = cpu_us()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first process passes on the end
    signal.signal(signal.SIGTERM, end)
    os.write(writer, b"ready\n")
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        handle.run()
    except Ended:
        pass
    os.write(writer, json.dumps({"packets": packets, "cpu_us": cpu_us() - cpu_us_at_start}).encode() + b"\n")


def cpu_us():
    """CPU time of this process so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return round((usage.ru_utime + usage.ru_stime) * 1e6)


def fail(why, servers):
    """Ends all; what was bound goes with them."""
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
    if why:
        print(f"netfilterqueue: {why}", file=sys.stderr)
    sys.exit(1)


def read_options():
    parser = argparse.ArgumentParser(
        prog="netfilterqueue",
        description="Accepts every packet of some NFQUEUE queues. On SIGTERM or SIGINT it prints packets, "
        "recv_calls, send_calls and cpu_us as JSON.")
    parser.add_argument("queues", metavar="FIRST-LAST", type=queue_range,
                        help="queues, each served by a process of its own")
    parser.add_argument("-c", dest="cpus", metavar="CPU,CPU...", type=cpu_list,
                        help="the CPUs of the queues, in order [default: CPU i for the i-th]")
    parser.add_argument("-l", dest="maxlen", metavar="PACKETS", type=int, default=65535,
                        help="the most that wait in one queue [default: 65535]")
    parser.add_argument("-b", dest="rcvbuf", metavar="BYTES", type=int, default=64 << 20,
                        help="receive buffer of each queue's socket [default: 67108864]")
    try:
        return parser.parse_args()
    except SystemExit as ended:
        sys.exit(1 if ended.code else 0)  # argparse would say 2


def queue_range(text):
    first, _, last = text.replace(":", "-").partition("-")
    first, last = int(first), int(last or first)
    if not 0 <= first <= last <= 65535 or last - first >= 1024:
        raise argparse.ArgumentTypeError(f"`{text}`: write FIRST-LAST, at most 1024 of them, such as 0-3")
    return first, last


def cpu_list(text):
    return [int(cpu) for cpu in text.split(",")]


if __name__ == "__main__":
    main()
