/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * crowd: threads, processes and signal handlers on one queue, and prints what they see. Run by tools/tests/accel/crowd.rs
 * with and without `fanq accel`: the output must be the same.
 *
 * Invariant: what is printed hangs on no timing: who does what when is settled by semaphores, or counted. A case that
 * would never end is ended by SIGALRM, and so is each of its processes.
 *
 * Build: cc -O2 -pthread -o crowd crowd.c      (without _FORTIFY_SOURCE: it has sets beyond FD_SETSIZE)
 */
#include "netlink.h"

#include <semaphore.h>
#include <stdatomic.h>

enum { PATIENCE = 20 };

static int queue_socket;

/* Without telling of overruns, and with room for a dozen packets or two. */
static int open_small_queue(void) {
    int netlink = open_queue(0), yes = 1, bytes = 8192;
    check(setsockopt(netlink, SOL_NETLINK, NETLINK_NO_ENOBUFS, &yes, sizeof yes), "NETLINK_NO_ENOBUFS");
    check(setsockopt(netlink, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), "SO_RCVBUF");
    return netlink;
}

static void send_packets(uint32_t first, uint32_t count) {
    struct sockaddr_in address = local(PORT);
    for (uint32_t number = first; number < first + count; number++) {
        uint32_t wire = htonl(number);
        check(sendto(source, &wire, sizeof wire, 0, (struct sockaddr *)&address, sizeof address), "sendto");
    }
}

/* Answers with an acknowledgement asked for. */
static void answer_acknowledged(int netlink, uint32_t id, int verdict) {
    struct message message = verdict_message(NFQNL_MSG_VERDICT, 0, id, verdict, NLM_F_ACK, id);
    check(send(netlink, &message, message.header.nlmsg_len, 0), "verdict");
}

/* Ends what would hang. */
static pid_t fork_patiently(void) {
    fflush(stdout);
    pid_t child = (pid_t)check(fork(), "fork");
    if (child == 0)
        alarm(PATIENCE);
    return child;
}

