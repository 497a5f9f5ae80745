/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * netlink.h: NFQUEUE by hand, for the conformance program: a socket with a queue, messages, and packets to put into it.
 *
 * Packets are datagrams to 127.0.0.1:9000, numbered in their first four bytes; the test's rules put them into queue 0
 * (port 9000) or 1 (port 9001). What comes out of the queue arrives at the sinks.
 *
 * Invariant: what is asked of the kernel is waited for, so that what is printed does not hang on timing. A failure is one
 * line on standard error and status 1.
 */
#ifndef NETLINK_H
#define NETLINK_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { QUEUES = 2, PORT = 9000, ROOM = 70000 };

static int sinks[QUEUES], source;

__attribute__((noreturn)) static void fail(const char *what) {
    fprintf(stderr, "conformance: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long check(long result, const char *what) {
    if (result < 0)
        fail(what);
    return result;
}

static struct sockaddr_in local(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void open_sinks(void) {
    source = (int)check(socket(AF_INET, SOCK_DGRAM, 0), "socket");
    for (int queue = 0; queue < QUEUES; queue++) {
        struct sockaddr_in address = local(PORT + queue);
        struct timeval patience = {.tv_sec = 5};
        sinks[queue] = (int)check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
        check(bind(sinks[queue], (struct sockaddr *)&address, sizeof address), "bind");
        check(setsockopt(sinks[queue], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), "SO_RCVTIMEO");
    }
}

/* --- messages --- */

struct message {
    struct nlmsghdr header;
    struct nfgenmsg general;
    char attributes[512];
};

static void begin(struct message *message, int kind, int flags, int queue, unsigned sequence) {
    memset(message, 0, sizeof *message);
    message->header.nlmsg_len = NLMSG_LENGTH(sizeof message->general);
    message->header.nlmsg_type = (NFNL_SUBSYS_QUEUE << 8) | (uint16_t)kind;
    message->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    message->header.nlmsg_seq = sequence;
    message->general.res_id = htons((uint16_t)queue);
}

static void add(struct message *message, int kind, const void *value, size_t length) {
    struct nlattr *attribute = (struct nlattr *)((char *)message + NLMSG_ALIGN(message->header.nlmsg_len));
    attribute->nla_type = (uint16_t)kind;
    attribute->nla_len = (uint16_t)(NLA_HDRLEN + length);
    memcpy((char *)attribute + NLA_HDRLEN, value, length);
    message->header.nlmsg_len = NLMSG_ALIGN(message->header.nlmsg_len) + NLMSG_ALIGN(attribute->nla_len);
}

static struct message verdict_message(int kind, int queue, uint32_t id, int verdict, int flags, unsigned sequence) {
    struct message message;
    struct nfqnl_msg_verdict_hdr head = {.verdict = htonl((uint32_t)verdict), .id = htonl(id)};
    begin(&message, kind, flags, queue, sequence);
    add(&message, NFQA_VERDICT_HDR, &head, sizeof head);
    return message;
}

static void answer(int netlink, int queue, uint32_t id, int verdict) {
    struct message message = verdict_message(NFQNL_MSG_VERDICT, queue, id, verdict, 0, id);
    check(send(netlink, &message, message.header.nlmsg_len, 0), "verdict");
}

/* --- what came --- */

struct packet {
    int queue;
    uint32_t id, number; /* the packet's own, from its payload */
};

static const void *attribute(const char *bytes, int wanted, int *length) {
    int left = (int)((const struct nlmsghdr *)bytes)->nlmsg_len;
    for (int at = NLMSG_LENGTH(sizeof(struct nfgenmsg)); at + NLA_HDRLEN <= left;) {
        const struct nlattr *found = (const struct nlattr *)(bytes + at);
        *length = found->nla_len - NLA_HDRLEN;
        if (*length < 0)
            return NULL; /* cut */
        if (found->nla_type == wanted)
            return bytes + at + NLA_HDRLEN;
        at += NLMSG_ALIGN(found->nla_len);
    }
    return NULL;
}

/* Whether this is a packet; else it prints what it is. */
static bool read_packet(const char *bytes, struct packet *packet) {
    const struct nlmsghdr *header = (const struct nlmsghdr *)bytes;
    if (header->nlmsg_type == NLMSG_ERROR) {
        const struct nlmsgerr *error = NLMSG_DATA(header);
        printf("  reply: errno %d, to type %#x, sequence %u\n", -error->error, error->msg.nlmsg_type,
               error->msg.nlmsg_seq);
        return false;
    }
    int length;
    const struct nfqnl_msg_packet_hdr *head = attribute(bytes, NFQA_PACKET_HDR, &length);
    packet->queue = ntohs(((const struct nfgenmsg *)NLMSG_DATA(header))->res_id);
    packet->id = head ? ntohl(head->packet_id) : 0;
    packet->number = 0;
    const char *payload = attribute(bytes, NFQA_PAYLOAD, &length);
    if (payload && length >= 32) {
        memcpy(&packet->number, payload + 28, sizeof packet->number);
        packet->number = ntohl(packet->number);
    }
    return true;
}

static bool receive(int netlink, struct packet *packet) {
    static _Thread_local char room[ROOM];
    check(recv(netlink, room, sizeof room, 0), "recv");
    return read_packet(room, packet);
}

/* --- a queue --- */

/* The last id that the kernel gave in a queue: column 8 of its row; -1 if it is not bound. */
static long last_id(int queue) {
    FILE *table = fopen("/proc/net/netfilter/nfnetlink_queue", "r");
    long found = -1;
    if (!table)
        fail("nfnetlink_queue");
    for (long row[8]; fscanf(table, "%ld %ld %ld %ld %ld %ld %ld %ld %*d", &row[0], &row[1], &row[2], &row[3],
                             &row[4], &row[5], &row[6], &row[7]) == 8;)
        if (row[0] == queue)
            found = row[7];
    fclose(table);
    return found;
}

static void bind_queue(int netlink, int queue) {
    struct message message;
    struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND};
    struct nfqnl_msg_config_params parameters = {.copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET};
    struct packet none;
    begin(&message, NFQNL_MSG_CONFIG, NLM_F_ACK, queue, 7);
    add(&message, NFQA_CFG_CMD, &command, sizeof command);
    add(&message, NFQA_CFG_PARAMS, &parameters, sizeof parameters);
    check(send(netlink, &message, message.header.nlmsg_len, 0), "binding");
    while (receive(netlink, &none))
        printf("  a packet came before the acknowledgement\n");
}

static void unbind_queue(int netlink, int queue) {
    struct message message;
    struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_UNBIND};
    begin(&message, NFQNL_MSG_CONFIG, 0, queue, 8);
    add(&message, NFQA_CFG_CMD, &command, sizeof command);
    check(send(netlink, &message, message.header.nlmsg_len, 0), "unbinding");
}

