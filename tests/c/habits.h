/*
 * Servers as they are: process models, and what a server does to itself before it serves. Each is run as it would be without
 * sesscache and with it, by clients that each come back once.
 */
#ifndef HABITS_H
#define HABITS_H

#include "check.h"
#include "tls.h"

/* Clients of each protocol version. */
#define CLIENTS 8

enum model {
    ONE_PROCESS,
    THREAD_PER_CONNECTION,
    PREFORK,                /* two workers accept from one socket; the SSL_CTX is the master's */
    PREFORK_CONTEXT_PER_WORKER,
    PREFORK_CONTEXT_PER_CONNECTION,
    FORK_PER_CONNECTION,    /* the SSL_CTX is the listener's */
    EXEC_PER_CONNECTION,
    CONTEXT_PER_CONNECTION
};

enum sessions { IDS, DEFAULT, ATTACHED };

/* How many of CLIENTS must resume with the cache. */
enum bar {
    BAR_OF_ALL,
    BAR_OF_IDS,     /* as many as with session ids */
    JUST_AS_IDS,    /* and no more: the server wants it so */
    BAR_OF_CHANCE   /* it depends on which worker is faster: only failures count */
};

struct habit {
    const char *name;
    enum model model;
    const char *options;                    /* of the cache */
    int holds;                              /* calls sesscache_hold() in the listener */
    SSL_CTX *(*make)(void);                 /* the SSL_CTX, if it is not the usual one */
    void (*context)(SSL_CTX *ctx);          /* what the server sets on it */
    void (*listener)(const char *scratch);  /* what the process does to itself before its first connection */
    void (*child)(const char *scratch, int connection);     /* and what each child or thread does before its handshake */
    SSL *(*made)(SSL *ssl);                 /* what each SSL is replaced by before its handshake */
    void (*established)(SSL *ssl);          /* after each handshake */
    void (*between)(const char *scratch);   /* what befalls the server between the two visits of its clients */
    int version;                            /* the only one it is tried with, if any */
    int used_again;                         /* one SSL for all connections, by SSL_clear(3) */
    enum bar bar;
};

/* In `main`, before anything else: does not return in a program that was started for a connection of one of these habits. */
void habit_serve_one(int argc, char **argv, const struct habit *habits, size_t count);

/* Runs the habits and prints a line for each; checks that nothing is lost by the cache. */
void habits_compare(const struct habit *habits, size_t count, const char *scratch);

#endif
