/* A closed-loop load generator over HTTP/1.1 or gRPC, for whole answers and streams of them.

   usage: load http|grpc PORT PATH BODY_FILE CALLERS CONNECTIONS SECONDS|hold KEYS SEED WORDS

   Every caller has one request out at a time; callers are spread over the connections, over HTTP/1.1 one on each. In the
   body the ten characters `##########` become a number below KEYS, drawn anew for each request, and `@@@@@@@@@@` one
   that no other request has where no other run has SEED (below ten thousand, each with a million numbers); both in ten
   digits, so that lengths never change. An answer is right where it has WORDS words, or more: each has one `~`.

   The first tenth of the time is for warming up, and does not count. Rates are of what came within the rest; times are
   those of requests that began in it, the last of which are waited for; where there is none, it lasts until one has
   come. Prints one line of JSON. With `hold`, every caller asks once; once all have their first word, one line says so,
   and all stays as it is until standard input ends. An answer that is wrong, and a connection that breaks, end the run
   with exit code 1. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TIMES = 20000000, DIGITS = 10, PER_SEED = 1000000 };
static const int64_t OVERTIME = 60000000000;

int port, calls_each;
const char *path;
unsigned char request[1 << 20];
size_t request_size;

static const Protocol *protocol;
static int poll_fd, hold;
static unsigned char *drawn_at, *unique_at;
static uint64_t keys, chance, unique, last_unique;
static size_t words_due, out, started;
static int64_t since, until;
static float *times, *firsts;
static size_t timed, all, answers, words;
static uint64_t answer_bytes;

int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void fail(const char *what, const void *shown, size_t size) {
    fprintf(stderr, "load: %s", what);
    if (size) fprintf(stderr, ": %.*s", (int)(size > 400 ? 400 : size), (const char *)shown);
    fputc('\n', stderr);
    exit(1);
}

static void fail_by(const char *what) {
    fail(what, strerror(errno), strlen(strerror(errno)));
}

void send_all(Connection *connection, const void *bytes, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(connection->fd, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) fail_by("cannot send");
        if (n > 0) sent += n;
    }
}

static uint64_t draw(void) { /* xorshift64* */
    chance ^= chance >> 12, chance ^= chance << 25, chance ^= chance >> 27;
    return chance * 0x2545F4914F6CDD1DULL;
}

static void put_number(unsigned char *at, uint64_t number) {
    for (int i = DIGITS - 1; at && i >= 0; i--, number /= 10) at[i] = '0' + number % 10;
}

static void ask(Connection *connection, Call *call) {
    put_number(drawn_at, draw() % keys);
    put_number(unique_at, unique++);
    if (unique_at && unique == last_unique) fail("more requests than one SEED has numbers for", "", 0);
    call->body = call->words = 0, call->first = 0, call->out = 1;
    out++;
    call->begun = now();
    protocol->ask(connection, call);
}

void took(Call *call, const unsigned char *bytes, size_t size) {
    const unsigned char *end = bytes + size, *found = bytes;
    size_t before = call->words;
    while ((found = memchr(found, MARK, end - found))) call->words++, found++;
    call->body += size;
    if (call->words == before) return;
    int64_t at = now();
    if (!before) call->first = at, started++;
    if (!words && at >= until) until = at + 1; /* a rate is of something */
    if (at >= since && at < until) words += call->words - before;
}

void answered(Connection *connection, Call *call) {
    int64_t at = now();
    if (call->words < words_due) {
        char text[80];
        fail("an answer has too few words", text, sprintf(text, "%zu of %zu", call->words, words_due));
    }
    if (hold) fail("an answer that should be held open has ended", "", 0);
    call->out = 0, out--, all++;
    if (call->begun >= since) {
        if (timed == MOST_TIMES) fail("too many answers to remember", "", 0);
        firsts[timed] = (call->first - call->begun) / 1e3f;
        times[timed++] = (at - call->begun) / 1e3f;
        answer_bytes += call->body;
    }
    if (!answers && at >= until) until = at + 1;
    if (at >= since && at < until) answers++;
    if ((at < until || !timed) && !connection->leaving) ask(connection, call);
}

static void open_connection(Connection *connection) {
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(connection->fd, (void *)&peer, sizeof peer)) fail_by("cannot connect");
    if (!connection->in) connection->in = malloc(IN + 1);
    connection->have = 0, connection->leaving = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, connection->fd, &event);
    protocol->hello(connection);
}

static int is_idle(const Connection *connection) {
    for (int i = 0; i < calls_each; i++)
        if (connection->calls[i].out) return 0;
    return 1;
}