static int status_of(pid_t child) {
    int status;
    check(waitpid(child, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void serve_one(int netlink) {
    struct packet packet;
    if (receive(netlink, &packet))
        answer(netlink, 0, packet.id, NF_ACCEPT);
}

/* A child has a packet, others are lost, and the parent accepts all that it gets: the child's is the child's to drop. */
static void prefork(void) {
    int netlink = open_small_queue(), there[2], done[2];
    char byte = 0;
    check(pipe(there), "pipe");
    check(pipe(done), "pipe");
    put(0, 0, 1);
    serve_one(netlink);
    delivered(0, 1);
    pid_t child = fork_patiently();
    if (child == 0) {
        struct packet packet;
        receive(netlink, &packet);
        check(write(there[1], &byte, 1), "write");
        check(read(done[0], &byte, 1), "read");
        printf("  child: number %u\n", packet.number);
        answer_acknowledged(netlink, packet.id, NF_DROP);
        while (receive(netlink, &packet))
            printf("  child: number %u\n", packet.number);
        exit(0);
    }
    put(0, 1, 1);
    check(read(there[0], &byte, 1), "read");
    put(0, 2, 200);
    int lost = 200;
    for (char room[ROOM]; recv(netlink, room, sizeof room, MSG_DONTWAIT) > 0; lost--) {
        struct packet packet;
        if (read_packet(room, &packet))
            answer(netlink, 0, packet.id, NF_ACCEPT);
    }
    printf("  some were lost: %d\n", lost > 0);
    check(write(done[1], &byte, 1), "write");
    printf("  child ended: %d\n", status_of(child));
    int child_s = 0;
    for (uint32_t wire; recv(sinks[0], &wire, sizeof wire, MSG_DONTWAIT) > 0;)
        child_s += ntohl(wire) == 1;
    printf("  of the child's came through: %d\n", child_s);
    close(netlink);
    close(there[0]), close(there[1]), close(done[0]), close(done[1]);
}

static atomic_int refused, dropped, stop;

/* Drops every fourth packet after a while, accepts the others at once, and counts what the kernel refuses. */
static void *judge(void *argument) {
    static _Thread_local char room[ROOM];
    uint32_t kept = 0;
    (void)argument;
    while (!stop) {
        if (recv(queue_socket, room, sizeof room, 0) < 0)
            continue; /* a time-out */
        const struct nlmsghdr *header = (const struct nlmsghdr *)room;
        if (header->nlmsg_type == NLMSG_ERROR) {
            refused += ((const struct nlmsgerr *)NLMSG_DATA(header))->error != 0;
            continue;
        }
        struct packet packet;
        read_packet(room, &packet);
        if (packet.number % 4 == 0) {
            if (kept != 0)
                answer_acknowledged(queue_socket, kept, NF_DROP), dropped++;
            kept = packet.id;
        } else {
            answer(queue_socket, 0, packet.id, NF_ACCEPT);
        }
    }
    if (kept != 0)
        answer_acknowledged(queue_socket, kept, NF_DROP), dropped++;
    return NULL;
}

/* Threads on one socket that is overrun again and again: no packet gets another's verdict. */
static void overrun(void) {
    pthread_t all[3];
    struct timeval limit = {.tv_usec = 50000};
    queue_socket = open_small_queue();
    check(setsockopt(queue_socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
    refused = dropped = stop = 0;
    for (int index = 0; index < 3; index++)
        pthread_create(&all[index], NULL, judge, NULL);
    for (uint32_t round = 0; round < 400; round++) {
        send_packets(round * 100, 100);
        usleep(300);
    }
    usleep(100000);
    stop = 1;
    for (int index = 0; index < 3; index++)
        pthread_join(all[index], NULL);
    usleep(1000);
    char room[ROOM];
    while (recv(queue_socket, room, sizeof room, MSG_DONTWAIT) > 0) {
        const struct nlmsghdr *header = (const struct nlmsghdr *)room;
        if (header->nlmsg_type == NLMSG_ERROR)
            refused += ((const struct nlmsgerr *)NLMSG_DATA(header))->error != 0;
    }
    int leaked = 0;
    for (uint32_t wire; recv(sinks[0], &wire, sizeof wire, MSG_DONTWAIT) > 0;)
        leaked += ntohl(wire) % 4 == 0;
    printf("  refused %d, dropped and come through %d, any: %d\n", refused, leaked, dropped > 0);
    close(queue_socket);
}

static int queue_epoll;

/* Serves by epoll, and counts what the kernel refuses. */
static void *serve_events(void *argument) {
    static char room[ROOM];
    (void)argument;
    while (!stop) {
        struct epoll_event event;
        if (epoll_wait(queue_epoll, &event, 1, 1) <= 0)
            continue;
        if (recv(queue_socket, room, sizeof room, MSG_DONTWAIT) < 0)
            continue;
        const struct nlmsghdr *header = (const struct nlmsghdr *)room;
        struct packet packet;
        if (header->nlmsg_type == NLMSG_ERROR)
            refused += ((const struct nlmsgerr *)NLMSG_DATA(header))->error != 0;
        else if (read_packet(room, &packet))
            answer(queue_socket, 0, packet.id, NF_ACCEPT);
    }
    return NULL;
}

/* A program with threads forks while they serve: its children do what children do, and no verdict is given twice. */
static void forks(void) {
    pthread_t server;
    struct epoll_event event = {.events = EPOLLIN};
    queue_socket = open_queue(0);
    queue_epoll = (int)check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    check(epoll_ctl(queue_epoll, EPOLL_CTL_ADD, queue_socket, &event), "epoll_ctl");
    refused = stop = 0;
    pthread_create(&server, NULL, serve_events, NULL);
    int hung = 0, lost = 0;
    for (uint32_t round = 0; round < 100; round++) {
        send_packets(round * 50, 50);
        pid_t child = (pid_t)check(fork(), "fork");
        if (child == 0) {
            alarm(2);
            close(queue_epoll);
            close(queue_socket);
            _exit(0);
        }
        for (uint32_t index = 0, wire; index < 50; index++)
            lost += recv(sinks[0], &wire, sizeof wire, 0) < 0;
        hung += status_of(child) != 0;
        if (hung > 0)
            break;
    }
    usleep(10000);
    stop = 1;
    pthread_join(server, NULL);
    printf("  hung %d, lost %d, refused %d\n", hung, lost, refused);
    close(queue_epoll);
    close(queue_socket);
}

static void look(int signal) {
    int before = errno;
    char byte;
    (void)signal;
    recv(queue_socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    errno = before;
}

/* A handler that uses the socket comes between any two instructions of a program that does. */
static void handlers(void) {
    pid_t child = fork_patiently();
    if (child > 0) {
        printf("  ended: %d\n", status_of(child));
        return;
    }
    queue_socket = open_queue(0);
    sigaction(SIGPROF, &(struct sigaction){.sa_handler = look, .sa_flags = SA_RESTART}, NULL);
    timer_t timer;
    struct sigevent by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
    struct itimerspec often = {.it_interval.tv_nsec = 20000, .it_value.tv_nsec = 20000};
    check(timer_create(CLOCK_MONOTONIC, &by_signal, &timer), "timer_create");
    int came = 0;
    check(timer_settime(timer, 0, &often, NULL), "timer_settime");
    for (uint32_t round = 0; round < 300; round++) {
        send_packets(round * 50, 50);
        for (int index = 0; index < 50; index++) {
            struct packet packet;
            static char room[ROOM];
            while (recv(queue_socket, room, sizeof room, 0) < 0)
                ;
            if (read_packet(room, &packet))
                answer(queue_socket, 0, packet.id, NF_ACCEPT);
        }
        for (uint32_t index = 0, wire; index < 50; index++) {
            long length;
            while ((length = recv(sinks[0], &wire, sizeof wire, 0)) < 0 && errno == EINTR)
                ;
            came += length > 0;
        }
    }
    often = (struct itimerspec){0};
    check(timer_settime(timer, 0, &often, NULL), "timer_settime");
    printf("  came %d\n", came);
    exit(0);
}

static sem_t work;

static void *take_when_told(void *argument) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    (void)argument;
    for (;;) {
        sem_wait(&work);
        if (stop)
            return NULL;
        serve_one(queue_socket);
        usleep(3000); /* until the other one waits again */
        check(epoll_ctl(queue_epoll, EPOLL_CTL_MOD, queue_socket, &event), "epoll_ctl");
    }
}

/* One thread is told what is ready, once, another does it and arms the watch again. */
static void one_shot(void) {
    pthread_t worker;
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    queue_socket = open_queue(0);
    queue_epoll = (int)check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    check(epoll_ctl(queue_epoll, EPOLL_CTL_ADD, queue_socket, &event), "epoll_ctl");
    stop = 0;
    sem_init(&work, 0, 0);
    pthread_create(&worker, NULL, take_when_told, NULL);
    put(0, 0, 20);
    int told = 0;
    while (told < 20 && epoll_wait(queue_epoll, &event, 1, 2000) == 1)
        told++, sem_post(&work);
    printf("  told %d times\n", told);
    delivered(0, 20);
    stop = 1;
    sem_post(&work);
    pthread_join(worker, NULL);
    close(queue_epoll);
    close(queue_socket);
}

/* Packets come while the queue is set up; then the program goes into the background and serves. */
static void background(void) {
    int ended[2];
    char byte;
    check(pipe(ended), "pipe");
    if (fork_patiently() == 0) {
        int netlink = (int)check(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), "socket");
        struct message message;
        struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND};
        struct nfqnl_msg_config_params parameters = {.copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET};
        begin(&message, NFQNL_MSG_CONFIG, NLM_F_ACK, 0, 1);
        add(&message, NFQA_CFG_CMD, &command, sizeof command);
        add(&message, NFQA_CFG_PARAMS, &parameters, sizeof parameters);
        check(send(netlink, &message, message.header.nlmsg_len, 0), "binding");
        put(0, 0, 10);
        struct packet packet;
        receive(netlink, &packet); /* the acknowledgement */
        if (fork_patiently() > 0)
            _exit(0);
        struct timeval limit = {.tv_sec = 2};
        check(setsockopt(netlink, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
        for (int index = 0; index < 10; index++)
            serve_one(netlink);
        delivered(0, 10);
        exit(0);
    }
    close(ended[1]);
    check(read(ended[0], &byte, 1), "read");
    close(ended[0]);
    wait(NULL);
}

static sem_t had_two, cancelled;
static int had;

static void *take_until_cancelled(void *argument) {
    struct packet packet;
    (void)argument;
    for (had = 0;; had++) {
        if (had == 2) {
            sem_post(&had_two);
            while (sem_trywait(&cancelled) != 0) /* which is no cancellation point */
                ;
        }
        receive(queue_socket, &packet);
        answer(queue_socket, 0, packet.id, NF_ACCEPT);
    }
    return NULL;
}

/* A thread that is cancelled under load ends with its next receive. */
static void cancellation(void) {
    pthread_t thread;
    void *result;
    queue_socket = open_queue(0);
    put(0, 0, 20);
    sem_init(&had_two, 0, 0);
    sem_init(&cancelled, 0, 0);
    pthread_create(&thread, NULL, take_until_cancelled, NULL);
    sem_wait(&had_two);
    pthread_cancel(thread);
    sem_post(&cancelled);
    pthread_join(thread, &result);
    printf("  cancelled %d, had %d\n", result == PTHREAD_CANCELED, had);
    for (int index = 2; index < 20; index++)
        serve_one(queue_socket);
    delivered(0, 20);
    close(queue_socket);
}

/* A set of descriptors that is longer than an fd_set. */
static void large_sets(void) {
    enum { LARGE = 1500, WORDS = 64 };
    unsigned long set[WORDS] = {0};
    const unsigned bits = 8 * sizeof set[0];
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    if (limit.rlim_cur <= LARGE) {
        limit.rlim_cur = LARGE + 1;
        if (limit.rlim_max < limit.rlim_cur)
            limit.rlim_max = limit.rlim_cur;
        check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
    }
    int netlink = open_queue(0), large = (int)check(dup2(netlink, LARGE), "dup2");
    put(0, 0, 5);
    for (int index = 0; index < 5; index++) {
        struct timeval now = {0};
        set[large / bits] = 1UL << (large % bits);
        int ready = select(large + 1, (fd_set *)set, NULL, NULL, &now);
        printf("  ready %d, set %d\n", ready, (set[large / bits] >> (large % bits)) == 1);
        serve_one(large);
    }
    delivered(0, 5);
    close(large);
    close(netlink);
}

static void fork_at_the_end(void) {
    pid_t child = fork_patiently();
    if (child == 0)
        _exit(5);
    printf("  a child at the end: %d\n", status_of(child));
}

/* A program forks once more when its threads' own things are gone. */
static void at_exit(void) {
    pid_t child = fork_patiently();
    if (child == 0) {
        int netlink = open_queue(0);
        put(0, 0, 1);
        serve_one(netlink);
        delivered(0, 1);
        pid_t other = fork_patiently();
        if (other == 0)
            _exit(4);
        printf("  a child: %d\n", status_of(other));
        atexit(fork_at_the_end);
        exit(3);
    }
    printf("  ended: %d\n", status_of(child));
}

/* That the socket was overrun is told once, also to who receives many at a time. */
static void overrun_is_told(void) {
    enum { MANY = 4 };
    static char rooms[MANY][2048];
    struct mmsghdr messages[MANY];
    struct iovec parts[MANY];
    struct packet packet;
    int netlink = open_queue(0), bytes = 8192, told = 0, packets = 0;
    put(0, 0, 1);
    serve_one(netlink);
    check(setsockopt(netlink, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), "SO_RCVBUF");
    put(0, 1, 6);
    serve_one(netlink); /* which may receive the others, too */
    put(0, 7, 100);
    for (int tries = 0; tries < 60; tries++) {
        for (int index = 0; index < MANY; index++) {
            parts[index] = (struct iovec){rooms[index], sizeof rooms[index]};
            messages[index] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[index], .msg_iovlen = 1}};
        }
        int count = recvmmsg(netlink, messages, MANY, MSG_DONTWAIT, NULL);
        told += count < 0 && errno == ENOBUFS;
        for (int index = 0; index < count; index++)
            packets += read_packet(rooms[index], &packet);
    }
    printf("  told %d, packets %d\n", told, packets > 5);
    close(netlink);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"prefork", prefork}, {"overrun", overrun}, {"forks", forks}, {"handlers", handlers}, {"one_shot", one_shot},
    {"background", background}, {"cancellation", cancellation}, {"large_sets", large_sets}, {"at_exit", at_exit},
    {"overrun_is_told", overrun_is_told},
};

int main(int argc, char **argv) {
    open_sinks();
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t index = 0; index < sizeof cases / sizeof cases[0]; index++) {
        if (argc > 1 && strcmp(argv[1], cases[index].name) != 0)
            continue;
        printf("%s\n", cases[index].name);
        cases[index].run();
        usleep(2000);
        for (char more; recv(sinks[0], &more, 1, MSG_DONTWAIT) >= 0;)
            ;
    }
    printf("done\n");
    return 0;
}
