/* A server with an LMDB of its own, linked with sesscache: each must keep its own. The functions that open a store are
 * this program's, and count; behind them is the LMDB it is linked with. sesscache must call none of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <err.h>
#include <lmdb.h>
#include <sesscache.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int __real_mdb_env_create(MDB_env **env);
int __real_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **txn);

static int calls;

/* The linker leads every call of these that is left undefined in an object to here (--wrap). */
int __wrap_mdb_env_create(MDB_env **env)
{
    calls++;
    return __real_mdb_env_create(env);
}

int __wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned int flags, MDB_txn **txn)
{
    calls++;
    return __real_mdb_txn_begin(env, parent, flags, txn);
}

static void check(int code, const char *what)
{
    if (code != 0)
        errx(1, "%s: %s", what, mdb_strerror(code));
}

/* One record into the program's own store and out of it again, in two transactions. */
static void use_own(MDB_env *env, const char *text)
{
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = { 3, "key" }, value = { strlen(text) + 1, (void *)text }, found;
    check(mdb_txn_begin(env, NULL, 0, &txn), "begin a write");
    check(mdb_dbi_open(txn, NULL, 0, &dbi), "open the table");
    check(mdb_put(txn, dbi, &key, &value, 0), "put");
    check(mdb_txn_commit(txn), "commit");
    check(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin a read");
    check(mdb_get(txn, dbi, &key, &found), "get");
    if (strcmp(found.mv_data, text) != 0)
        errx(1, "the program's own store gives back something else");
    mdb_txn_abort(txn);
}

static void use_sesscache(sesscache *cache, const char *text)
{
    char found[64];
    size_t len = sizeof found;
    const unsigned char *id = (const unsigned char *)"id";
    if (sesscache_put(cache, id, 2, text, strlen(text) + 1, (int64_t)time(NULL) + 60) != SESSCACHE_OK
        || sesscache_get(cache, id, 2, found, &len) != SESSCACHE_OK)
        errx(1, "sesscache: %s", sesscache_errmsg());
    if (strcmp(found, text) != 0)
        errx(1, "sesscache gives back something else");
}

/* Prints how many calls of LMDB the program made itself, and how many it has seen in all. */
int main(int argc, char **argv)
{
    MDB_env *env;
    sesscache *cache;
    char path[4096];
    if (argc != 2)
        errx(2, "usage: own_lmdb DIRECTORY");
    snprintf(path, sizeof path, "%s/own", argv[1]);
    if (mkdir(path, 0700) != 0)
        err(1, "%s", path);
    check(mdb_env_create(&env), "create");
    check(mdb_env_open(env, path, MDB_NOSYNC, 0600), "open");
    snprintf(path, sizeof path, "%s/sessions", argv[1]);
    if (sesscache_open(path, "capacity=4MiB", &cache) != SESSCACHE_OK)
        errx(1, "sesscache: %s", sesscache_errmsg());
    for (int round = 0; round < 100; round++) {
        use_own(env, "the program's own");
        use_sesscache(cache, "a session");
    }
    sesscache_close(cache);
    mdb_env_close(env);
    printf("own calls 201, seen %d\n", calls);
    return 0;
}
