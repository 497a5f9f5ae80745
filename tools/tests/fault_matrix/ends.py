"""ends.py: both ends of numbered datagrams, of which one may be in another namespace.

Usage: ends.py PORT    reads these lines and answers each with one
  send COUNT HOST      sends so many at once          sent TOTAL
  stream RATE HOST     sends from now on              streaming
  halt                 no longer                      sent TOTAL
  count EXPECTED       waits for so many, 10 s at most, and a moment for any too many
                                                      arrived TOTAL DOUBLED
"""

import os
import socket
import struct
import sys
import threading
import time

port = int(sys.argv[1])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
seen, doubled, sent = set(), 0, 0
over = threading.Event()


def receive(receiver):
    global doubled
    while True:
        packet = receiver.recv(100)
        doubled += packet in seen
        seen.add(packet)


def send(host):
    global sent
    # By whom, and which: of two senders no two are the same.
    sender.sendto(struct.pack("!QQ", os.getpid(), sent), (host, port))
    sent += 1


def stream(rate, host):
    began, first = time.monotonic(), sent
    while not over.is_set() and time.monotonic() < began + 60:
        time.sleep(max(0, began + (sent - first) / rate - time.monotonic()))
        send(host)


def count(expected):
    until = time.monotonic() + 10
    while len(seen) < expected and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.2)
    return f"arrived {len(seen)} {doubled}"


def main():
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    receiver.bind(("", port))
    threading.Thread(target=receive, args=[receiver], daemon=True).start()
    streaming = None
    print("ready", flush=True)
    for line in sys.stdin:
        order, *words = line.split()
        if order == "send":
            for _ in range(int(words[0])):
                send(words[1])
            answer = f"sent {sent}"
        elif order == "stream":
            streaming = threading.Thread(target=stream, args=[float(words[0]), words[1]], daemon=True)
            streaming.start()
            answer = "streaming"
        elif order == "halt":
            over.set()
            streaming.join()
            answer = f"sent {sent}"
        else:
            answer = count(int(words[0]))
        print(answer, flush=True)


main()