/* A connection that the peer has closed, or will close, is opened anew between answers. */
static void renew(Connection *connection, int callers) {
    close(connection->fd);
    open_connection(connection);
    for (int i = 0; i < callers && (now() < until || !timed); i++) ask(connection, &connection->calls[i]);
}

static void receive(Connection *connection, int callers) {
    ssize_t got = recv(connection->fd, connection->in + connection->have, IN - connection->have, 0);
    if (got <= 0 && !is_idle(connection)) fail("a connection broke", connection->in, connection->have);
    if (got > 0) {
        connection->have += got;
        protocol->take(connection);
    }
    if (got <= 0 || (connection->leaving && is_idle(connection))) renew(connection, callers);
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report_times(const char *name, float *all_times) {
    double sum = 0;
    qsort(all_times, timed, sizeof *all_times, by_size);
    for (size_t i = 0; i < timed; i++) sum += all_times[i];
    printf(",\"%smean_us\":%.1f,\"%sp50_us\":%.1f,\"%sp90_us\":%.1f,\"%sp99_us\":%.1f,\"%smax_us\":%.1f", name, sum / timed,
           name, all_times[timed / 2], name, all_times[timed * 9 / 10], name, all_times[timed * 99 / 100], name,
           all_times[timed - 1]);
}

static void report(void) {
    double seconds = (until - since) / 1e9;
    printf("{\"answers\":%zu,\"all\":%zu,\"per_s\":%.1f,\"words_per_s\":%.1f,\"bytes\":%.0f", timed, all, answers / seconds,
           words / seconds, (double)answer_bytes / timed);
    report_times("", times);
    report_times("first_", firsts);
    puts("}");
}

static void report_held(size_t callers) {
    printf("{\"open\":%zu}\n", callers);
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &event); /* standard input, which has no connection */
}

static void prepare(const char *file_name) {
    static unsigned char body[1 << 19];
    FILE *file = fopen(file_name, "rb");
    if (!file) fail("cannot read", file_name, strlen(file_name));
    protocol->prepare(body, fread(body, 1, sizeof body, file));
    drawn_at = memmem(request, request_size, "##########", DIGITS);
    unique_at = memmem(request, request_size, "@@@@@@@@@@", DIGITS);
    times = malloc(MOST_TIMES * sizeof *times), firsts = malloc(MOST_TIMES * sizeof *firsts);
}

static int callers_of(int number, int connections, int callers) {
    return callers / connections + (number < callers % connections);
}

static void run(Connection *connections, int count, int callers) {
    for (int said = 0;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poll_fd, events, 256, 100);
        for (int i = 0; i < n; i++) {
            Connection *connection = events[i].data.ptr;
            if (!connection) return;
            receive(connection, callers_of(connection - connections, count, callers));
        }
        int64_t at = now();
        if (hold && !said && started == (size_t)callers) said = 1, report_held(callers);
        if (at >= until && !out) return;
        if (at >= until + OVERTIME || (hold && !said && at >= since + OVERTIME)) fail("answers did not come in time", "", 0);
    }
}

int main(int count, char **given) {
    if (count != 11) fail("usage: load http|grpc PORT PATH BODY_FILE CALLERS CONNECTIONS SECONDS|hold KEYS SEED WORDS", "", 0);
    protocol = strcmp(given[1], "grpc") ? &http : &grpc, port = atoi(given[2]), path = given[3];
    int callers = atoi(given[5]), connections = atoi(given[6]);
    hold = !strcmp(given[7], "hold");
    double seconds = hold ? 1e6 : atof(given[7]);
    uint64_t seed = strtoull(given[9], NULL, 10);
    keys = strtoull(given[8], NULL, 10), chance = seed * 2 + 1, unique = seed * PER_SEED, last_unique = unique + PER_SEED;
    words_due = strtoull(given[10], NULL, 10);
    calls_each = (callers + connections - 1) / connections;
    if (protocol == &http && calls_each > 1) fail("over HTTP/1.1 every caller needs a connection", "", 0);
    prepare(given[4]);
    poll_fd = epoll_create1(0);
    Connection *every = calloc(connections, sizeof *every);
    for (int i = 0; i < connections; i++) {
        every[i].calls = calloc(calls_each, sizeof *every[i].calls);
        open_connection(&every[i]);
    }
    int64_t begun = now();
    since = hold ? begun : begun + (int64_t)(seconds * 1e8), until = since + (int64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++)
        for (int j = 0; j < callers_of(i, connections, callers); j++) ask(&every[i], &every[i].calls[j]);
    run(every, connections, callers);
    if (!hold) report();
    return 0;
}
