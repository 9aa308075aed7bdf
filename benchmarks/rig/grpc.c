/* gRPC as far as the load generator needs it: HTTP/2 without TLS (RFC 9113), a request message, answers of any number.

   A request is HEADERS and DATA; DATA of the answer are counted, and its end is END_STREAM. The peer may not use the
   dynamic table (SETTINGS_HEADER_TABLE_SIZE 0), so no header has to be decoded: an answer that has fewer words than it
   should is a failure, as every error of gRPC is. Our windows are so large that they do not end within a run; of the
   peer's, that of the connection is counted, and a request is far smaller than that of a stream. */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
enum { FRAME = 9, FIRST_WINDOW = 65535 };

static size_t data_at; /* of the request's DATA frame; its HEADERS are before it */

static void put_frame(unsigned char *at, size_t size, int type, int flags, uint32_t stream) {
    at[0] = size >> 16, at[1] = size >> 8, at[2] = size, at[3] = type, at[4] = flags;
    stream = htonl(stream);
    memcpy(at + 5, &stream, 4);
}

static uint32_t number(const unsigned char *at) {
    uint32_t found;
    memcpy(&found, at, 4);
    return ntohl(found) & 0x7fffffff;
}

/* A literal header that is not indexed (RFC 7541, 6.2.2), its name from the static table. */
static size_t literal(unsigned char *at, int name, const char *value) {
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
    unsigned char *at = request + FRAME;
    *at++ = 0x83, *at++ = 0x86; /* :method POST, :scheme http */
    at += literal(at, 4, path), at += literal(at, 1, "localhost");
    at += literal(at, 31, "application/grpc");
    memcpy(at, "\x00\x02te\x08trailers", 13);
    at += 13;
    put_frame(request, at - request - FRAME, HEADERS, END_HEADERS, 0);
    data_at = at - request;
    put_frame(at, size + 5, DATA, END_STREAM, 0);
    uint32_t length = htonl(size);
    at[FRAME] = 0; /* not compressed */
    memcpy(at + FRAME + 1, &length, 4);
    memcpy(at + FRAME + 5, body, size);
    request_size = data_at + FRAME + 5 + size;
}

static void hello(Connection *connection) {
    unsigned char sent[24 + 27 + 13], *at = sent + 24;
    memcpy(sent, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(at, 18, SETTINGS, 0, 0); /* HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE 2^30 */
    memcpy(at + 9, "\0\1\0\0\0\0" "\0\2\0\0\0\0" "\0\4\x40\0\0\0", 18);
    put_frame(at + 27, 4, WINDOW_UPDATE, 0, 0);
    memcpy(at + 36, "\x7f\0\0\0", 4); /* and nearly 2^31 for the connection */
    connection->stream = 1, connection->window = FIRST_WINDOW;
    send_all(connection, sent, sizeof sent);
}

static void ask(Connection *connection, Call *call) {
    connection->window -= request_size - data_at - FRAME;
    if (connection->window < 0) fail("the peer's window for the connection has no room for a request", "", 0);
    call->stream = connection->stream;
    connection->stream += 2;
    uint32_t stream = htonl(call->stream);
    memcpy(request + 5, &stream, 4);
    memcpy(request + data_at + 5, &stream, 4);
    send_all(connection, request, request_size);
}

static void control(Connection *connection, int type, int flags, size_t size, const unsigned char *payload) {
    unsigned char reply[FRAME + 8];
    if (type == RST_STREAM) fail("the peer has reset a stream", "", 0);
    if (type == GOAWAY) {
        if (size >= 8 && number(payload + 4)) fail("the peer has ended the connection", payload + 8, size - 8);
        connection->leaving = 1;
    } else if (type == SETTINGS && !(flags & ACK)) {
        put_frame(reply, 0, SETTINGS, ACK, 0);
        send_all(connection, reply, FRAME);
    } else if (type == PING && !(flags & ACK)) {
        put_frame(reply, 8, PING, ACK, 0);
        memcpy(reply + FRAME, payload, 8);
        send_all(connection, reply, FRAME + 8);
    }
}

static Call *call_of(Connection *connection, uint32_t stream) {
    for (int i = 0; i < calls_each; i++)
        if (connection->calls[i].stream == stream) return &connection->calls[i];
    return NULL;
}

static void take(Connection *connection) {
    size_t at = 0, have = connection->have;
    while (have - at >= FRAME) {
        const unsigned char *frame = connection->in + at, *payload = frame + FRAME;
        size_t size = frame[0] << 16 | frame[1] << 8 | frame[2];
        if (size > IN - FRAME) fail("the peer sent a frame that is too large", "", 0);
        if (have - at < FRAME + size) break;
        int type = frame[3], flags = frame[4];
        uint32_t stream = number(frame + 5);
        at += FRAME + size;
        if (type == WINDOW_UPDATE && !stream) connection->window += number(payload);
        if (type != DATA && type != HEADERS) {
            control(connection, type, flags, size, payload);
            continue;
        }
        Call *call = call_of(connection, stream);
        if (!call) fail("the peer answers what was not asked", "", 0);
        if (type == DATA) took(call, payload, size);
        if (flags & END_STREAM) {
            if (!call->words) fail("an answer is no success", payload, size);
            call->stream = 0;
            answered(connection, call);
        }
    }
    connection->have -= at;
    memmove(connection->in, connection->in + at, connection->have);
}

const Protocol grpc = {prepare, hello, ask, take};
