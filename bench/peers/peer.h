/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * peer.h: what the C programs here share: their options, a pinned thread for each queue, and the end.
 *
 * A program opens all its queues (open_queues), then calls run_servers, which says `ready:`, waits for
 * SIGTERM or SIGINT, lets every thread end its turn, and prints the account as one line of JSON.
 *
 * Invariant: a failure is one line on standard error and exit status 1; whatever was bound goes with the
 * process. Nothing here runs between a packet and its verdict.
 */
#ifndef PEER_H
#define PEER_H

#define _GNU_SOURCE
#include <errno.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    QUEUES_MAX = 1024,
    /* What the kernel copies at most of a packet (65,531 bytes), and the attributes before it. No multiple
     * of a page, so that the beginnings of neighbouring buffers do not share a set of the cache. */
    DATAGRAM_BYTES = 65536 + 1024,
};

struct options {
    unsigned first, last;
    unsigned maxlen;
    int rcvbuf;
    unsigned cpus[QUEUES_MAX];
    unsigned cpu_count; /* 0: queue i on CPU i */
};

/* One queue and its thread, which alone touches it between start and end. */
struct server {
    _Alignas(128) unsigned queue;
    int socket;
    void *handle; /* a library's */
    uint64_t packets, recv_calls, send_calls;
    pthread_t thread;
};

/* Serves one queue and returns soon after `stopping` is set: a blocked receive ends with EINTR. */
typedef void serve_function(struct server *server);

static const char *program_name = "peer";
static atomic_bool stopping;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* --- options --- */

/* A decimal number up to `max`, which `end` must follow. */
static unsigned long read_number(const char *text, unsigned long max, char end, const char *what) {
    char *after;
    errno = 0;
    unsigned long number = strtoul(text, &after, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0 || number > max || *after != end)
        fail("%s `%s`: a number from 0 to %lu is needed here", what, text, max);
    return number;
}

static void read_queues(const char *text, struct options *options) {
    const char *dash = strpbrk(text, "-:");
    options->first = (unsigned)read_number(text, 65535, dash ? *dash : '\0', "the queues");
    options->last = dash ? (unsigned)read_number(dash + 1, 65535, '\0', "the queues") : options->first;
    if (options->last < options->first || options->last - options->first >= QUEUES_MAX)
        fail("the queues `%s`: write FIRST-LAST, at most %d of them, such as 0-3", text, QUEUES_MAX);
}

static void read_cpus(const char *text, struct options *options) {
    for (options->cpu_count = 0; options->cpu_count < QUEUES_MAX;) {
        const char *comma = strchr(text, ',');
        char end = comma ? ',' : '\0';
        options->cpus[options->cpu_count++] = (unsigned)read_number(text, CPU_SETSIZE - 1, end, "-c");
        if (!comma)
            return;
        text = comma + 1;
    }
    fail("-c: more than %d CPUs", QUEUES_MAX);
}

/* Reads the options and leaves the other words, `words` of them, at argv[optind]. */
static struct options read_options(int argc, char **argv, int words, const char *usage) {
    struct options options = {.maxlen = 65535, .rcvbuf = 64 << 20};
    const char *slash = strrchr(argv[0], '/');
    program_name = slash ? slash + 1 : argv[0];
    for (int option; (option = getopt(argc, argv, "b:c:hl:")) != -1;) {
        switch (option) {
        case 'b': options.rcvbuf = (int)read_number(optarg, 1 << 30, '\0', "-b"); break;
        case 'c': read_cpus(optarg, &options); break;
        case 'l': options.maxlen = (unsigned)read_number(optarg, UINT32_MAX, '\0', "-l"); break;
        case 'h': printf("%s", usage); exit(0);
        default: fprintf(stderr, "%s", usage); exit(1);
        }
    }
    if (argc - optind != words) {
        fprintf(stderr, "%s", usage);
        exit(1);
    }
    return options;
}

/* The options' part of a usage message. */
#define USAGE_OPTIONS                                                                        \
    "  FIRST-LAST     queues, each served by a thread of its own\n"                          \
    "  -c CPU,CPU...  the CPUs of the queues, in order [default: CPU i for the i-th]\n"      \
    "  -l PACKETS     the most that wait in one queue [default: 65535]\n"                    \
    "  -b BYTES       receive buffer of each queue's socket [default: 67108864]\n"           \
    "On SIGTERM or SIGINT it prints packets, recv_calls, send_calls and cpu_us as JSON.\n"