static int open_queue(int queue) {
    int netlink = (int)check(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), "socket");
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    check(bind(netlink, (struct sockaddr *)&address, sizeof address), "bind");
    bind_queue(netlink, queue);
    return netlink;
}

/* Puts packets with these numbers into a queue, and waits until the kernel has them all. */
static void put(int queue, uint32_t first, uint32_t count) {
    struct sockaddr_in address = local(PORT + queue);
    long wanted = last_id(queue) + (long)count;
    for (uint32_t number = first; number < first + count; number++) {
        uint32_t wire = htonl(number);
        check(sendto(source, &wire, sizeof wire, 0, (struct sockaddr *)&address, sizeof address), "sendto");
    }
    while (last_id(queue) < wanted)
        usleep(100);
}

/* Prints the packets that come out, in order; `count` of them are expected, and no more. */
static void delivered(int queue, int count) {
    printf("  delivered %d:", queue);
    for (int index = 0; index < count; index++) {
        uint32_t wire;
        if (recv(sinks[queue], &wire, sizeof wire, 0) < 0) {
            printf(" MISSING\n");
            return;
        }
        printf(" %u", ntohl(wire));
    }
    char more;
    usleep(2000);
    printf(recv(sinks[queue], &more, 1, MSG_DONTWAIT) >= 0 ? " AND MORE\n" : "\n");
}

#endif
