/* Counts the calls that change files below one folder, and disturbs the n-th: kills the process before, in the middle of
 * or after it, or has it fail. Loaded by LD_PRELOAD; armed by `faults_arm`. Paths are compared as given, so absolute ones.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL_BEFORE = 1, KILL_WITHIN = 2, KILL_AFTER = 3, FAIL = 4 };

static char folder[4096];
static size_t folder_length;
static int armed, mode, failure;
static long moment, num_calls;
static char names[1 << 18];
static size_t names_length;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void faults_arm(const char *below, int what, long when, int error) {
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    mode = what;
    moment = when;
    failure = error;
    num_calls = 0;
    names_length = 0;
    armed = 1;
}

long faults_calls(void) { return num_calls; }

const char *faults_names(void) { return names; }

static int is_below(const char *path) {
    return armed && path && !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int is_descriptor_below(int descriptor) {
    char link[64], path[4096];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count a call; return what to do with it. */
static int on_call(const char *name) {
    pthread_mutex_lock(&mutex);
    int now = ++num_calls == moment ? mode : COUNT;
    if (mode == COUNT && names_length + strlen(name) + 2 < sizeof names)
        names_length += (size_t)sprintf(names + names_length, "%s\n", name);
    pthread_mutex_unlock(&mutex);
    if (now == KILL_BEFORE) die();
    return now;
}

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Do a call that changes something if `changes`. A kill within a call that has no middle comes before it. */
#define DISTURBED(type, name, changes, call)              \
    if (!(changes)) return call;                          \
    int now = on_call(name);                              \
    if (now == KILL_WITHIN) die();                        \
    if (now == FAIL) { errno = failure; return -1; }      \
    type result = call;                                   \
    if (now == KILL_AFTER) die();                         \
    return result

/* The same for a call that writes `size` bytes, of which `part` writes the first half. */
#define DISTURBED_WRITE(name, changes, call, part)        \
    if (!(changes)) return call;                          \
    int now = on_call(name);                              \
    if (now == KILL_WITHIN) { part; die(); }              \
    if (now == FAIL) { errno = failure; return -1; }      \
    ssize_t result = call;                                \
    if (now == KILL_AFTER) die();                         \
    return result

static int creates(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

static mode_t mode_of(int flags, va_list *rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(*rest, mode_t) : 0; }

#define OPEN(name)                                                            \
    int name(const char *path, int flags, ...) {                              \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        mode_t permissions = mode_of(flags, &rest);                           \
        va_end(rest);                                                         \
        REAL(int, #name, const char *, int, ...);                             \
        DISTURBED(int, #name, creates(flags) && is_below(path), real(path, flags, permissions)); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                          \
    int name(int at, const char *path, int flags, ...) {                      \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        mode_t permissions = mode_of(flags, &rest);                           \
        va_end(rest);                                                         \
        REAL(int, #name, int, const char *, int, ...);                        \
        DISTURBED(int, #name, creates(flags) && (is_below(path) || (path[0] != '/' && is_descriptor_below(at))), \
                  real(at, path, flags, permissions));                        \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    DISTURBED_WRITE("write", is_descriptor_below(file), real(file, data, size), (void)!real(file, data, size / 2));
}

#define PWRITE(name, offset_type)                                             \
    ssize_t name(int file, const void *data, size_t size, offset_type offset) { \
        REAL(ssize_t, #name, int, const void *, size_t, offset_type);         \
        DISTURBED_WRITE(#name, is_descriptor_below(file), real(file, data, size, offset), \
                        (void)!real(file, data, size / 2, offset));           \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    DISTURBED_WRITE("writev", is_descriptor_below(file), real(file, parts, count), (void)!real(file, parts, count / 2));
}

#define PWRITEV(name, offset_type)                                            \
    ssize_t name(int file, const struct iovec *parts, int count, offset_type offset) { \
        REAL(ssize_t, #name, int, const struct iovec *, int, offset_type);    \
        DISTURBED_WRITE(#name, is_descriptor_below(file), real(file, parts, count, offset), \
                        (void)!real(file, parts, count / 2, offset));         \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define PATH(name, arguments, types, values, path)                            \
    int name arguments {                                                      \
        static int (*real) types;                                             \
        if (!real) real = (int (*) types)dlsym(RTLD_NEXT, #name);             \
        DISTURBED(int, #name, is_below(path), real values);                   \
    }
PATH(mkdir, (const char *path, mode_t permissions), (const char *, mode_t), (path, permissions), path)
PATH(rmdir, (const char *path), (const char *), (path), path)
PATH(unlink, (const char *path), (const char *), (path), path)
PATH(chmod, (const char *path, mode_t permissions), (const char *, mode_t), (path, permissions), path)
PATH(rename, (const char *from, const char *to), (const char *, const char *), (from, to), to)
PATH(link, (const char *from, const char *to), (const char *, const char *), (from, to), to)
PATH(symlink, (const char *from, const char *to), (const char *, const char *), (from, to), to)
PATH(truncate64, (const char *path, off64_t length), (const char *, off64_t), (path, length), path)
PATH(renameat2, (int at, const char *from, int into, const char *to, unsigned flags),
     (int, const char *, int, const char *, unsigned), (at, from, into, to, flags), to)
PATH(renameat, (int at, const char *from, int into, const char *to), (int, const char *, int, const char *),
     (at, from, into, to), to)
PATH(linkat, (int at, const char *from, int into, const char *to, int flags),
     (int, const char *, int, const char *, int), (at, from, into, to, flags), to)

int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    DISTURBED(int, "unlinkat", is_below(path) || (path[0] != '/' && is_descriptor_below(at)), real(at, path, flags));
}

int mkdirat(int at, const char *path, mode_t permissions) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    DISTURBED(int, "mkdirat", is_below(path) || (path[0] != '/' && is_descriptor_below(at)), real(at, path, permissions));
}

#define DESCRIPTOR(name, arguments, types, values)                            \
    int name arguments {                                                      \
        static int (*real) types;                                             \
        if (!real) real = (int (*) types)dlsym(RTLD_NEXT, #name);             \
        DISTURBED(int, #name, is_descriptor_below(file), real values);        \
    }
DESCRIPTOR(fsync, (int file), (int), (file))
DESCRIPTOR(fdatasync, (int file), (int), (file))
DESCRIPTOR(ftruncate, (int file, off_t length), (int, off_t), (file, length))
DESCRIPTOR(ftruncate64, (int file, off64_t length), (int, off64_t), (file, length))
DESCRIPTOR(fchmod, (int file, mode_t permissions), (int, mode_t), (file, permissions))
int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
    REAL(int, "utimensat", int, const char *, const struct timespec *, int);
    DISTURBED(int, "utimensat", path ? is_below(path) : is_descriptor_below(at), real(at, path, times, flags));
}

int fchmodat(int at, const char *path, mode_t permissions, int flags) {
    REAL(int, "fchmodat", int, const char *, mode_t, int);
    DISTURBED(int, "fchmodat", is_below(path), real(at, path, permissions, flags));
}
DESCRIPTOR(futimens, (int file, const struct timespec times[2]), (int, const struct timespec *), (file, times))
