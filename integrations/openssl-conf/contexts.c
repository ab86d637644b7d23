/*
 * The SSL_CTXs of the process, and what becomes of each: an SSL_CTX is attached when it makes its first connection, since the program
 * has finished with it by then, and is let go when the program sets session callbacks later.
 *
 * There is no lock, so that a child forked in the midst of this never waits. What a thread works on is marked with its process id; a
 * mark of another process is one that the fork left behind.
 */
#include "module.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Of a connection without a certificate nobody knows whose it is: one that has none so long is a client's. */
enum { LOOKS = 16 };
/* SSL_CTXs that each SSL_new looks at again, for callbacks that the program has set since. */
enum { LOOKS_BACK = 4 };
/* How often a connection gives way to a thread that attaches its SSL_CTX, and for how many milliseconds it waits for it then. */
enum { YIELDS = 64, WAIT_MS = 1000 };

/* What an SSL_CTX is to us. From MAKING on, with a process id above it: a thread of that process is at work on it, and these say
   what it was before: FREE, PENDING and ATTACHED. */
enum { FREE, PENDING, ATTACHED, LEFT, MAKING, ATTACHING, LOOKING };
enum { STATE_BITS = 3 };

struct context {
    struct context *next;               /* of all there ever were: they are used again, never freed */
    _Atomic uint32_t state;
    SSL_CTX *ctx;
    pthread_t maker;
    time_t made;
    int looks;
    int (*new_cb)(SSL *, SSL_SESSION *);
    SSL_SESSION *(*get_cb)(SSL *, const unsigned char *, int, int *);
    void (*remove_cb)(SSL_CTX *, SSL_SESSION *);
};

static _Atomic(struct context *) contexts, cursor;
/* How many are PENDING or ATTACHING, and how many FREE. */
static _Atomic uint32_t pending, unused;
static _Atomic(time_t) failed_at;
static int ctx_index = -1;

static int caches(SSL_CTX *ctx)
{
    return (call.ctrl(ctx, SSL_CTRL_GET_SESS_CACHE_MODE, 0, NULL) & SSL_SESS_CACHE_SERVER) != 0;
}

static uint32_t attach(struct context *context, SSL_CTX *own)
{
    SSL_CTX *ctx = context->ctx;
    sesscache *handle;

    /* The program may be configuring it: a second later it is taken to have finished. Where it is not known whose connection this
       is, an SSL_CTX that this thread has made may well be its own. */
    if (ctx != own && (own != NULL || !pthread_equal(context->maker, pthread_self())) && time(NULL) - context->made <= 1)
        return PENDING;
    switch (role_of(ctx)) {
    case SERVER:
        break;
    case CLIENT:
        report.clients++;
        return LEFT;
    case UNKNOWN:
        if (++context->looks < LOOKS)
            return PENDING;
        report.clients++;
        return LEFT;
    }
    if (!settings.force && !caches(ctx)) {
        report.switched_off++;
        return LEFT;
    }
    if (context->new_cb == NULL && (call.new_cb(ctx) != NULL || call.get_cb(ctx) != NULL || call.remove_cb(ctx) != NULL)) {
        report.refused++;
        return LEFT;
    }
    if ((handle = cache()) == NULL) {
        report.failed++;
        atomic_store(&failed_at, time(NULL));
        return PENDING;
    }
    if (call.attach(handle, ctx) != SESSCACHE_OK) {
        report.failed++;
        complain(call.errmsg());
        return LEFT;
    }
    if (settings.session_id_context_len > 0)
        call.set_context(ctx, (const unsigned char *)settings.session_id_context, settings.session_id_context_len);
    context->new_cb = call.new_cb(ctx);
    context->get_cb = call.get_cb(ctx);
    context->remove_cb = call.remove_cb(ctx);
    report.attached++;
    return ATTACHED;
}

/* What the program has set since counts, and then nothing of ours stays. Without a session cache it relies on tickets, which attaching
   has replaced. */
static uint32_t look_back(struct context *context, SSL_CTX *own)
{
    SSL_CTX *ctx = context->ctx;
    int ours = call.new_cb(ctx) == context->new_cb && call.get_cb(ctx) == context->get_cb && call.remove_cb(ctx) == context->remove_cb;

    if (ours && caches(ctx))
        return ATTACHED;
    call.detach(ctx);
    if (!ours) {
        report.detached++;
        return LEFT;
    }
    if (!settings.force) {
        report.switched_off++;
        return LEFT;
    }
    context->new_cb = NULL;
    return attach(context, own);
}

static uint32_t kind(uint32_t state)
{
    return state % (1u << STATE_BITS);
}

static uint32_t mark(uint32_t work)
{
    return work | (uint32_t)getpid() << STATE_BITS;
}

/* Whether a thread of this process is at work on it. */
static int is_taken(uint32_t state)
{
    return kind(state) >= MAKING && state == mark(kind(state));
}

/* Lets `work` say what becomes of a context that is `from`; the SSL_CTX is not freed meanwhile. `own`: of the connection that is made. */
static void with(struct context *context, uint32_t from, uint32_t (*work)(struct context *, SSL_CTX *), SSL_CTX *own)
{
    uint32_t was = from, next;

    if (!atomic_compare_exchange_strong(&context->state, &was, mark(from == PENDING ? ATTACHING : LOOKING)))
        return;
    next = work(context, own);
    if (from == PENDING && next != PENDING)
        atomic_fetch_sub(&pending, 1);
    if (from != PENDING && next == PENDING)
        atomic_fetch_add(&pending, 1);
    atomic_store(&context->state, next);
}

