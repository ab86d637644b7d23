/*
 * What servers do to themselves before they serve: root, user, limits, descriptors, filters of system calls, and the directory of the
 * store that somebody else takes away.
 */
#ifndef CONFINEMENT_H
#define CONFINEMENT_H

#include "filter.h"

#include <grp.h>
#include <malloc.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#define NOBODY 65534

static void clean_environment(const char *scratch, int connection)
{
    (void)scratch;
    (void)connection;
    CHECK(clearenv() == 0, "clearenv");
}

/* All but the connection, as a child that was not told what is open; standard streams are part of it. */
static void close_descriptors(const char *scratch, int connection)
{
    (void)scratch;
    for (int fd = 0; fd < 256; fd++) {
        if (fd != connection)
            (void)close(fd);
    }
}

/* vsftpd: what is written to standard error arrives at the client, in the middle of the handshake. */
static void errors_go_to_the_client(const char *scratch, int connection)
{
    (void)scratch;
    CHECK(dup2(connection, 2) == 2, "dup2: %s", strerror(errno));
}

static void directory_is_made_anew(const char *scratch)
{
    char *store = store_in(scratch);

    (void)check_remove_tree(store);
    CHECK(mkdir(store, 0700) == 0, "mkdir: %s", strerror(errno));
    free(store);
}

static void hide_proc(const char *scratch)
{
    (void)scratch;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
          mount("none", "/proc", "tmpfs", 0, NULL) == 0, "/proc cannot be hidden: %s", strerror(errno));
}

static void limit_address_space(const char *scratch)
{
    struct rlimit limit = {512u << 20, 512u << 20};

    (void)scratch;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: %s", strerror(errno));
}

static void answer_eperm(const int *calls, size_t count)
{
    struct sock_filter program[8];
    struct sock_fprog filter = {0, program};
    size_t at = 0;

    program[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t n = 0; n < count; n++)
        program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[n], (unsigned char)(count - n), 0);
    program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    filter.len = (unsigned short)at;
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0,
          "prctl: %s", strerror(errno));
}

/* A sandbox that knows the calls of a server and answers EPERM to others. */
static void refuse_calls(const char *scratch)
{
    static const int calls[] = {SYS_fallocate, SYS_flock, SYS_prlimit64};

    (void)scratch;
    answer_eperm(calls, TESTS(calls));
}

/* The files belong to that user already: owner=. */
static void change_user(const char *scratch, int connection)
{
    (void)scratch;
    (void)connection;
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0, "setuid: %s", strerror(errno));
}

/* What the next process opens anew is out of reach, and its own descriptors are no help. */
static void leave_the_file_system(const char *scratch)
{
    char *empty = path_in(scratch, "empty");

    CHECK((mkdir(empty, 0755) == 0 || errno == EEXIST) && chroot(empty) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
    free(empty);
    change_user(scratch, -1);
}

static void leave_the_file_system_in_the_child(const char *scratch, int connection)
{
    (void)connection;
    CHECK(chroot(scratch) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
    change_user(scratch, connection);
}

/* No room for the map of the store. */
static void limit_address_space_below_the_capacity(const char *scratch)
{
    struct rlimit limit = {256u << 20, 256u << 20};

    (void)scratch;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: %s", strerror(errno));
}

/* The control file has room; the store, which is made later, has none. */
static void fill_the_file_system(const char *scratch)
{
    char *store = store_in(scratch), *ballast = path_in(scratch, "store/control.0123456789abcdef"), block[4096] = {1};
    FILE *file;

    CHECK((mkdir(store, 0700) == 0 || errno == EEXIST) && unshare(CLONE_NEWNS) == 0 &&
          mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
          mount("none", store, "tmpfs", 0, "size=256k,mode=700") == 0, "no small file system: %s", strerror(errno));
    file = fopen(ballast, "w");
    CHECK(file != NULL, "%s: %s", ballast, strerror(errno));
    while (fwrite(block, sizeof block, 1, file) == 1 && fflush(file) == 0)
        ;
    (void)fclose(file);
    free(store);
    free(ballast);
}

/* A sandbox whose list is older than statx(2). */
static void refuse_statx(const char *scratch)
{
    static const int calls[] = {SYS_statx};

    (void)scratch;
    answer_eperm(calls, TESTS(calls));
}

/* The process ends at any call that is in none of the lists. The store is open already: sesscache_hold(3). */
static void kill_at_other_calls(const char *scratch)
{
    (void)scratch;
    /* With threads, glibc opens a file when it gives memory back. */
    CHECK(mallopt(M_ARENA_MAX, 1) == 1, "mallopt");
    forbid_all_other_calls(SERVER);
}

/* What a restart of another service with the same RuntimeDirectory= does to this one. */
static void remove_the_directory(const char *scratch)
{
    char *store = store_in(scratch);

    (void)check_remove_tree(store);
    free(store);
}

/* imap-login of Dovecot makes its SSL_CTX in there. The directory has the same name inside. */
static void make_the_context_in_a_chroot(const char *scratch, int connection)
{
    char *inside = path_in(scratch, scratch), *end = inside;

    (void)connection;
    while ((end = strchr(end + 1, '/')) != NULL) {
        *end = 0;
        CHECK(mkdir(inside, 0755) == 0 || errno == EEXIST, "mkdir %s: %s", inside, strerror(errno));
        *end = '/';
    }
    CHECK(mkdir(inside, 0755) == 0 || errno == EEXIST, "mkdir %s: %s", inside, strerror(errno));
    free(inside);
    CHECK(chroot(scratch) == 0 && chdir("/") == 0, "chroot: %s", strerror(errno));
}

#endif
