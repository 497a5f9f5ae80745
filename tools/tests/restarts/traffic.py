"""traffic.py: numbered datagrams over the loopback, and which of them arrive.

Usage: traffic.py PORT RATE    sends until standard input ends, 60 s at most; prints one JSON object
       traffic.py PORT         only receives, until standard input ends
"""

import json
import socket
import struct
import sys
import threading
import time

port, rate = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0
over = threading.Event()
seen, account = set(), {"sent": 0, "received": 0, "duplicates": 0, "worst_ms": 0.0}


def receive(receiver):
    while True:
        number, sent = struct.unpack("!Qd", receiver.recv(100))
        account["duplicates"] += number in seen
        seen.add(number)
        account["worst_ms"] = max(account["worst_ms"], (time.monotonic() - sent) * 1e3)


def send(sender):
    began = time.monotonic()
    while rate and not over.is_set() and time.monotonic() < began + 60:
        number = account["sent"]
        time.sleep(max(0, began + number / rate - time.monotonic()))
        sender.sendto(struct.pack("!Qd", number, time.monotonic()), ("127.0.0.1", port))
        account["sent"] += 1


def main():
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
    receiver.bind(("127.0.0.1", port))
    threading.Thread(target=receive, args=[receiver], daemon=True).start()
    sender = threading.Thread(target=send, args=[socket.socket(socket.AF_INET, socket.SOCK_DGRAM)])
    print("ready", flush=True)
    sender.start()
    sys.stdin.readline()
    over.set()
    sender.join()
    # What is on its way arrives, and what is sent twice, too.
    until = time.monotonic() + 5
    while time.monotonic() < until and len(seen) < account["sent"]:
        time.sleep(0.01)
    time.sleep(0.2)
    account["received"] = len(seen)
    print(json.dumps(account), flush=True)


main()
