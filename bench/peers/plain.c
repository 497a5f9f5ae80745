/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * plain: accepts every packet of some NFQUEUE queues with as little code as it takes.
 *
 *   plain batch  FIRST-LAST   recvmmsg of up to 64, all answered by one batch verdict up to the last id
 *   plain multi  FIRST-LAST   recvmmsg of up to 64, a verdict message for each, in one send
 *   plain single FIRST-LAST   one receive, one send: the way of most programs
 *
 * Raw netlink, no library. `batch` is close to the least that a program in user space can cost; `single`
 * is what is left of a usual program without its library.
 *
 * Does not: look at packets, answer anything but accept, or keep counts of losses (the kernel has them).
 *
 * Build: cc -O2 -pthread -o plain plain.c    (Linux's headers, no others)
 */
#include "peer.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <stddef.h>

enum { BATCH = 64 };

/* Takes a queue and sets it up in one message, so that it is never bound but without a copy mode, in which
 * state the kernel drops what comes. Fail-open and GSO are off in a new queue. */
struct bind_message {
    struct nlmsghdr header;
    struct nfgenmsg queue;
    struct nlattr command_attribute;
    struct nfqnl_msg_config_cmd command;
    struct nlattr params_attribute;
    struct nfqnl_msg_config_params params; /* 5 bytes, packed */
    uint8_t padding[3];
    struct nlattr maxlen_attribute;
    uint32_t maxlen;
};

/* Answers one packet, or (as NFQNL_MSG_VERDICT_BATCH) every packet up to its id. */
struct verdict_message {
    struct nlmsghdr header;
    struct nfgenmsg queue;
    struct nlattr attribute;
    struct nfqnl_msg_verdict_hdr verdict;
};

_Static_assert(sizeof(struct bind_message) == 48, "as the kernel reads it");
_Static_assert(offsetof(struct bind_message, maxlen_attribute) % NLA_ALIGNTO == 0, "attributes are aligned");
_Static_assert(sizeof(struct verdict_message) == 32, "as the kernel reads it");

/* --- messages --- */

static struct nlmsghdr header(int type, int flags, size_t bytes) {
    return (struct nlmsghdr){.nlmsg_len = (uint32_t)bytes,
                             .nlmsg_type = (uint16_t)(NFNL_SUBSYS_QUEUE << 8 | type),
                             .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)};
}

static struct nlattr attribute(int type, size_t bytes) {
    return (struct nlattr){.nla_len = (uint16_t)(NLA_HDRLEN + bytes), .nla_type = (uint16_t)type};
}

static struct nfgenmsg to_queue(unsigned queue) {
    return (struct nfgenmsg){.version = NFNETLINK_V0, .res_id = htons((uint16_t)queue)};
}

/* An accept, still without a packet id. */
static struct verdict_message accept_message(int type, unsigned queue) {
    return (struct verdict_message){.header = header(type, 0, sizeof(struct verdict_message)),
                                    .queue = to_queue(queue),
                                    .attribute = attribute(NFQA_VERDICT_HDR, sizeof(struct nfqnl_msg_verdict_hdr)),
                                    .verdict = {.verdict = htonl(NF_ACCEPT)}};
}

/* The first attribute with this type, or none. */
static const void *find_attribute(const char *message, size_t bytes, int type, size_t length) {
    size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct nfgenmsg));
    while (at + NLA_HDRLEN <= bytes) {
        const struct nlattr *found = (const void *)(message + at);
        if (found->nla_len < NLA_HDRLEN || at + found->nla_len > bytes)
            return NULL;
        if ((found->nla_type & NLA_TYPE_MASK) == type && found->nla_len >= NLA_HDRLEN + length)
            return message + at + NLA_HDRLEN;
        at += NLA_ALIGN(found->nla_len);
    }
    return NULL;
}

/* Whether this datagram is a packet, and its id in network order. An answer of the kernel is none; one that
 * refuses a verdict for another reason than that the packet is gone ends the program. */
