"""Sends packets that no one expects, as frames, from the device that the first argument names to its peer, whose MAC
address the second one gives. Prints how many. The kernel itself drops those whose IP header lies about more bytes than
there are; whoever counts, counts behind that.
"""

import itertools
import random
import socket
import struct
import sys

SOURCE4, TARGET4 = bytes([10, 99, 0, 1]), bytes([10, 99, 0, 2])
SOURCE6, TARGET6 = bytes.fromhex("fd99" + "00" * 13 + "01"), bytes.fromhex("fd99" + "00" * 13 + "02")
random.seed(4)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, fragment=0, options=b"", length=None, number=1):
    words = 5 + len(options) // 4
    length = words * 4 + len(payload) if length is None else length
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, length, number, fragment, 64, protocol, 0)
    header += SOURCE4 + TARGET4 + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(next_header, payload, length=None):
    length = len(payload) if length is None else length
    return struct.pack("!IHBB", 6 << 28, length, next_header, 64) + SOURCE6 + TARGET6 + payload


def udp(payload=b"", length=None, port=53):
    return struct.pack("!HHHH", 1000, port, 8 + len(payload) if length is None else length, 0) + payload


def tcp(payload=b"", words=5, flags=0x10, options=b""):
    return struct.pack("!HHIIBBHHH", 1000, 80, 1, 1, words << 4, flags, 512, 0, 0) + options + payload


def lying_transports():
    """Each with its protocol."""
    for length in (0, 1, 7, 8, 9, 15, 17, 999, 65535):
        yield 17, udp(b"question", length)
    for words in range(16):
        yield 6, tcp(b"payload", words)
    for flags in range(0, 256, 5):
        yield 6, tcp(b"", 5, flags)
    for kind, length in itertools.product((2, 3, 5, 8, 253), (0, 1, 2, 41, 255)):
        yield 6, tcp(b"x", 15, 0x18, bytes([kind, length]) + b"\0" * 38)
    yield 17, udp(b"")
    yield 6, tcp(b"")


def of_ipv4():
    for protocol, transport in lying_transports():
        yield ipv4(protocol, transport)
    for protocol in range(256):
        for payload in (b"", b"\xff" * 3, random.randbytes(40)):
            yield ipv4(protocol, payload)
    for cut in range(21):
        yield ipv4(6, tcp()[:cut])
        yield ipv4(17, udp(b"0123456789ab")[:cut])
        yield ipv4(1, b"\x08\0\0\0\0\1\0\1payload....."[:cut])
    for options in (b"\1" * 4, b"\1" * 40, b"\x94\4\0\0", b"\7\x27\4" + b"\0" * 37, b"\0" * 4):
        yield ipv4(17, udp(b"options"), options=options)
    datagram = udp(bytes(64))
    for offset in (0, 1, 2, 8, 4095, 8190, 8191):
        for more in (0, 0x2000):
            for size in (0, 1, 8, 64):
                yield ipv4(17, datagram[:size], fragment=more | offset, number=offset + size)
                yield ipv4(6, tcp()[:size], fragment=0x4000 | more | offset, number=100 + size)
    yield ipv4(17, udp(b"padded"), length=30)  # shorter than the frame
    for size in (8972, 9000, 65000, 65503, 65504, 65507):
        yield ipv4(17, udp(random.randbytes(size)))


def extension(kind, following):
    """The header of this kind, which names the following one."""
    pad = b"\1\4\0\0\0\0"
    return {
        0: bytes([following, 0]) + pad,
        60: bytes([following, 0]) + pad,
        43: bytes([following, 2, 2, random.choice((0, 1))]) + bytes(4) + TARGET6,
        44: bytes([following, 0]) + struct.pack("!HI", random.choice((0, 1, 8, 9)), 7),
        51: bytes([following, 4]) + bytes(22),
        135: bytes([following, 0]) + bytes(6),
        139: bytes([following, 4]) + bytes(38),
        140: bytes([following, 0]) + bytes(6),
    }[kind]


def of_ipv6():
    kinds = (0, 60, 43, 44, 51, 135, 139, 140)
    orders = itertools.chain.from_iterable(itertools.permutations(kinds, count) for count in (0, 1, 2, 3))
    for order in orders:
        for last, transport in ((17, udp(b"question")), (6, tcp(b"data")), (59, b""), (200, b"unknown")):
            payload, following = transport, last
            for kind in reversed(order):
                payload, following = extension(kind, following) + payload, kind
            yield ipv6(following, payload)
    for kind in kinds:
        for length in (1, 31, 255):  # beyond the packet's end
            yield ipv6(kind, bytes([17, length]) + bytes(6) + udp(b"behind"))
        for cut in range(8):
            yield ipv6(kind, extension(kind, 17)[:cut])
    for count in (8, 15, 16, 17, 100):
        yield ipv6(60, (bytes([60, 0]) + b"\1\4\0\0\0\0") * (count - 1) + extension(60, 17) + udp(b"deep"))
    for kind, left in itertools.product((0, 1, 2, 3, 4, 253), (0, 1, 2, 255)):
        yield ipv6(43, bytes([17, 2, kind, left]) + bytes(4) + TARGET6 + udp(b"routed"))
    for protocol, transport in lying_transports():
        yield ipv6(protocol, transport)
    for protocol in range(256):
        yield ipv6(protocol, random.randbytes(24))
        yield ipv6(protocol, b"")
    yield ipv6(17, udp(b"padded") + bytes(20), length=14)
    yield ipv6(0, bytes([17, 0, 0xC2, 4]) + struct.pack("!I", 70000) + udp(b"jumbo"), length=0)
    for size in (8952, 65000, 65487):
        yield ipv6(17, udp(random.randbytes(size)))


def main():
    device, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((device, 0))
    sent = 0
    for packet in itertools.chain(of_ipv4(), of_ipv6()):
        kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        frame = mac + b"\2\0\0\0\0\1" + kind + packet
        sent += sender.send(frame) == len(frame)
    print(sent)


main()
