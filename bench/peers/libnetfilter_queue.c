/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libnetfilter_queue: accepts every packet of some NFQUEUE queues the way that the library of that name
 * shows in its own examples: a blocking receive, nfq_handle_packet, and a verdict from the callback. A
 * thread and a library handle for each queue.
 *
 * This file is ours; the program built from it links a GPL library, and is for measuring only.
 *
 * Does not: join receives or verdicts (nfq_set_verdict_batch exists; few programs call it).
 *
 * Build: cc -O2 -pthread -o libnetfilter_queue libnetfilter_queue.c -lnetfilter_queue -lnfnetlink
 */
#include "peer.h"

#include <arpa/inet.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>

static int on_packet(struct nfq_q_handle *queue, struct nfgenmsg *message, struct nfq_data *packet, void *argument) {
    struct server *server = argument;
    (void)message;
    struct nfqnl_msg_packet_hdr *header = nfq_get_msg_packet_hdr(packet);
    if (!header)
        return 0;
    if (nfq_set_verdict(queue, ntohl(header->packet_id), NF_ACCEPT, 0, NULL) < 0)
        fail("queue %u: nfq_set_verdict: %s", server->queue, strerror(errno));
    server->send_calls++;
    server->packets++;
    return 0;
}

/* This API binds first and sets the mode after; what comes in between the kernel drops. */
static void open_queue(struct server *server, const struct options *options) {
    struct nfq_handle *handle = nfq_open();
    if (!handle)
        fail("nfq_open: %s", strerror(errno));
    server->handle = handle;
    server->socket = nfq_fd(handle);
    unsigned bytes = (unsigned)options->rcvbuf;
    if (nfnl_rcvbufsiz(nfq_nfnlh(handle), bytes) < bytes)
        fprintf(stderr, "%s: warning: queue %u: net.core.rmem_max bounds the receive buffer\n", program_name,
                server->queue);
    ignore_overruns(server->socket, server->queue);
    errno = 0;
    struct nfq_q_handle *queue = nfq_create_queue(handle, (uint16_t)server->queue, on_packet, server);
    if (!queue)
        fail_binding(server->queue, errno);
    if (nfq_set_mode(queue, NFQNL_COPY_PACKET, 65535) < 0)
        fail("queue %u: nfq_set_mode: %s", server->queue, strerror(errno));
    if (nfq_set_queue_maxlen(queue, options->maxlen) < 0)
        fail("queue %u: nfq_set_queue_maxlen: %s", server->queue, strerror(errno));
}

static void serve(struct server *server) {
    static _Thread_local char datagram[DATAGRAM_BYTES];
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        ssize_t bytes = recv(server->socket, datagram, sizeof datagram, 0);
        if (bytes < 0) {
            if (errno != EINTR)
                fail("queue %u: recv: %s", server->queue, strerror(errno));
            continue;
        }
        server->recv_calls++;
        /* Its result is that of the callback, or that a message was no packet: of no use to anyone. */
        nfq_handle_packet(server->handle, datagram, (int)bytes);
    }
}

int main(int argc, char **argv) {
    struct options options = read_options(argc, argv, 1,
        "usage: libnetfilter_queue [OPTIONS] FIRST-LAST\n" USAGE_OPTIONS);
    read_queues(argv[optind], &options);
    return run_servers(open_queues(&options, open_queue), &options, serve);
}