static bool read_packet(const char *datagram, size_t bytes, unsigned queue, uint32_t *id) {
    const struct nlmsghdr *message = (const void *)datagram;
    if (bytes < NLMSG_HDRLEN)
        return false;
    if (message->nlmsg_type == NLMSG_ERROR && bytes >= NLMSG_LENGTH(sizeof(struct nlmsgerr))) {
        int error = -((const struct nlmsgerr *)NLMSG_DATA(message))->error;
        if (error != 0 && error != ENOENT)
            fail("queue %u: the kernel refused a verdict: %s", queue, strerror(error));
        return false;
    }
    if (message->nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
        return false;
    const struct nfqnl_msg_packet_hdr *packet = find_attribute(datagram, bytes, NFQA_PACKET_HDR, sizeof *packet);
    if (packet)
        *id = packet->packet_id; /* packed, so the compiler knows that it may be unaligned */
    return packet != NULL;
}

/* --- a queue --- */

static void send_all(struct server *server, const void *messages, size_t bytes) {
    while (send(server->socket, messages, bytes, 0) < 0)
        if (errno != EINTR)
            fail("queue %u: send: %s", server->queue, strerror(errno));
    server->send_calls++;
}

/* As much as asked for; without the right to that, as much as net.core.rmem_max lets it have. */
static void set_receive_buffer(const struct server *server, int bytes) {
    if (setsockopt(server->socket, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) == 0)
        return;
    if (errno != EPERM || setsockopt(server->socket, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) != 0)
        fail("queue %u: a receive buffer of %d bytes: %s", server->queue, bytes, strerror(errno));
    fprintf(stderr, "%s: warning: queue %u: SO_RCVBUFFORCE is refused here; net.core.rmem_max bounds the buffer\n",
            program_name, server->queue);
}

/* Waits for the kernel's answer to the bind message. A packet may come before it, and is accepted. */
static void await_bound(struct server *server) {
    static char datagram[DATAGRAM_BYTES];
    for (;;) {
        ssize_t bytes = recv(server->socket, datagram, sizeof datagram, 0);
        if (bytes < 0)
            fail_binding(server->queue, errno);
        server->recv_calls++;
        const struct nlmsghdr *message = (const void *)datagram;
        uint32_t id;
        if ((size_t)bytes >= NLMSG_LENGTH(sizeof(struct nlmsgerr)) && message->nlmsg_type == NLMSG_ERROR) {
            int error = -((const struct nlmsgerr *)NLMSG_DATA(message))->error;
            if (error)
                fail_binding(server->queue, error);
            return;
        }
        if (read_packet(datagram, (size_t)bytes, server->queue, &id)) {
            struct verdict_message verdict = accept_message(NFQNL_MSG_VERDICT, server->queue);
            verdict.verdict.id = id;
            send_all(server, &verdict, sizeof verdict);
            server->packets++;
        }
    }
}

static void open_queue(struct server *server, const struct options *options) {
    server->socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (server->socket < 0)
        fail("no netlink socket: %s", strerror(errno));
    struct sockaddr_nl any = {.nl_family = AF_NETLINK};
    if (bind(server->socket, (struct sockaddr *)&any, sizeof any) != 0)
        fail("binding a netlink socket: %s", strerror(errno));
    set_receive_buffer(server, options->rcvbuf);
    ignore_overruns(server->socket, server->queue);
    struct bind_message message = {
        .header = header(NFQNL_MSG_CONFIG, NLM_F_ACK, sizeof message),
        .queue = to_queue(server->queue),
        .command_attribute = attribute(NFQA_CFG_CMD, sizeof message.command),
        .command = {.command = NFQNL_CFG_CMD_BIND, .pf = htons(AF_UNSPEC)},
        .params_attribute = attribute(NFQA_CFG_PARAMS, sizeof message.params),
        .params = {.copy_range = htonl(65535), .copy_mode = NFQNL_COPY_PACKET},
        .maxlen_attribute = attribute(NFQA_CFG_QUEUE_MAXLEN, sizeof message.maxlen),
        .maxlen = htonl(options->maxlen),
    };
    send_all(server, &message, sizeof message);
    await_bound(server);
    /* The account is of serving alone. */
    server->recv_calls = server->packets;
    server->send_calls = server->packets;
}

/* --- the three loops --- */

static void *receive_buffers(size_t count) {
    void *buffers = aligned_alloc(64, count * DATAGRAM_BYTES);
    if (!buffers)
        fail("no memory for %zu datagrams", count);
    return buffers;
}

static void serve_single(struct server *server) {
    char *datagram = receive_buffers(1);
    struct verdict_message verdict = accept_message(NFQNL_MSG_VERDICT, server->queue);
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        ssize_t bytes = recv(server->socket, datagram, DATAGRAM_BYTES, 0);
        if (bytes < 0) {
            if (errno != EINTR)
                fail("queue %u: recv: %s", server->queue, strerror(errno));
            continue;
        }
        server->recv_calls++;
        uint32_t id;
        if (!read_packet(datagram, (size_t)bytes, server->queue, &id))
            continue;
        verdict.verdict.id = id;
        send_all(server, &verdict, sizeof verdict);
        server->packets++;
    }
    free(datagram);
}

