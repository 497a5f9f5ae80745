"""descriptor_store.py: starts one service as systemd does, and keeps the descriptors that it sends.

Goal: a service's end, however sudden, leaves its sockets open, and its next start gets them back.
Method: listens where NOTIFY_SOCKET says; on `start` runs the words given with LISTEN_FDS and its kin.
Does not: restart anything by itself; whoever drives it says so.

Usage: descriptor_store.py SOCKET WORD...    reads `start` lines, speaks on standard error
  WATCHDOG_USEC=US    how long the service may be silent (200000); nothing is done about it
  FDSTORE=N           what the service is told of the store's size (1024); it keeps whatever comes
"""

import fcntl
import os
import socket
import sys
import threading

path, words = sys.argv[1], sys.argv[2:]
kept = {}


def say(text):
    os.write(2, (text + "\n").encode())


def listen(notify):
    while True:
        text, descriptors, _, _ = socket.recv_fds(notify, 4096, 8)
        state = dict(line.split("=", 1) for line in text.decode().splitlines())
        name = state.get("FDNAME")
        if "FDSTORE" in state:
            for descriptor in descriptors:
                if name in kept:
                    os.close(descriptor)
                else:
                    kept[name] = descriptor
        elif "FDSTOREREMOVE" in state:
            os.close(kept.pop(name))
        say("told " + " ".join(f"{key}={value}" for key, value in sorted(state.items())))


def attend(process, errors):
    """Passes on whole lines, then tells of the end."""
    for line in os.fdopen(errors, "rb"):
        os.write(2, line)
    say(f"ended {os.waitpid(process, 0)[1]}")


def start():
    names = sorted(kept)
    errors, theirs = os.pipe()
    process = os.fork()
    if process:
        os.close(theirs)
        say(f"started {process}")
        threading.Thread(target=attend, args=[process, errors]).start()
        return
    os.dup2(theirs, 2)
    # First out of the way, then to their places.
    high = [fcntl.fcntl(kept[name], fcntl.F_DUPFD, 100) for name in names]
    for place, descriptor in enumerate(high, 3):
        os.dup2(descriptor, place, inheritable=True)
        os.close(descriptor)
    os.environ["NOTIFY_SOCKET"] = path
    os.environ.setdefault("WATCHDOG_USEC", "200000")
    os.environ.setdefault("FDSTORE", "1024")
    if names:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(names))
        os.environ["LISTEN_FDNAMES"] = ":".join(names)
    os.execvp("setpriv", ["setpriv", "--pdeathsig=KILL", *words])


def main():
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(path)
    threading.Thread(target=listen, args=[notify], daemon=True).start()
    for _ in sys.stdin:
        start()


main()