/* What a fork has cut short is pending again; an SSL_CTX that was being made is nobody's in the child. */
static void repair(struct context *context)
{
    uint32_t state = atomic_load(&context->state), work = kind(state);

    if (work < MAKING || is_taken(state)
        || !atomic_compare_exchange_strong(&context->state, &state, work == MAKING ? FREE : PENDING))
        return;
    if (work == MAKING)
        atomic_fetch_add(&unused, 1);
    if (work == LOOKING)
        atomic_fetch_add(&pending, 1);
}

/* Waits, not for ever, while another thread attaches the SSL_CTX of this connection. A connection that went on would issue tickets that
   the attached SSL_CTX refuses. */
static void wait_for_others(struct context *context)
{
    const struct timespec millisecond = { 0, 1000000 };

    for (int i = 0; i < YIELDS + WAIT_MS && is_taken(atomic_load(&context->state)); i++)
        if (i < YIELDS)
            sched_yield();
        else
            nanosleep(&millisecond, NULL);
}

/* All of them: a server may switch a connection to any. Where nobody knows whose connection it is, it may be that of an SSL_CTX which
   another thread is attaching. */
static void attach_what_is_pending(SSL_CTX *own)
{
    if (time(NULL) == atomic_load(&failed_at))
        return;
    for (struct context *context = atomic_load(&contexts); context != NULL; context = context->next) {
        repair(context);
        with(context, PENDING, attach, own);
        if (own == NULL && kind(atomic_load(&context->state)) == ATTACHING)
            wait_for_others(context);
    }
}

/* Looks at a few each time, so that many SSL_CTXs cost no connection much. */
static void look_back_at_some(SSL_CTX *own)
{
    struct context *context = atomic_load(&cursor);

    for (int i = 0; i < LOOKS_BACK; i++) {
        if (context == NULL && (context = atomic_load(&contexts)) == NULL)
            return;
        repair(context);
        with(context, ATTACHED, look_back, own);
        context = context->next;
    }
    atomic_store(&cursor, context);
}

/* SSL_new. In OpenSSL 3.0 and 3.1 the SSL has its SSL_CTX and has copied its settings; later it has none yet, and copies them next. */
static void on_ssl(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    int before = errno;
    struct context *context;
    SSL_CTX *own;

    (void)ptr, (void)data, (void)index, (void)argl, (void)argp;
    if (!call.ready)
        return;
    own = call.get_ctx(parent);
    context = own != NULL ? call.get_ex_data(own, ctx_index) : NULL;
    if (context != NULL) {
        repair(context);
        with(context, ATTACHED, look_back, own);
    } else {
        look_back_at_some(own);
    }
    if (atomic_load(&pending) > 0)
        attach_what_is_pending(own);
    if (context != NULL)
        wait_for_others(context);
    if (context != NULL && call.inherit(parent) == SESSCACHE_OK && settings.session_id_context_len > 0)
        call.set_context_of_ssl(parent, (const unsigned char *)settings.session_id_context, settings.session_id_context_len);
    errno = before;
}

/* A place that an SSL_CTX has left, or a new one. */
static struct context *place(void)
{
    struct context *context, *first;

    if (atomic_load(&unused) > 0)
        for (context = atomic_load(&contexts); context != NULL; context = context->next) {
            uint32_t was = FREE;

            if (atomic_compare_exchange_strong(&context->state, &was, mark(MAKING))) {
                atomic_fetch_sub(&unused, 1);
                return context;
            }
        }
    context = calloc(1, sizeof *context);
    if (context == NULL)
        return NULL;
    atomic_store(&context->state, mark(MAKING));
    first = atomic_load(&contexts);
    do
        context->next = first;
    while (!atomic_compare_exchange_weak(&contexts, &first, context));
    return context;
}

/* SSL_CTX_new */
static void on_ctx(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    int before = errno;
    struct context *context;

    (void)ptr, (void)argl, (void)argp;
    prepare();
    context = NULL;
    if (call.ready && is_shared(parent))
        report.shared++;
    else if (call.ready)
        context = place();
    if (context != NULL) {
        context->ctx = parent;
        context->maker = pthread_self();
        context->made = time(NULL);
        context->looks = 0;
        context->new_cb = NULL;
        report.made++;
        atomic_fetch_add(&pending, 1);
        atomic_store(&context->state, PENDING);
        CRYPTO_set_ex_data(data, index, context);
    }
    errno = before;
}

/* SSL_CTX_free: first of all it frees the ex_data. */
static void off_ctx(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    struct context *context = ptr;
    uint32_t state;

    (void)parent, (void)data, (void)index, (void)argl, (void)argp;
    if (context == NULL)
        return;
    state = atomic_load(&context->state);
    do
        while (is_taken(state)) {
            sched_yield();
            state = atomic_load(&context->state);
        }
    while (!atomic_compare_exchange_weak(&context->state, &state, FREE));
    if (kind(state) == PENDING || kind(state) == ATTACHING)
        atomic_fetch_sub(&pending, 1);
    atomic_fetch_add(&unused, 1);
}

void follow_contexts(void)
{
    ctx_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, on_ctx, NULL, off_ctx);
    CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, on_ssl, NULL, NULL);
}