/* Receives up to BATCH datagrams, sleeping only if none waits, and puts the packets' ids into `ids`. */
static unsigned receive_ids(struct server *server, struct mmsghdr *headers, uint32_t *ids) {
    int received = recvmmsg(server->socket, headers, BATCH, MSG_WAITFORONE, NULL);
    if (received < 0) {
        if (errno != EINTR)
            fail("queue %u: recvmmsg: %s", server->queue, strerror(errno));
        return 0;
    }
    server->recv_calls++;
    unsigned packets = 0;
    for (int i = 0; i < received; i++) {
        const char *datagram = headers[i].msg_hdr.msg_iov->iov_base;
        packets += read_packet(datagram, headers[i].msg_len, server->queue, &ids[packets]);
    }
    return packets;
}

static void serve_many(struct server *server, bool in_one_verdict) {
    char *buffers = receive_buffers(BATCH);
    struct iovec vectors[BATCH];
    struct mmsghdr headers[BATCH] = {0};
    struct verdict_message verdicts[BATCH];
    for (size_t i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){buffers + i * DATAGRAM_BYTES, DATAGRAM_BYTES};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
        verdicts[i] = accept_message(in_one_verdict ? NFQNL_MSG_VERDICT_BATCH : NFQNL_MSG_VERDICT, server->queue);
    }
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        uint32_t ids[BATCH];
        unsigned packets = receive_ids(server, headers, ids);
        if (packets == 0)
            continue;
        if (in_one_verdict) {
            /* The kernel numbers packets in the order in which it sends them. */
            verdicts[0].verdict.id = ids[packets - 1];
            send_all(server, verdicts, sizeof verdicts[0]);
        } else {
            for (unsigned i = 0; i < packets; i++)
                verdicts[i].verdict.id = ids[i];
            send_all(server, verdicts, packets * sizeof verdicts[0]);
        }
        server->packets += packets;
    }
    free(buffers);
}

static void serve_batch(struct server *server) { serve_many(server, true); }

static void serve_multi(struct server *server) { serve_many(server, false); }

int main(int argc, char **argv) {
    struct options options = read_options(argc, argv, 2,
        "usage: plain [OPTIONS] batch|multi|single FIRST-LAST\n"
        "  batch          recvmmsg, and one batch verdict for all that came\n"
        "  multi          recvmmsg, and a verdict for each, in one send\n"
        "  single         one receive and one send for each\n" USAGE_OPTIONS);
    const char *mode = argv[optind];
    serve_function *serve = strcmp(mode, "batch") == 0    ? serve_batch
                            : strcmp(mode, "multi") == 0  ? serve_multi
                            : strcmp(mode, "single") == 0 ? serve_single
                                                          : NULL;
    if (!serve)
        fail("no mode `%s`: there are batch, multi and single", mode);
    read_queues(argv[optind + 1], &options);
    return run_servers(open_queues(&options, open_queue), &options, serve);
}