/* --- queues --- */

/* Why a queue could not be had. The kernel has the same EPERM for two reasons. */
__attribute__((noreturn)) static void fail_binding(unsigned queue, int error) {
    if (error == EPERM)
        fail("queue %u: another program has it, or CAP_NET_ADMIN is missing (%s)", queue, strerror(error));
    fail("queue %u: cannot bind it: %s", queue, strerror(error));
}

/* With this a full buffer costs the packets that did not fit and no others (netlink(7)). */
static void ignore_overruns(int netlink, unsigned queue) {
    int on = 1;
    if (setsockopt(netlink, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) != 0)
        fail("queue %u: NETLINK_NO_ENOBUFS: %s", queue, strerror(errno));
}

/* --- the servers' life --- */

static void on_wake(int signal) { (void)signal; }

struct start {
    struct server *server;
    serve_function *serve;
};

static void *server_thread(void *argument) {
    struct start *start = argument;
    start->serve(start->server);
    free(start);
    return NULL;
}

/* The thread is born on its CPU, so that what it allocates and touches first lies there. */
static void start_server(struct server *server, unsigned cpu, serve_function *serve) {
    struct start *start = malloc(sizeof *start);
    if (!start)
        fail("no memory");
    *start = (struct start){server, serve};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof cpus, &cpus);
    int error = pthread_create(&server->thread, &attributes, server_thread, start);
    if (error)
        fail("queue %u: no thread on CPU %u (offline, or not allowed?): %s; give other CPUs with -c",
             server->queue, cpu, strerror(error));
    pthread_attr_destroy(&attributes);
}

/* A signal may come just before the receive that it is to end, so it is sent until the thread has ended. */
static void end_server(struct server *server) {
    while (pthread_tryjoin_np(server->thread, NULL) == EBUSY) {
        pthread_kill(server->thread, SIGUSR1);
        usleep(1000);
    }
}

/* CPU time of this process so far, all threads, user and system. */
static uint64_t cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Opens every queue, before any thread serves one. */
static struct server *open_queues(const struct options *options,
                                  void (*open_queue)(struct server *, const struct options *)) {
    unsigned count = options->last - options->first + 1;
    struct server *servers = aligned_alloc(_Alignof(struct server), count * sizeof *servers);
    if (!servers)
        fail("no memory");
    memset(servers, 0, count * sizeof *servers);
    for (unsigned i = 0; i < count; i++) {
        servers[i].queue = options->first + i;
        open_queue(&servers[i], options);
    }
    return servers;
}

/* Serves until SIGTERM or SIGINT, then prints the account; CPU time counts from `ready:` on. */
static int run_servers(struct server *servers, const struct options *options, serve_function *serve) {
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ending, NULL); /* of the threads, too: only sigwait takes them */
    struct sigaction wake = {.sa_handler = on_wake}; /* no SA_RESTART: it is to interrupt */
    sigaction(SIGUSR1, &wake, NULL);

    unsigned count = options->last - options->first + 1;
    unsigned online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t cpu_us_at_start = cpu_us();
    for (unsigned i = 0; i < count; i++) {
        unsigned cpu = options->cpu_count ? options->cpus[i % options->cpu_count] : i % online;
        start_server(&servers[i], cpu, serve);
    }
    fprintf(stderr, "ready: %s: queues %u-%u\n", program_name, options->first, options->last);

    int signal;
    sigwait(&ending, &signal);
    atomic_store(&stopping, true);
    uint64_t packets = 0, recv_calls = 0, send_calls = 0;
    for (unsigned i = 0; i < count; i++) {
        end_server(&servers[i]);
        packets += servers[i].packets;
        recv_calls += servers[i].recv_calls;
        send_calls += servers[i].send_calls;
    }
    printf("{\"packets\":%llu,\"recv_calls\":%llu,\"send_calls\":%llu,\"cpu_us\":%llu}\n", (unsigned long long)packets,
           (unsigned long long)recv_calls, (unsigned long long)send_calls,
           (unsigned long long)(cpu_us() - cpu_us_at_start));
    if (fflush(stdout) != 0)
        fail("cannot print the account: %s", strerror(errno));
    return 0;
}

#endif
