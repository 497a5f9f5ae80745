/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * conformance: does with a queue what programs do, and prints what it sees. Run by tools/tests/accel/main.rs with and
 * without `fanq accel`: the output must be the same.
 *
 * Invariant: what is printed hangs on the order of calls alone, never on timing, so two runs of one kernel are equal.
 *
 * Build: cc -O2 -pthread -o conformance conformance.c      (with -D_FORTIFY_SOURCE=2 too: other entry points)
 */
#include "netlink.h"

#include <sched.h>

static void loop(void) {
    int netlink = open_queue(0);
    put(0, 0, 150);
    for (int index = 0; index < 150; index++) {
        struct packet packet;
        receive(netlink, &packet);
        if (packet.id != (uint32_t)index + 1 || packet.number != (uint32_t)index)
            printf("  id %u, number %u\n", packet.id, packet.number);
        answer(netlink, 0, packet.id, packet.number % 7 == 3 ? NF_DROP : NF_ACCEPT);
    }
    delivered(0, 129);
    close(netlink);
}

/* Receives some, answers some of what it has in any order, and so on. */
static void any_order(void) {
    for (unsigned seed = 1; seed <= 20; seed++) {
        int netlink = open_queue(0);
        struct packet out[64];
        int outs = 0, received = 0, accepted = 0;
        srandom(seed);
        put(0, 0, 64);
        while (received < 64 || outs > 0) {
            if (received < 64 && (outs == 0 || random() % 3)) {
                receive(netlink, &out[outs++]);
                received++;
                continue;
            }
            int place = random() % 4 ? 0 : (int)(random() % outs);
            int verdict = random() % 3 ? NF_ACCEPT : NF_DROP;
            accepted += verdict == NF_ACCEPT;
            answer(netlink, 0, out[place].id, verdict);
            memmove(&out[place], &out[place + 1], sizeof out[0] * (size_t)(--outs - place));
        }
        delivered(0, accepted);
        close(netlink);
    }
}

static void deferred(void) {
    int netlink = open_queue(0);
    struct packet packets[20];
    put(0, 0, 20);
    for (int index = 0; index < 20; index++) {
        receive(netlink, &packets[index]);
        if (index != 5)
            answer(netlink, 0, packets[index].id, NF_ACCEPT);
    }
    delivered(0, 19);
    answer(netlink, 0, packets[5].id, NF_ACCEPT);
    delivered(0, 1);
    close(netlink);
}

/* A verdict takes effect though the program goes on to something else. */
static void busy(void) {
    int netlink = open_queue(0);
    struct packet packet;
    put(0, 0, 10);
    receive(netlink, &packet);
    answer(netlink, 0, packet.id, NF_ACCEPT);
    delivered(0, 1);
    receive(netlink, &packet);
    answer(netlink, 0, packet.id, NF_ACCEPT);
    delivered(0, 1);
    close(netlink);
}

static void show(const char *what, long result) {
    if (result < 0)
        printf("  %s: %s\n", what, strerror(errno));
    else
        printf("  %s: %ld\n", what, result);
}

