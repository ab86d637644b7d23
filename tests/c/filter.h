/*
 * A filter of system calls that kills: the lists of the manual page of sesscache_hold(), and what a test's own connections need.
 */
#ifndef FILTER_H
#define FILTER_H

#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* What the library calls after sesscache_hold(). The manual page and the guide have the same lists. */
static const int after[] = {
    SYS_getrandom, SYS_futex, SYS_fcntl, SYS_fstat, SYS_newfstatat, SYS_fallocate, SYS_flock, SYS_prlimit64,
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_brk, SYS_madvise, SYS_clock_gettime, SYS_clock_nanosleep,
};

/* And besides with guard=on. */
static const int after_with_guard[] = {SYS_pwrite64, SYS_pwritev, SYS_lseek, SYS_writev};

/* What it calls besides in sesscache_open(), in sesscache_hold(), and at any time without that. */
static const int before[] = {
    SYS_openat, SYS_close, SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_statx, SYS_fstatfs, SYS_ftruncate,
    SYS_getdents64, SYS_mkdirat, SYS_linkat, SYS_renameat, SYS_unlinkat, SYS_fchmod, SYS_fchown, SYS_geteuid, SYS_getpid, SYS_uname,
};

/* And besides as root in a directory of owner=. */
static const int before_as_root[] = {
    SYS_setfsuid, SYS_setfsgid, SYS_getgroups, SYS_setgroups, SYS_capget, SYS_capset, SYS_prctl, SYS_rt_sigprocmask,
};

/* What these tests and their connections call. */
static const int of_the_test[] = {
    SYS_socketpair, SYS_read, SYS_write, SYS_poll, SYS_ppoll, SYS_close, SYS_getpid, SYS_exit, SYS_exit_group,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_gettid, SYS_clone, SYS_clone3, SYS_set_robust_list, SYS_rseq, SYS_wait4,
    SYS_prctl, SYS_getppid, SYS_kill, SYS_chroot,
};

/* And those of habits.c, which is a server behind a socket. */
static const int of_a_server[] = {SYS_accept, SYS_setsockopt, SYS_rt_sigaction};

enum { GUARD = 1, BEFORE = 2, SERVER = 4 };

#define ALLOW(calls) at = allow(code, at, calls, sizeof (calls) / sizeof *(calls))
static size_t allow(struct sock_filter *code, size_t at, const int *calls, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[n], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    return at;
}

/* For all threads of this process. */
static void forbid_all_other_calls(int besides)
{
    static struct sock_filter code[256];
    struct sock_fprog program = {0, code};
    size_t at = 0;

    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    ALLOW(after);
    ALLOW(of_the_test);
    if (besides & GUARD)
        ALLOW(after_with_guard);
    if (besides & SERVER)
        ALLOW(of_a_server);
    if (besides & BEFORE) {
        ALLOW(before);
        ALLOW(before_as_root);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    program.len = (unsigned short)at;
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "prctl: %s", strerror(errno));
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
        check_not_tried("no filter of system calls can be set here");
}

#endif
