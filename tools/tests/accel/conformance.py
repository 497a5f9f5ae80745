# SPDX-License-Identifier: MIT OR Apache-2.0
"""conformance: does with a queue what Python programs do, and prints what it sees. Run by tools/tests/accel/main.rs
with and without `fanq accel`: the output must be the same.

Invariant: what is printed hangs on the order of calls alone, never on timing. As conformance.c, of which this is the
smaller sister: sockets with and without time-outs, poll, epoll by level and edge, select, an event loop, random orders.

Usage: conformance.py SEED
"""

import asyncio
import random
import select
import socket
import struct
import sys

NETLINK_NETFILTER = 12
SUBSYSTEM = 3 << 8
PACKET, VERDICT, CONFIG, VERDICT_BATCH = 0, 1, 2, 3
DROP, ACCEPT = 0, 1
PORT = 9000


def message(kind, attributes, flags=0, queue=0, sequence=0):
    body = b"".join(struct.pack("=HH", 4 + len(value), name) + value + bytes(-len(value) % 4)
                    for name, value in attributes)
    return struct.pack("=IHHIIBBH", 20 + len(body), SUBSYSTEM | kind, 1 | flags, sequence, 0, 0, 0,
                       socket.htons(queue)) + body


def verdict(packet, what, mark=None):
    attributes = [(2, struct.pack(">II", what, packet.id))]
    if mark is not None:
        attributes.append((3, struct.pack(">I", mark)))
    return message(VERDICT, attributes)


class Packet:
    def __init__(self, data):
        assert struct.unpack_from("=H", data, 4)[0] == SUBSYSTEM | PACKET, data
        self.id = struct.unpack_from(">I", data, 24)[0]
        self.number = struct.unpack(">I", data[-4:])[0]


class Queue:
    """A socket with queue 0, and packets to put into it."""

    def __enter__(self):
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.netlink.bind((0, 0))
        bind = message(CONFIG, [(1, struct.pack(">BBH", 1, 0, 0)), (2, struct.pack(">IB", 0xffff, 2))], flags=4)
        self.netlink.send(bind)
        print("  bound:", struct.unpack_from("=i", self.netlink.recv(1000), 16)[0])
        self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sink.bind(("127.0.0.1", PORT))
        self.sink.settimeout(5)
        self.source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.put_so_far = 0
        return self

    def __exit__(self, *_):
        for each in (self.netlink, self.sink, self.source):
            each.close()

    def put(self, count):
        for _ in range(count):
            self.source.sendto(struct.pack(">I", self.put_so_far), ("127.0.0.1", PORT))
            self.put_so_far += 1
        while True:
            with open("/proc/net/netfilter/nfnetlink_queue") as table:
                if any(int(row.split()[7]) == self.put_so_far for row in table if row.split()[0] == "0"):
                    return

    def receive(self):
        return Packet(self.netlink.recv(70000))

    def delivered(self, count):
        numbers = [struct.unpack(">I", self.sink.recv(100))[0] for _ in range(count)]
        self.sink.settimeout(0.002)
        try:
            numbers.append(f"and more: {self.sink.recv(100)}")
        except TimeoutError:
            pass
        self.sink.settimeout(5)
        print("  delivered:", *numbers)


def any_order(seed):
    chance = random.Random(seed)
    with Queue() as queue:
        queue.put(100)
        out, received, accepted = [], 0, 0
        while received < 100 or out:
            if received < 100 and (not out or chance.random() < 0.6):
                out.append(queue.receive())
                received += 1
                continue
            packet = out.pop(0 if chance.random() < 0.8 else chance.randrange(len(out)))
            what = ACCEPT if chance.random() < 0.7 else DROP
            accepted += what == ACCEPT
            queue.netlink.send(verdict(packet, what, mark=chance.choice([None, None, 7])))
        queue.delivered(accepted)


def timeouts(_seed):
    with Queue() as queue:
        queue.netlink.settimeout(0.02)
        queue.put(3)
        for _ in range(3):
            queue.netlink.send(verdict(queue.receive(), ACCEPT))
        try:
            queue.receive()
        except TimeoutError:
            print("  nothing after the time-out")
        queue.netlink.setblocking(False)
        try:
            queue.receive()
        except BlockingIOError:
            print("  nothing at once")
        queue.delivered(3)


def readiness(_seed):
    with Queue() as queue:
        poll, level, edge = select.poll(), select.epoll(), select.epoll()
        poll.register(queue.netlink, select.POLLIN)
        level.register(queue.netlink, select.EPOLLIN)
        edge.register(queue.netlink, select.EPOLLIN | select.EPOLLET)
        queue.put(4)
        print("  edge:", len(edge.poll(0)), len(edge.poll(0)))
        for left in range(4, -1, -1):
            ready = select.select([queue.netlink], [queue.netlink], [], 0)
            events = [[event for _, event in found] for found in (poll.poll(0), level.poll(0))]
            print(f"  {left} left:", len(ready[0]), len(ready[1]), *events)
            if left:
                packet = queue.receive()
                queue.netlink.send(verdict(packet, ACCEPT))
        queue.delivered(4)


def event_loop(_seed):
    async def serve(queue):
        done = asyncio.get_running_loop().create_future()

        def readable():
            packet = queue.receive()
            queue.netlink.send(verdict(packet, ACCEPT))
            if packet.number == 199:
                done.set_result(packet.id)

        queue.netlink.setblocking(False)
        asyncio.get_running_loop().add_reader(queue.netlink, readable)
        queue.put(200)
        print("  last:", await done)

    with Queue() as queue:
        asyncio.run(serve(queue))
        queue.delivered(200)


def drained_by_edge(_seed):
    with Queue() as queue:
        queue.netlink.setblocking(False)
        edge = select.epoll()
        edge.register(queue.netlink, select.EPOLLIN | select.EPOLLET)
        answered = 0
        for _ in range(3):
            queue.put(70)
            print("  events:", len(edge.poll(5)))
            while True:
                try:
                    packet = queue.receive()
                except BlockingIOError:
                    break
                queue.netlink.send(verdict(packet, ACCEPT))
                answered += 1
            print("  answered:", answered)
        queue.delivered(210)


def batch(_seed):
    with Queue() as queue:
        queue.put(30)
        last = [queue.receive() for _ in range(20)][-1]
        queue.netlink.send(message(VERDICT_BATCH, [(2, struct.pack(">II", ACCEPT, last.id))]))
        queue.delivered(20)
        for _ in range(10):
            queue.netlink.send(verdict(queue.receive(), ACCEPT))
        queue.delivered(10)


for case in (any_order, timeouts, readiness, event_loop, drained_by_edge, batch):
    print(case.__name__)
    case(int(sys.argv[1]))
print("done")
