/* What the load generator's protocols and its loop share. */
#ifndef LOAD_H
#define LOAD_H
#include <stddef.h>
#include <stdint.h>

enum { IN = 1 << 16, MARK = '~' };

typedef struct {
    uint32_t stream; /* its HTTP/2 stream; 0 where nothing is out */
    int64_t begun, first, last; /* the request, its first and its latest word, in ns */
    size_t body;  /* bytes of the answer so far */
    size_t words; /* words of the answer so far: each has one MARK */
    int out;
} Call;

typedef struct Connection {
    int fd;
    Call *calls; /* so many as `calls_each`; over HTTP/1.1 one */
    unsigned char *in;
    size_t have;
    int leaving; /* the peer takes no more calls on it */
    /* HTTP/1.1: where in an answer it is, and how many bytes of this part are to come */
    int part;
    size_t left;
    /* HTTP/2: the next call's stream, and how many bytes may still be sent */
    uint32_t stream;
    int64_t window;
} Connection;

typedef struct {
    void (*prepare)(const unsigned char *body, size_t size);
    void (*hello)(Connection *connection); /* after it has connected */
    void (*ask)(Connection *connection, Call *call);
    void (*take)(Connection *connection); /* what has come: `IN - have` bytes at most */
} Protocol;

extern const Protocol http, grpc;

/* Of the whole program: load.c. */
extern int port, calls_each;
extern const char *path;
extern unsigned char request[1 << 20];
extern size_t request_size;

int64_t now(void);
void fail(const char *what, const void *shown, size_t size);
void send_all(Connection *connection, const void *bytes, size_t size);
void took(Call *call, const unsigned char *bytes, size_t size); /* bytes of an answer's body have come */
void answered(Connection *connection, Call *call);              /* the whole answer has come */
#endif
