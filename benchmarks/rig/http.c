/* HTTP/1.1 as far as the load generator needs it (RFC 9112): answers with a length, or in chunks. */
#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD, WHOLE, SIZE, CHUNK, AFTER_CHUNK, TRAILER };

static void prepare(const unsigned char *body, size_t size) {
    request_size = sprintf((char *)request,
                           "POST %s HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                           path, port, size);
    memcpy(request + request_size, body, size);
    request_size += size;
}

static void hello(Connection *connection) {
    connection->part = HEAD;
}

static void ask(Connection *connection, Call *call) {
    (void)call;
    send_all(connection, request, request_size);
}

static const char *header(const char *head, const char *end, const char *name) {
    const char *found = strcasestr(head, name);
    return found && found < end ? found + strlen(name) : NULL;
}

/* Reads the head of an answer; how many bytes it took, 0 where it has not all come. */
static size_t read_head(Connection *connection, const unsigned char *at, size_t size) {
    const char *head = (const char *)at, *end = memmem(head, size, "\r\n\r\n", 4);
    if (!end) {
        if (size == IN) fail("the head of an answer is too long", head, size);
        return 0;
    }
    if (strncmp(head, "HTTP/1.1 200", 12)) fail("an answer is no success", head, size);
    const char *length = header(head, end, "\r\ncontent-length:");
    if (header(head, end, "\r\nconnection: close")) connection->leaving = 1;
    if (length) {
        connection->part = WHOLE, connection->left = strtoul(length, NULL, 10);
    } else if (header(head, end, "\r\ntransfer-encoding: chunked")) {
        connection->part = SIZE;
    } else {
        fail("an answer has neither a length nor chunks", head, end - head);
    }
    return end + 4 - head;
}

/* Reads a line, such as the size of a chunk; how many bytes it took, 0 where it has not all come. */
static size_t read_line(const unsigned char *at, size_t size, size_t *number) {
    const unsigned char *end = memchr(at, '\n', size);
    if (!end) return 0;
    if (number) *number = strtoul((const char *)at, NULL, 16);
    return end + 1 - at;
}

static size_t step(Connection *connection, const unsigned char *at, size_t size, int *done) {
    size_t used, part = size < connection->left ? size : connection->left;
    switch (connection->part) {
    case HEAD:
        used = read_head(connection, at, size);
        *done = used && connection->part == WHOLE && !connection->left;
        return used;
    case WHOLE:
    case CHUNK:
        took(connection->calls, at, part);
        connection->left -= part;
        if (!connection->left && connection->part == CHUNK) connection->part = AFTER_CHUNK;
        *done = !connection->left && connection->part == WHOLE;
        return part;
    case SIZE:
        used = read_line(at, size, &connection->left);
        if (used) connection->part = connection->left ? CHUNK : TRAILER;
        return used;
    case AFTER_CHUNK:
        used = read_line(at, size, NULL);
        if (used) connection->part = SIZE;
        return used;
    default: /* TRAILER: lines until an empty one */
        used = read_line(at, size, NULL);
        *done = used == 2;
        return used;
    }
}

static void take(Connection *connection) {
    size_t at = 0, used;
    connection->in[connection->have] = 0; /* so that searches for text end */
    do {
        int done = 0;
        used = step(connection, connection->in + at, connection->have - at, &done);
        at += used;
        if (done) {
            if (at != connection->have) fail("more has come than an answer", connection->in + at, connection->have - at);
            connection->have = at = 0, connection->part = HEAD;
            answered(connection, connection->calls);
            return;
        }
    } while (used && at < connection->have);
    connection->have -= at;
    memmove(connection->in, connection->in + at, connection->have);
}

const Protocol http = {prepare, hello, ask, take};