static void looking(void) {
    int netlink = open_queue(0);
    char room[ROOM] = {0};
    struct packet packet;
    put(0, 0, 12);
    for (int index = 0; index < 2; index++) {
        show("peek, nothing taken", recv(netlink, room, 0, MSG_PEEK | MSG_TRUNC));
        show("peek, cut", recv(netlink, room, 40, MSG_PEEK));
        read_packet(room, &packet);
        printf("  id %u\n", packet.id);
        receive(netlink, &packet);
        printf("  id %u\n", packet.id);
    }
    show("cut", recv(netlink, room, 40, 0));
    show("cut, its length asked for", recv(netlink, room, 40, MSG_TRUNC));
    show("no room", recv(netlink, room, 0, 0));
    show("read of nothing", read(netlink, room, 0));
    show("read", read(netlink, room, sizeof room));
    show("read, cut", read(netlink, room, 50));
    struct iovec parts[3] = {{room, 10}, {room + 10, 20}, {room + 30, 1000}};
    show("readv", readv(netlink, parts, 3));
    read_packet(room, &packet);
    printf("  id %u, number %u\n", packet.id, packet.number);
    struct sockaddr_nl from;
    socklen_t length = sizeof from;
    show("recvfrom", recvfrom(netlink, room, sizeof room, 0, (struct sockaddr *)&from, &length));
    printf("  from port %u, family %d, %u bytes\n", from.nl_pid, from.nl_family, length);
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = parts, .msg_iovlen = 2};
    show("recvmsg, cut", recvmsg(netlink, &message, MSG_CMSG_CLOEXEC));
    printf("  flags %#x, name %u, control %zu\n", (unsigned)message.msg_flags, message.msg_namelen,
           (size_t)message.msg_controllen);
    receive(netlink, &packet);
    printf("  id %u\n", packet.id);
    struct message batch = verdict_message(NFQNL_MSG_VERDICT_BATCH, 0, packet.id, NF_ACCEPT, 0, 1);
    check(send(netlink, &batch, batch.header.nlmsg_len, 0), "batch");
    delivered(0, 12 - (int)(12 - packet.id));
    close(netlink);
}

static void on_alarm(int signal) { (void)signal; }

static void waiting(void) {
    int netlink = open_queue(0);
    char room[ROOM];
    struct packet packet;
    put(0, 0, 3);
    for (int index = 0; index < 3; index++) {
        receive(netlink, &packet);
        answer(netlink, 0, packet.id, NF_ACCEPT);
    }
    show("nothing there, MSG_DONTWAIT", recv(netlink, room, sizeof room, MSG_DONTWAIT));
    struct timeval limit = {.tv_usec = 20000};
    check(setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
    show("nothing there, SO_RCVTIMEO", recv(netlink, room, sizeof room, 0));
    limit = (struct timeval){0};
    check(setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000}, NULL);
    show("a signal comes", recv(netlink, room, sizeof room, 0));
    struct pollfd entry = {.fd = netlink, .events = POLLIN};
    show("a signal comes in poll", poll(&entry, 1, -1));
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    check(fcntl(netlink, F_SETFL, O_NONBLOCK), "O_NONBLOCK");
    show("nothing there, O_NONBLOCK", recv(netlink, room, sizeof room, 0));
    put(0, 3, 2);
    for (int index = 0; index < 3; index++) {
        if (recv(netlink, room, sizeof room, 0) < 0)
            show("drained", -1);
        else if (read_packet(room, &packet))
            answer(netlink, 0, packet.id, NF_ACCEPT);
    }
    delivered(0, 5);
    close(netlink);
}

static int polled(int netlink, short events) {
    struct pollfd entries[2] = {{.fd = netlink, .events = events}, {.fd = sinks[1], .events = POLLIN}};
    int ready = poll(entries, 2, 0);
    return ready * 1000 + entries[0].revents;
}

static int selected(int netlink) {
    fd_set set;
    struct timeval now = {0};
    FD_ZERO(&set);
    FD_SET(netlink, &set);
    FD_SET(sinks[1], &set);
    int ready = select(FD_SETSIZE, &set, NULL, NULL, &now);
    return ready * 10 + FD_ISSET(netlink, &set);
}

static int waited(int epoll) {
    struct epoll_event event = {0};
    int ready = epoll_wait(epoll, &event, 1, 0);
    return ready > 0 ? ready * 100 + (int)(event.events & 0xff) + (int)event.data.u32 * 1000 : ready;
}

static int watch(int netlink, unsigned events, unsigned data) {
    int epoll = (int)check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    struct epoll_event event = {.events = events, .data.u32 = data};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, netlink, &event), "epoll_ctl");
    return epoll;
}

