/*
 * A server of several processes on loopback TCP, clients whose first flight is recorded before it is sent, and
 * whoever plays such a flight to any of the processes.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include "check.h"
#include "tls.h"

#include <stdatomic.h>

#define MAX_WORKERS 4
#define MAX_FLIGHTS 2000

struct worker {
    pid_t pid;
    int listener, port;
    SSL_CTX *ctx;
};

/* What the workers have done, in shared memory. */
struct board {
    atomic_uint accepted[MAX_FLIGHTS];      /* times the early data of this flight was handed to the application */
    atomic_uint by_worker[MAX_WORKERS];     /* early data this worker has accepted */
};

struct fleet {
    int count;
    struct worker workers[MAX_WORKERS];
    struct board *board;
    void (*before)(void);                   /* what a worker does first */
};

/* ClientHello and early data as a client has sent them, and that client, which waits for its answer. */
struct flight {
    int number;
    size_t len;
    unsigned char bytes[2048];
    SSL *client;
};

/* Starts MAX_WORKERS processes that accept early data, each on the SSL_CTX given for it. */
struct fleet *fleet_start(SSL_CTX *const ctxs[MAX_WORKERS], void (*before)(void));

/* Ends one worker with SIGKILL, starts another in its place on the same port, ends all. */
void fleet_kill(struct fleet *fleet, int n);
void fleet_spawn(struct fleet *fleet, int n);
void fleet_stop(struct fleet *fleet);

/* A full connection to one worker; the tickets it brought, at most two. */
size_t fleet_tickets(struct fleet *fleet, int n, struct saved tickets[2]);

/* Records what a client sends that offers a ticket and the order with this number as early data. */
void flight_record(struct flight *flight, int number, const struct saved *ticket, const char *groups);

/*
 * Sends the flight to all workers at once. The client itself goes on with one of them, if `honest` is not negative: its
 * answer is two letters, r or f for a resumed or full handshake, e or - for early data. The others go away when they
 * have been answered.
 */
const char *flight_strike(struct fleet *fleet, struct flight *flight, int honest);

/* The client itself alone, with one worker. */
const char *flight_deliver(struct fleet *fleet, struct flight *flight, int n);

/* Lets go of the client; the bytes stay. */
void flight_end(struct flight *flight);

/* Records flights number `from` to `to`, with tickets from each worker in turn. */
void fleet_record(struct fleet *fleet, struct flight *flights, int from, int to, const char *groups);

/* Plays them to all workers; whose they are has nothing to do with it. */
void fleet_play(struct fleet *fleet, struct flight *flights, int from, int to);

/* How often the application got the early data of this flight; that it got it so often of each of many. */
unsigned fleet_accepted(const struct fleet *fleet, int number);
void fleet_expect(const struct fleet *fleet, int from, int to, unsigned times, const char *when);

#endif
