/* An OpenAI-compatible peer that costs as little as can be: it answers every request with the same bytes.

   usage: upstream WHOLE_FILE STREAM_FILE

   Prints the port that it listens on. A POST whose body has `"stream":true` is answered with STREAM_FILE as
   server-sent events, any other with WHOLE_FILE as JSON; a GET with the number of POSTs so far, as a list of no models.
   One thread; ends when its standard input does. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN = 1 << 18, LARGEST = 1 << 20 };

typedef struct {
    int fd;
    char *in;
    size_t have;
} Peer;

typedef struct {
    char *bytes;
    size_t size;
} Reply;

static unsigned long posts;

static Reply reply_of(const char *file, const char *type) {
    static char body[LARGEST];
    FILE *in = fopen(file, "rb");
    if (!in) perror(file), exit(1);
    size_t size = fread(body, 1, sizeof body, in);
    fclose(in);
    Reply reply = {malloc(size + 200), 0};
    reply.size = sprintf(reply.bytes, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", type, size);
    memcpy(reply.bytes + reply.size, body, size);
    reply.size += size;
    return reply;
}

static int send_all(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) return 0;
        if (n > 0) bytes += n, size -= n;
    }
    return 1;
}

static int answer(Peer *peer, const char *body, size_t size, const Reply *whole, const Reply *stream) {
    if (peer->in[0] != 'P') {
        char text[200], told[80];
        int length = snprintf(told, sizeof told, "{\"object\":\"list\",\"data\":[],\"posts\":%lu}", posts);
        int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", length, told);
        return send_all(peer->fd, text, n);
    }
    posts++;
    int streams = memmem(body, size, "\"stream\":true", 13) || memmem(body, size, "\"stream\": true", 14);
    const Reply *reply = streams ? stream : whole;
    return send_all(peer->fd, reply->bytes, reply->size);
}

/* Answers every whole request that has come; 0 where the connection is to be closed. */
static int serve(Peer *peer, const Reply *whole, const Reply *stream) {
    for (;;) {
        peer->in[peer->have] = 0;
        char *end = memmem(peer->in, peer->have, "\r\n\r\n", 4);
        if (!end) return peer->have < IN;
        size_t head = end + 4 - peer->in, size = 0;
        char *length = strcasestr(peer->in, "\r\ncontent-length:");
        if (length && length < end) size = strtoul(length + 17, NULL, 10);
        if (head + size > IN) return 0;
        if (peer->have < head + size) return 1;
        if (!answer(peer, end + 4, size, whole, stream)) return 0;
        peer->have -= head + size;
        memmove(peer->in, peer->in + head + size, peer->have);
    }
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

int main(int count, char **given) {
    if (count != 3) return fprintf(stderr, "usage: upstream WHOLE_FILE STREAM_FILE\n"), 2;
    Reply whole = reply_of(given[1], "application/json"), stream = reply_of(given[2], "text/event-stream");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listening = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    if (bind(listening, (void *)&at, size) || listen(listening, 1024)) return perror("upstream"), 1;
    getsockname(listening, (void *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    Peer ours = {.fd = listening}, until = {.fd = 0};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ours};
    epoll_ctl(poll, EPOLL_CTL_ADD, listening, &event);
    event.data.ptr = &until;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            Peer *peer = events[i].data.ptr;
            if (peer == &until) return 0;
            if (peer == &ours) {
                take(listening, poll);
                continue;
            }
            ssize_t got = recv(peer->fd, peer->in + peer->have, IN - peer->have, 0);
            if (got > 0) peer->have += got;
            if (got <= 0 || !serve(peer, &whole, &stream)) {
                close(peer->fd);
                free(peer->in), free(peer);
            }
        }
    }
}