static void readiness(void) {
    int netlink = open_queue(0);
    int level = watch(netlink, EPOLLIN, 1), edge = watch(netlink, EPOLLIN | EPOLLET, 2);
    int once = watch(netlink, EPOLLIN | EPOLLONESHOT, 3), out = watch(netlink, EPOLLOUT, 4);
    struct packet packet;
    printf("  empty: %d %d %d %d %d\n", polled(netlink, POLLIN), selected(netlink), waited(level), waited(edge),
           waited(once));
    put(0, 0, 5);
    printf("  edge, once: %d %d, again: %d %d\n", waited(edge), waited(once), waited(edge), waited(once));
    for (int index = 0; index < 5; index++) {
        receive(netlink, &packet);
        answer(netlink, 0, packet.id, NF_ACCEPT);
        printf("  %d left: %d %d %d %d, once %d, out %d\n", 4 - index, polled(netlink, POLLIN),
               polled(netlink, POLLOUT), selected(netlink), waited(level), waited(once), waited(out));
    }
    printf("  edge, drained: %d\n", waited(edge));
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = 5};
    check(epoll_ctl(once, EPOLL_CTL_MOD, netlink, &event), "epoll_ctl");
    put(0, 5, 3);
    receive(netlink, &packet);
    printf("  armed again: %d, then %d; edge %d\n", waited(once), waited(once), waited(edge));
    check(epoll_ctl(level, EPOLL_CTL_DEL, netlink, NULL), "epoll_ctl");
    printf("  no longer watched: %d\n", waited(level));
    struct pollfd nested = {.fd = edge, .events = POLLIN};
    put(0, 8, 1);
    printf("  an epoll in a poll: %d\n", poll(&nested, 1, 0));
    close(netlink);
    printf("  closed: %d %d\n", waited(edge), waited(out));
    close(level), close(edge), close(once), close(out);
    delivered(0, 5);
}

static void replies(void) {
    int netlink = open_queue(0);
    struct packet packets[6], other;
    put(0, 0, 6);
    for (int index = 0; index < 3; index++)
        receive(netlink, &packets[index]);
    answer(netlink, 0, packets[0].id, NF_ACCEPT);
    struct message asked = verdict_message(NFQNL_MSG_VERDICT, 0, packets[1].id, NF_ACCEPT, NLM_F_ACK, 4711);
    check(send(netlink, &asked, asked.header.nlmsg_len, 0), "verdict");
    struct message wrong = verdict_message(NFQNL_MSG_VERDICT, 0, 99999, NF_ACCEPT, 0, 815);
    check(send(netlink, &wrong, wrong.header.nlmsg_len, 0), "verdict");
    answer(netlink, 0, packets[0].id, NF_ACCEPT); /* once more */
    answer(netlink, 0, packets[2].id, NF_ACCEPT);
    for (int index = 3; index < 9; index++)
        if (receive(netlink, &other))
            answer(netlink, 0, other.id, NF_ACCEPT);
    answer(netlink, 0, 12345, NF_ACCEPT); /* alone: what the kernel says comes at once */
    receive(netlink, &other);
    delivered(0, 6);
    close(netlink);
}

