/* An OpenAI-compatible peer that costs as little as can be, and answers as the request asks it to.

   usage: upstream

   Prints the port that it listens on. The body of a POST says somewhere "N words", or "N words, one every P us": the
   answer has N words, " ~word" each. Where it has `"stream":true` they are server-sent events of OpenAI's chat, each a
   chunk and a write of its own: all at once, or the first at once and each other P microseconds after the one before.
   Else they come whole, as JSON. A GET is answered with what has happened so far, as a list of one model:
   {"posts": requests, "open": streams that go on, "left": streams whose reader left}.
   One thread; ends when its standard input does. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { IN = 1 << 16, OUT = 1 << 16, MOST_WORDS = 4096 };

typedef struct Peer {
    int fd;
    char *in;
    size_t have;
    /* of the stream that goes on */
    unsigned words, sent; /* events: the words, the end, the usage where it is asked for, [DONE] */
    int with_usage;
    int64_t pace_us, due_us;
    struct Peer *before, *after;
} Peer;

static unsigned long posts, left_early, open_streams;
static Peer paced = {.before = &paced, .after = &paced}; /* the ring of those that wait, the first due first */
static int timer;
static int64_t armed_us;

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int send_all(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) return 0;
        if (n > 0) bytes += n, size -= n;
    }
    return 1;
}

