# SPDX-License-Identifier: MIT OR Apache-2.0
"""requests: sends UDP through a queue that another program serves, and prints what arrives. Run by
tools/tests/accel/debian.rs beside programs of Debian's, with and without `fanq accel`: the output must be the same.

Invariant: what is printed hangs on what the other program does with the packets alone, never on timing: at most a
burst is on its way, each burst ends with a packet that every such program lets pass, and is waited for.

For opensnitch, whose threads answer in any order, and look up who has the socket, it prints who arrived of each burst.

Usage: requests.py dhcp|numbers|connections
"""

import socket
import struct
import sys

BURSTS = 20
# dhcpoptinj lets 20 packets wait, and the last of a burst is one more.
BURST = 18
LAST = 0xffffffff


def dhcp(number):
    """Requests of every kind that dhcpoptinj tells apart."""
    kind = 0 if number == LAST else number % 6
    # No shorter than the head of a request, as dhcpoptinj reads all of that.
    message = struct.pack(">BBBBI", 1, 1, 6, 0, number) + bytes(20) + bytes([2, 0, 0, 0, 0, 1]) + bytes(202)
    if kind == 5:
        return message + b"none of DHCP"
    message += bytes([99, 130, 83, 99])
    options = [bytes([53, 1, 1])]
    if kind == 1:
        options.append(bytes([12, 4]) + b"host")
    if kind == 2:
        options.append(bytes([82, 3]) + b"\1\1x")  # is there already: dropped
    if kind == 4:
        options.append(bytes([61, 200]) + bytes(200))
    end = b"" if kind == 3 else b"\xff"  # malformed: dropped
    return message + b"".join(options) + end


def numbers(number):
    return bytes(4) + struct.pack(">I", number) + bytes(number % 300)


def connections():
    """Sockets to two ports, of which opensnitch denies the second."""
    sinks = [listen(9000), listen(9001)]
    kept = []
    for burst in range(10):
        for number in range(40):
            source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            kept.append(source)
            source.sendto(struct.pack(">I", number), ("127.0.0.1", 9000 + (number % 4 == 3)))
        print(burst, sorted(sinks[0].recv(100)[3] for _ in range(30)))
    sinks[1].setblocking(False)
    try:
        print("denied and came", sinks[1].recv(100))
    except BlockingIOError:
        print("none that was denied came")
    print("done")


def listen(port):
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sink.bind(("127.0.0.1", port))
    sink.settimeout(10)
    return sink


def main():
    if sys.argv[1] == "connections":
        return connections()
    make, port = {"dhcp": (dhcp, 67), "numbers": (numbers, 9000)}[sys.argv[1]]
    sink = listen(port)
    source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for burst in range(BURSTS):
        # One, two, ... so that packets come alone and together.
        for number in range(burst * BURST, burst * BURST + 1 + burst * (BURST - 1) // (BURSTS - 1)):
            source.sendto(make(number), ("127.0.0.1", port))
        source.sendto(make(LAST), ("127.0.0.1", port))
        while (data := sink.recv(70000))[4:8] != struct.pack(">I", LAST):
            print(len(data), data[:8].hex(), data[236:].rstrip(b"\0").hex())
        print("burst", burst)
    print("done")


main()