/* Every way to send, several verdicts in one send, marks, and new bytes. */
static void ways_to_send(void) {
    int netlink = open_queue(0);
    struct packet packet;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    put(0, 0, 16);
    for (int index = 0; index < 8; index++) {
        receive(netlink, &packet);
        struct message message = verdict_message(NFQNL_MSG_VERDICT, 0, packet.id, NF_ACCEPT, 0, 0);
        size_t length = message.header.nlmsg_len;
        struct iovec parts[2] = {{&message, 20}, {(char *)&message + 20, length - 20}};
        struct mmsghdr one = {.msg_hdr = {.msg_iov = parts, .msg_iovlen = 2}};
        uint32_t mark = htonl(5);
        switch (index) {
        case 0: show("send", send(netlink, &message, length, 0)); break;
        case 1: show("write", write(netlink, &message, length)); break;
        case 2: show("writev", writev(netlink, parts, 2)); break;
        case 3: show("sendto", sendto(netlink, &message, length, 0, (struct sockaddr *)&kernel, sizeof kernel)); break;
        case 4: show("sendmsg", sendmsg(netlink, &one.msg_hdr, 0)); break;
        case 5: show("sendmmsg", sendmmsg(netlink, &one, 1, 0)); printf("  of %u bytes\n", one.msg_len); break;
        case 6:
            add(&message, NFQA_MARK, &mark, sizeof mark);
            show("marked", send(netlink, &message, message.header.nlmsg_len, 0));
            break;
        default: show("cut short", send(netlink, &message, length - 4, 0)); answer(netlink, 0, packet.id, NF_ACCEPT);
        }
    }
    char two[2][sizeof(struct message)];
    size_t length = 0;
    for (int index = 0; index < 2; index++) {
        receive(netlink, &packet);
        struct message message = verdict_message(NFQNL_MSG_VERDICT, 0, packet.id, NF_ACCEPT, 0, 0);
        memcpy((char *)two + length, &message, message.header.nlmsg_len);
        length += message.header.nlmsg_len;
    }
    show("two in one", send(netlink, two, length, 0));
    receive(netlink, &packet); /* number 10 */
    char bytes[32] = {0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0x7c, 0xcb, 127, 0, 0, 1, 127, 0, 0, 1,
                      0x30, 0x39, 0x23, 0x28, 0, 12, 0, 0, 0, 0, 3, 0xe7 - 256};
    struct message message = verdict_message(NFQNL_MSG_VERDICT, 0, packet.id, NF_ACCEPT, 0, 0);
    add(&message, NFQA_PAYLOAD, bytes, sizeof bytes);
    show("rewritten", send(netlink, &message, message.header.nlmsg_len, 0));
    for (int index = 11; index < 16; index++) {
        receive(netlink, &packet);
        answer(netlink, 0, packet.id, NF_ACCEPT);
    }
    delivered(0, 16);
    close(netlink);
}

static void copies(void) {
    int netlink = open_queue(0), other = dup(netlink), third = fcntl(netlink, F_DUPFD_CLOEXEC, 100);
    struct packet packet;
    put(0, 0, 12);
    int descriptors[3] = {netlink, other, third};
    for (int index = 0; index < 12; index++) {
        if (index == 6)
            close(netlink), descriptors[0] = third;
        if (index == 9)
            check(dup2(third, other), "dup2");
        receive(descriptors[index % 3], &packet);
        answer(descriptors[(index + 1) % 3], 0, packet.id, NF_ACCEPT);
    }
    delivered(0, 12);
    close(other);
    printf("  still bound: %d\n", last_id(0) == 12);
    close(third);
    printf("  still bound: %d\n", last_id(0) >= 0);
    int again = open("/dev/null", O_RDONLY);
    char byte;
    show("what has its number now", read(again, &byte, 1));
    close(again);
}

static void again(void) {
    int netlink = open_queue(0);
    struct packet packet;
    for (int round = 0; round < 3; round++) {
        put(0, 0, 6);
        for (int index = 0; index < 3; index++) {
            receive(netlink, &packet);
            answer(netlink, 0, packet.id, NF_ACCEPT);
        }
        delivered(0, 3);
        /* What was sent and not read is read before the reply. */
        for (int index = 0; index < 3; index++)
            receive(netlink, &packet);
        unbind_queue(netlink, 0);
        bind_queue(netlink, 0);
        printf("  ids begin at %ld\n", last_id(0));
    }
    close(netlink);
}

static void two_queues(void) {
    int netlink = open_queue(0);
    struct packet packet;
    bind_queue(netlink, 1);
    for (uint32_t number = 0; number < 40; number++)
        put((number / 3) % 2, number, 1);
    int each[QUEUES] = {0};
    for (int index = 0; index < 40; index++) {
        receive(netlink, &packet);
        printf("  queue %d, id %u, number %u\n", packet.queue, packet.id, packet.number);
        answer(netlink, packet.queue, packet.id, NF_ACCEPT);
        each[packet.queue]++;
    }
    delivered(0, each[0]);
    delivered(1, each[1]);
    close(netlink);
}