static int send_json(int fd, const char *body, size_t size) {
    static char reply[OUT + 200];
    int head = sprintf(reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", size);
    memcpy(reply + head, body, size);
    return send_all(fd, reply, head + size);
}

#define CHAT "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion%s\",\"created\":1700000000,\"model\":\"m\",\"choices\":["
#define USAGE "\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":%u,\"total_tokens\":%u}}"

static int send_whole(int fd, unsigned words) {
    static char body[OUT];
    char *at = body + sprintf(body, CHAT "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"", "");
    for (unsigned i = 0; i < words; i++) at = stpcpy(at, " ~word");
    at += sprintf(at, "\"},\"finish_reason\":\"stop\"}]," USAGE, words, 24 + words);
    return send_json(fd, body, at - body);
}

/* Sends the stream's next event; 0 where the reader has left. */
static int send_event(Peer *peer) {
    char event[512], chunk[600];
    int size = 0;
    if (peer->sent == peer->words + 1 && !peer->with_usage) peer->sent++;
    if (peer->sent <= peer->words) {
        const char *delta = peer->sent == peer->words ? "{}" : "{\"content\":\" ~word\"}";
        const char *reason = peer->sent == peer->words ? "\"stop\"" : "null";
        size = sprintf(event, "data: " CHAT "{\"index\":0,\"delta\":%s,\"finish_reason\":%s}]}\n\n", ".chunk", delta, reason);
    } else if (peer->sent == peer->words + 1) {
        size = sprintf(event, "data: " CHAT "]," USAGE "\n\n", ".chunk", peer->words, 24 + peer->words);
    } else {
        size = sprintf(event, "data: [DONE]\n\n");
    }
    int whole = sprintf(chunk, "%x\r\n%s\r\n", size, event);
    if (peer->sent++ == peer->words + 2) whole += sprintf(chunk + whole, "0\r\n\r\n");
    return send_all(peer->fd, chunk, whole);
}

static int is_over(const Peer *peer) {
    return peer->sent > peer->words + 2;
}

/* Has the timer fire when the first of those that wait is due. */
static void arm(void) {
    int64_t due_us = paced.after == &paced ? 0 : paced.after->due_us;
    if (due_us == armed_us) return;
    struct itimerspec at = {.it_value = {due_us / 1000000, due_us % 1000000 * 1000}}; /* 0 stops it */
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    armed_us = due_us;
}

static void wait_turn(Peer *peer) {
    Peer *before = paced.before;
    while (before != &paced && before->due_us > peer->due_us) before = before->before; /* none, where all have one pace */
    peer->before = before, peer->after = before->after;
    peer->before->after = peer->after->before = peer;
}

static void stop_waiting(Peer *peer) {
    peer->before->after = peer->after, peer->after->before = peer->before;
    peer->after = NULL;
}

static int begin_stream(Peer *peer, unsigned words, int64_t pace_us, int with_usage) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    peer->words = words, peer->sent = 0, peer->with_usage = with_usage, peer->pace_us = pace_us;
    if (!send_all(peer->fd, head, sizeof head - 1) || !send_event(peer)) return 0;
    if (pace_us) {
        open_streams++;
        peer->due_us = now_us() + pace_us;
        wait_turn(peer);
        arm();
        return 1;
    }
    while (!is_over(peer))
        if (!send_event(peer)) return 0;
    return 1;
}

static int says(const char *body, size_t size, const char *name) {
    char text[64];
    sprintf(text, "\"%s\":true", name);
    if (memmem(body, size, text, strlen(text))) return 1;
    sprintf(text, "\"%s\": true", name);
    return memmem(body, size, text, strlen(text)) != NULL;
}

/* The number that stands before `what` in the body, 0 for none. */
static unsigned long number_before(const char *body, size_t size, const char *what) {
    const char *found = memmem(body, size, what, strlen(what)), *at = found;
    if (!found) return 0;
    while (at > body && at[-1] >= '0' && at[-1] <= '9') at--;
    return strtoul(at, NULL, 10);
}

static int answer(Peer *peer, const char *body, size_t size) {
    if (peer->in[0] != 'P') {
        char text[200];
        return send_json(peer->fd, text, sprintf(text,
            "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"nobody\"}],"
            "\"posts\":%lu,\"open\":%lu,\"left\":%lu}", posts, open_streams, left_early));
    }
    posts++;
    unsigned words = number_before(body, size, " words");
    if (words > MOST_WORDS) return 0;
    if (!says(body, size, "stream")) return send_whole(peer->fd, words);
    return begin_stream(peer, words, number_before(body, size, " us"), says(body, size, "include_usage"));
}

/* Answers every whole request that has come, one after the other; 0 where the connection is to be closed. */
static int serve(Peer *peer) {
    while (!peer->after) {
        peer->in[peer->have] = 0;
        char *end = memmem(peer->in, peer->have, "\r\n\r\n", 4);
        if (!end) return peer->have < IN;
        size_t head = end + 4 - peer->in, size = 0;
        char *length = strcasestr(peer->in, "\r\ncontent-length:");
        if (length && length < end) {
            size = strtoul(length + 17, NULL, 10);
        } else if (strcasestr(peer->in, "\r\ntransfer-encoding: chunked")) { /* one short body: up to its last chunk */
            char *last = memmem(end, peer->have - (end - peer->in), "\r\n0\r\n\r\n", 7);
            if (!last) return peer->have < IN;
            size = last + 7 - (end + 4);
        }
        if (head + size > IN) return 0;
        if (peer->have < head + size) return 1;
        if (!answer(peer, end + 4, size)) return 0;
        peer->have -= head + size;
        memmove(peer->in, peer->in + head + size, peer->have);
    }
    return 1;
}

static void end_early(Peer *peer) {
    stop_waiting(peer);
    open_streams--, left_early++;
}

static void leave(Peer *peer) {
    if (peer->after) end_early(peer);
    close(peer->fd);
    free(peer->in), free(peer);
}

/* Sends what is due of the streams that are paced. */
static void tick(void) {
    uint64_t ticks;
    if (read(timer, &ticks, sizeof ticks) < 0) return;
    int64_t now = now_us();
    armed_us = 0;
    while (paced.after != &paced && paced.after->due_us <= now) {
        Peer *peer = paced.after;
        int here = send_event(peer);
        if (!here) {
            end_early(peer);
        } else {
            stop_waiting(peer);
            if (is_over(peer)) {
                open_streams--, here = serve(peer);
            } else {
                peer->due_us += peer->pace_us;
                wait_turn(peer);
            }
        }
        if (!here) shutdown(peer->fd, SHUT_RDWR); /* it is freed where that is read */
    }
    arm();
}

static void take(int listening, int poll) {
    int on = 1, fd = accept(listening, NULL, NULL);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Peer *peer = calloc(1, sizeof *peer);
    peer->fd = fd, peer->in = malloc(IN + 1);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0);
    if (bind(listening, (void *)&at, size) || listen(listening, 4096)) return perror("upstream"), 1;
    getsockname(listening, (void *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    Peer ours, until, ticking;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ours};
    epoll_ctl(poll, EPOLL_CTL_ADD, listening, &event);
    event.data.ptr = &until;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    event.data.ptr = &ticking;
    epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            Peer *peer = events[i].data.ptr;
            if (peer == &until) return 0;
            if (peer == &ours) {
                take(listening, poll);
                continue;
            }
            if (peer == &ticking) {
                tick();
                continue;
            }
            ssize_t got = recv(peer->fd, peer->in + peer->have, IN - peer->have, 0);
            if (got > 0) peer->have += got;
            if (got <= 0 || !serve(peer)) leave(peer);
        }
    }
}
