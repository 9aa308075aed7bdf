/* A closed-loop load generator for one answer a request, over HTTP/1.1 or gRPC (HTTP/2 without TLS).

   usage: load http|grpc PORT PATH BODY_FILE CALLERS SECONDS KEYS SEED

   Every caller has a connection of its own and one request out at a time. The ten characters `##########` in the body
   become a number below KEYS, chosen by chance anew for each request, in ten digits: lengths never change. The first
   tenth of the time is for warming up, and does not count; where answers are slow, it goes on until there is one for
   each caller. Prints one line of JSON; an answer that is no success, and a connection that breaks, end the run with
   exit code 1.

   HTTP/2 is spoken as far as this needs it (RFC 9113): a request is HEADERS and DATA; the answer's DATA are counted
   and its end is END_STREAM. The peer may not use the dynamic table (SETTINGS_HEADER_TABLE_SIZE 0), so no header has
   to be decoded: an answer without DATA is a failure, as a gRPC error is. Windows are set so large that they do not
   end within a run, and the peer's is never near its end with one small request out. */
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
#include <time.h>
#include <unistd.h>

enum { IN = 1 << 20, MOST_TIMES = 20000000, DIGITS = 10 };
enum { F_DATA, F_HEADERS, F_PRIORITY, F_RST_STREAM, F_SETTINGS, F_PUSH, F_PING, F_GOAWAY, F_WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

typedef struct {
    int fd;
    unsigned char *in;
    size_t have;
    uint32_t stream;
    size_t body; /* bytes of the answer so far */
    int64_t begun;
} Caller;

static int grpc, port;
static const char *path;
static unsigned char request[1 << 20];
static size_t request_size, digits_at, headers_at;
static uint64_t keys, chance;
static float *times;
static size_t answers;
static uint64_t answer_bytes;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what, const void *shown, size_t size) {
    fprintf(stderr, "load: %s", what);
    if (size) fprintf(stderr, ": %.*s", (int)(size > 400 ? 400 : size), (const char *)shown);
    fputc('\n', stderr);
    exit(1);
}

static void send_all(Caller *caller, const void *bytes, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(caller->fd, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) fail("cannot send", strerror(errno), strlen(strerror(errno)));
        if (n > 0) sent += n;
    }
}

static uint64_t draw(void) { /* xorshift64* */
    chance ^= chance >> 12, chance ^= chance << 25, chance ^= chance >> 27;
    return chance * 0x2545F4914F6CDD1DULL;
}

static void put_frame(unsigned char *at, size_t size, int type, int flags, uint32_t stream) {
    at[0] = size >> 16, at[1] = size >> 8, at[2] = size, at[3] = type, at[4] = flags;
    stream = htonl(stream);
    memcpy(at + 5, &stream, 4);
}

static void ask(Caller *caller) {
    char number[24];
    snprintf(number, sizeof number, "%010llu", (unsigned long long)(draw() % keys));
    memcpy(request + digits_at, number, DIGITS);
    if (grpc) {
        uint32_t stream = htonl(caller->stream);
        memcpy(request + 5, &stream, 4);
        memcpy(request + headers_at + 5, &stream, 4);
    }
    caller->body = 0;
    caller->begun = now();
    send_all(caller, request, request_size);
}

static void answered(Caller *caller, int64_t since) {
    if (caller->begun >= since) {
        if (answers == MOST_TIMES) fail("too many answers to remember", "", 0);
        times[answers++] = (now() - caller->begun) / 1e3f;
        answer_bytes += caller->body;
    }
}

/* Whether the answer is complete; the bytes that it took are gone from `in` then. */
static int http_answer(Caller *caller) {
    caller->in[caller->have] = 0;
    char *head = (char *)caller->in, *end = memmem(head, caller->have, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(head, "HTTP/1.1 200", 12)) fail("an answer is no success", head, caller->have);
    char *length = strcasestr(head, "\r\ncontent-length:");
    if (!length || length > end) fail("an answer has no length", head, end - head);
    size_t size = strtoul(length + 17, NULL, 10), whole = end + 4 - head + size;
    if (caller->have < whole) return 0;
    caller->body = size;
    caller->have -= whole;
    memmove(caller->in, caller->in + whole, caller->have);
    return 1;
}

static void connection_frame(Caller *caller, int type, int flags, size_t size, unsigned char *payload) {
    unsigned char reply[17];
    if (type == F_GOAWAY || type == F_RST_STREAM) fail("the peer ended a stream or the connection", payload + 8, size > 8 ? size - 8 : 0);
    if (type == F_SETTINGS && !(flags & ACK)) {
        put_frame(reply, 0, F_SETTINGS, ACK, 0);
        send_all(caller, reply, 9);
    } else if (type == F_PING && !(flags & ACK)) {
        put_frame(reply, 8, F_PING, ACK, 0);
        memcpy(reply + 9, payload, 8);
        send_all(caller, reply, 17);
    }
}