static void children(void) {
    int netlink = open_queue(0);
    struct packet packet;
    put(0, 0, 2);
    for (int index = 0; index < 2; index++) {
        receive(netlink, &packet);
        answer(netlink, 0, packet.id, NF_ACCEPT);
    }
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        put(0, 2, 3);
        for (int index = 0; index < 3; index++) {
            receive(netlink, &packet);
            printf("  child: id %u\n", packet.id);
            answer(netlink, 0, packet.id, NF_ACCEPT);
        }
        exit(0);
    }
    waitpid(child, NULL, 0);
    delivered(0, 5);
    put(0, 5, 10);
    for (int index = 0; index < 10; index++) {
        receive(netlink, &packet);
        printf("  parent: id %u\n", packet.id);
        answer(netlink, 0, packet.id, NF_ACCEPT);
        if (index == 4 && vfork() == 0) {
            close(netlink);
            _exit(0);
        }
    }
    delivered(0, 10);
    close(netlink);
}

static void ends(void) {
    for (int way = 0; way < 3; way++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            int netlink = open_queue(0);
            struct packet packet;
            put(0, 0, 10);
            for (int index = 0; index < 4; index++) {
                receive(netlink, &packet);
                answer(netlink, 0, packet.id, NF_ACCEPT);
            }
            fflush(stdout);
            if (way == 0)
                exit(0);
            if (way == 1)
                _exit(0);
            execv("/bin/true", (char *[]){"true", NULL});
        }
        waitpid(child, NULL, 0);
        delivered(0, 4);
    }
}

static int shared_socket;
static pthread_barrier_t all_there;
static uint8_t seen[1001];

static void *serve(void *argument) {
    struct packet packet;
    (void)argument;
    pthread_barrier_wait(&all_there);
    for (;;) {
        if (!receive(shared_socket, &packet))
            continue;
        __atomic_add_fetch(&seen[packet.id], 1, __ATOMIC_RELAXED);
        answer(shared_socket, 0, packet.id, NF_ACCEPT);
        if (packet.number == 5000)
            return NULL;
    }
}

static void threads(void) {
    pthread_t all[4];
    shared_socket = open_queue(0);
    memset(seen, 0, sizeof seen);
    pthread_barrier_init(&all_there, NULL, 5);
    for (int index = 0; index < 4; index++)
        pthread_create(&all[index], NULL, serve, NULL);
    pthread_barrier_wait(&all_there);
    int lost = 0;
    for (uint32_t round = 0; round < 10; round++) {
        put(0, 0, 80);
        for (int index = 0; index < 80; index++) {
            uint32_t wire;
            lost += recv(sinks[0], &wire, sizeof wire, 0) < 0;
        }
    }
    for (int index = 0; index < 4; index++) {
        put(0, 5000, 1);
        uint32_t wire;
        lost += recv(sinks[0], &wire, sizeof wire, 0) < 0;
    }
    for (int index = 0; index < 4; index++)
        pthread_join(all[index], NULL);
    int once = 0;
    for (int id = 1; id <= 804; id++)
        once += seen[id] == 1;
    printf("  lost %d, seen once %d\n", lost, once);
    close(shared_socket);
}

/* A thread that sleeps in recv is not left there while another one has what it could do. */
static void *take_one(void *argument) {
    struct packet packet;
    (void)argument;
    receive(shared_socket, &packet);
    answer(shared_socket, 0, packet.id, NF_ACCEPT);
    return NULL;
}

