/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * serve.c: a program that serves queue 0 until it is ended: every fourth packet is given `stop`, all others `accept`.
 *
 * Invariant: it ends with whoever has started it.
 */
#include "netlink.h"

#include <sys/prctl.h>

int main(void) {
    check(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
    int netlink = open_queue(0);
    fprintf(stderr, "ready: queue 0\n");
    for (struct packet packet; receive(netlink, &packet);)
        answer(netlink, 0, packet.id, packet.id % 4 ? NF_ACCEPT : NF_STOP);
    return 1;
}