static int grpc_answer(Caller *caller) {
    size_t at = 0;
    int complete = 0;
    while (!complete && caller->have - at >= 9) {
        unsigned char *frame = caller->in + at;
        size_t size = frame[0] << 16 | frame[1] << 8 | frame[2];
        if (caller->have - at < 9 + size) break;
        if (frame[3] == F_DATA) caller->body += size;
        if (frame[3] == F_DATA || frame[3] == F_HEADERS)
            complete = frame[4] & END_STREAM;
        else
            connection_frame(caller, frame[3], frame[4], size, frame + 9);
        at += 9 + size;
    }
    caller->have -= at;
    memmove(caller->in, caller->in + at, caller->have);
    if (complete && caller->body == 0) fail("an answer is no success", "", 0);
    if (complete) caller->stream += 2;
    return complete;
}

static size_t text(unsigned char *at, int name, const char *value) { /* a literal header that is not indexed (RFC 7541, 6.2.2) */
    size_t size = strlen(value), n = 0;
    if (size > 126) fail("a header is too long", value, size);
    if (name < 15) {
        at[n++] = name;
    } else {
        at[n++] = 15, at[n++] = name - 15;
    }
    at[n++] = size;
    memcpy(at + n, value, size);
    return n + size;
}

static void prepare(const unsigned char *body, size_t size) {
    unsigned char *at = request;
    if (grpc) {
        unsigned char *block = at + 9;
        *block++ = 0x83, *block++ = 0x86; /* :method POST, :scheme http */
        block += text(block, 4, path), block += text(block, 1, "localhost");
        block += text(block, 31, "application/grpc");
        memcpy(block, "\x00\x02te\x08trailers", 13);
        block += 13;
        put_frame(at, block - at - 9, F_HEADERS, END_HEADERS, 0);
        headers_at = block - at;
        put_frame(block, size + 5, F_DATA, END_STREAM, 0);
        block[9] = 0;
        uint32_t length = htonl(size);
        memcpy(block + 10, &length, 4);
        at = block + 14;
    } else {
        at += sprintf((char *)at, "POST %s HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", path, port, size);
    }
    memcpy(at, body, size);
    unsigned char *slot = memmem(at, size, "##########", DIGITS);
    if (!slot) fail("the body has no ##########", "", 0);
    digits_at = slot - request;
    request_size = at + size - request;
}

static void open_connection(Caller *caller, int poll) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    caller->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(caller->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(caller->fd, (void *)&peer, sizeof peer)) fail("cannot connect", strerror(errno), strlen(strerror(errno)));
    caller->in = malloc(IN + 1);
    caller->stream = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
    epoll_ctl(poll, EPOLL_CTL_ADD, caller->fd, &event);
    if (!grpc) return;
    unsigned char hello[24 + 9 + 18 + 13], *at = hello + 24;
    memcpy(hello, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(at, 18, F_SETTINGS, 0, 0); /* HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE 2^30 */
    memcpy(at + 9, "\0\1\0\0\0\0" "\0\2\0\0\0\0" "\0\4\x40\0\0\0", 18);
    put_frame(at + 27, 4, F_WINDOW_UPDATE, 0, 0);
    memcpy(at + 36, "\x7f\0\0\0", 4); /* and nearly 2^31 for the connection */
    send_all(caller, hello, sizeof hello);
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report(double seconds) {
    qsort(times, answers, sizeof *times, by_size);
    double sum = 0;
    for (size_t i = 0; i < answers; i++) sum += times[i];
    printf("{\"answers\":%zu,\"per_s\":%.1f,\"bytes\":%.0f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           answers, answers / seconds, (double)answer_bytes / answers, sum / answers, times[answers / 2],
           times[answers * 9 / 10], times[answers * 99 / 100], times[answers - 1]);
}

int main(int count, char **given) {
    if (count != 9) fail("usage: load http|grpc PORT PATH BODY_FILE CALLERS SECONDS KEYS SEED", "", 0);
    grpc = !strcmp(given[1], "grpc"), port = atoi(given[2]), path = given[3];
    int callers = atoi(given[5]);
    double seconds = atof(given[6]);
    keys = strtoull(given[7], NULL, 10), chance = strtoull(given[8], NULL, 10) * 2 + 1;
    static unsigned char body[1 << 19];
    FILE *file = fopen(given[4], "rb");
    if (!file) fail("cannot read", given[4], strlen(given[4]));
    prepare(body, fread(body, 1, sizeof body, file));
    times = malloc(MOST_TIMES * sizeof *times);
    int poll = epoll_create1(0);
    Caller *all = calloc(callers, sizeof *all);
    for (int i = 0; i < callers; i++) open_connection(&all[i], poll);
    int64_t begun = now(), since = begun + (int64_t)(seconds * 1e8), until = since + (int64_t)(seconds * 1e9);
    for (int i = 0; i < callers; i++) ask(&all[i]);
    while (now() < until || answers < (size_t)callers) {
        struct epoll_event events[256];
        int n = epoll_wait(poll, events, 256, 100);
        for (int i = 0; i < n; i++) {
            Caller *caller = events[i].data.ptr;
            ssize_t got = recv(caller->fd, caller->in + caller->have, IN - caller->have, 0);
            if (got <= 0) fail("a connection broke", caller->in, caller->have);
            caller->have += got;
            while (grpc ? grpc_answer(caller) : http_answer(caller)) {
                answered(caller, since);
                ask(caller);
            }
        }
    }
    report((now() - since) / 1e9);
    return 0;
}