static void sleeper(void) {
    pthread_t other;
    struct packet packet;
    shared_socket = open_queue(0);
    pthread_create(&other, NULL, take_one, NULL);
    usleep(50000); /* it sleeps, or will find what is left */
    put(0, 0, 2);
    receive(shared_socket, &packet);
    pthread_join(other, NULL); /* without answering: the other must come by its own packet */
    answer(shared_socket, 0, packet.id, NF_ACCEPT);
    uint32_t wire;
    int came = recv(sinks[0], &wire, sizeof wire, 0) > 0;
    came += recv(sinks[0], &wire, sizeof wire, 0) > 0;
    printf("  came: %d\n", came);
    pthread_create(&other, NULL, take_one, NULL);
    usleep(50000);
    pthread_cancel(other);
    void *result;
    pthread_join(other, &result);
    printf("  cancelled: %d\n", result == PTHREAD_CANCELED);
    put(0, 2, 3);
    for (int index = 0; index < 3; index++) {
        receive(shared_socket, &packet);
        answer(shared_socket, 0, packet.id, NF_ACCEPT);
    }
    delivered(0, 3);
    close(shared_socket);
}

/* What `fanq accel` was told to set: without it the numbers are others. */
static void show_options(void) {
    int netlink = open_queue(0), bytes;
    socklen_t length = sizeof bytes;
    struct packet packet;
    char room[ROOM];
    check(getsockopt(netlink, SOL_SOCKET, SO_RCVBUF, &bytes, &length), "SO_RCVBUF");
    printf("  buffer %d\n", bytes);
    struct sockaddr_in address = local(PORT);
    for (uint32_t number = 0; number < 20; number++)
        check(sendto(source, &number, sizeof number, 0, (struct sockaddr *)&address, sizeof address), "sendto");
    while (last_id(0) < 7)
        usleep(100);
    usleep(20000);
    printf("  waiting %ld\n", last_id(0));
    check(recv(netlink, room, sizeof room, 0), "recv");
    read_packet(room, &packet);
    int copied, whole;
    attribute(room, NFQA_PAYLOAD, &copied);
    const uint32_t *original = attribute(room, NFQA_CAP_LEN, &whole);
    printf("  copied %d of %u\n  cpu %d\n", copied, original ? ntohl(*original) : 0, sched_getcpu());
    fflush(stdout);
    pid_t child = check(fork(), "fork");
    if (child == 0)
        _exit(getpriority(PRIO_PROCESS, 0) & 0xff);
    int status;
    check(waitpid(child, &status, 0), "waitpid");
    printf("  nice %d of a child %d\n", getpriority(PRIO_PROCESS, 0), (int8_t)WEXITSTATUS(status));
    close(netlink);
}

/* Puts packets through a queue that another program serves, at most 64 at a time: the program's buffer and the sink's
 * hold some 250. */
static void through(long count) {
    struct sockaddr_in address = local(PORT);
    long came = 0;
    for (uint32_t number = 0; number < count; number++) {
        check(sendto(source, &number, sizeof number, 0, (struct sockaddr *)&address, sizeof address), "sendto");
        for (char room[4]; number % 32 == 31 && came < (long)number - 31;)
            came += check(recv(sinks[0], room, sizeof room, 0), "a packet is missing") > 0;
    }
    for (char room[4]; came < count;)
        came += check(recv(sinks[0], room, sizeof room, 0), "a packet is missing") > 0;
    printf("came %ld\n", came);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"loop", loop}, {"any_order", any_order}, {"deferred", deferred}, {"busy", busy}, {"looking", looking},
    {"waiting", waiting}, {"readiness", readiness}, {"replies", replies}, {"ways_to_send", ways_to_send},
    {"copies", copies}, {"again", again}, {"two_queues", two_queues}, {"children", children}, {"ends", ends},
    {"threads", threads}, {"sleeper", sleeper},
};

int main(int argc, char **argv) {
    open_sinks();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "options") == 0)
        return show_options(), 0;
    if (argc > 2 && strcmp(argv[1], "through") == 0)
        return through(atol(argv[2])), 0;
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        if (argc > 1 && strcmp(argv[1], cases[index].name) != 0)
            continue;
        printf("%s\n", cases[index].name);
        cases[index].run();
    }
    printf("done\n");
    return 0;
}
