/* Records what a process does to the files under one folder, and can pretend that its disk is full.
 *
 * Loaded with LD_PRELOAD. FAULT_ROOT is the folder, FAULT_LOG the file that the record is appended to, FAULT_FULL
 * a file: while it exists, nothing under the folder can grow beyond FAULT_SPARE bytes in all.
 *
 * A record: one byte for what, uint32 lengths of path and data, int64 place, path, data; little-endian.
 *   c create   t truncate to place   w write at place   s sync   r rename (data: the new name)
 *   u unlink   m mkdir   d rmdir
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_FDS 4096
#define REAL(name) ((__typeof__(&name))real(#name))

static char *paths[MOST_FDS];
static char root[PATH_MAX];
static int log_fd = -1;
static int64_t spare;
static const char *full;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    if (!getenv("FAULT_ROOT") || !realpath(getenv("FAULT_ROOT"), root)) return;
    full = getenv("FAULT_FULL");
    spare = getenv("FAULT_SPARE") ? atoll(getenv("FAULT_SPARE")) : 0;
    if (getenv("FAULT_LOG"))
        log_fd = REAL(open)(getenv("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* The path without the folder's own, or NULL when it is elsewhere. Shared memory is no file on disk. */
static const char *inside(const char *path) {
    size_t n = strlen(root), m = path ? strlen(path) : 0;
    if (n && m == n && !strcmp(path, root)) return ".";
    if (!n || m <= n || strncmp(path, root, n) || path[n] != '/') return NULL;
    if (m > 4 && !strcmp(path + m - 4, "-shm")) return NULL;
    return path + n + 1;
}

static const char *of(int fd) { return fd >= 0 && fd < MOST_FDS ? paths[fd] : NULL; }

static void record(char what, const char *path, int64_t place, const void *data, uint32_t size) {
    char head[17];
    uint32_t n = strlen(path);
    if (log_fd < 0) return;
    head[0] = what;
    memcpy(head + 1, &n, 4);
    memcpy(head + 5, &size, 4);
    memcpy(head + 9, &place, 8);
    char *all = malloc(17 + n + size);
    memcpy(all, head, 17);
    memcpy(all + 17, path, n);
    if (size) memcpy(all + 17 + n, data, size);
    if (REAL(write)(log_fd, all, 17 + n + size) != (ssize_t)(17 + n + size)) abort();
    free(all);
}

/* Whether the file may become that long. */
static int has_room(int fd, int64_t end) {
    struct stat st;
    if (!full || REAL(access)(full, F_OK) || fstat(fd, &st) || end <= st.st_size) return 1;
    if (end - st.st_size > spare) return 0;
    spare -= end - st.st_size;
    return 1;
}

static int opened(int fd, const char *path, int flags, int there) {
    const char *name = inside(path);
    if (fd < 0 || fd >= MOST_FDS) return fd;
    free(paths[fd]);
    paths[fd] = name ? strdup(name) : NULL;
    if (name && !there) record('c', name, 0, NULL, 0);
    else if (name && (flags & O_TRUNC)) record('t', name, 0, NULL, 0);
    return fd;
}

static const char *absolute(int folder, const char *path, char *room) {
    char link[64];
    if (path[0] == '/') return path;
    if (folder == AT_FDCWD) {
        if (!getcwd(room, PATH_MAX)) return path;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, room, PATH_MAX - 1);
        if (n < 0) return path;
        room[n] = 0;
    }
    strncat(room, "/", PATH_MAX - strlen(room) - 1);
    strncat(room, path, PATH_MAX - strlen(room) - 1);
    return room;
}

static int open_at(const char *symbol, int folder, const char *path, int flags, mode_t mode) {
    char room[PATH_MAX];
    const char *whole = absolute(folder, path, room);
    int (*call)(int, const char *, int, ...) = real(symbol);
    pthread_mutex_lock(&lock);
    int there = !inside(whole) || !REAL(access)(whole, F_OK);
    int fd = opened(call(folder, path, flags, mode), whole, flags, there), kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return fd;
}

#define OPEN(name, at)                                                   \
    int name(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                    \
        return open_at(at, AT_FDCWD, path, flags, mode);                 \
    }
OPEN(open, "openat")
OPEN(open64, "openat64")

#define OPENAT(name)                                                     \
    int name(int folder, const char *path, int flags, ...) {             \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                    \
        return open_at(#name, folder, path, flags, mode);                \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    if (fd >= 0 && fd < MOST_FDS) {
        pthread_mutex_lock(&lock);
        free(paths[fd]);
        paths[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return REAL(close)(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!of(fd)) return REAL(write)(fd, data, size);
    pthread_mutex_lock(&lock);
    int64_t at = lseek(fd, 0, SEEK_CUR);
    if (!has_room(fd, at + (int64_t)size)) { pthread_mutex_unlock(&lock); errno = ENOSPC; return -1; }
    ssize_t done = REAL(write)(fd, data, size);
    if (done > 0) record('w', of(fd), at, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define PWRITE(name, off)                                                \
    ssize_t name(int fd, const void *data, size_t size, off at) {        \
        if (!of(fd)) return REAL(name)(fd, data, size, at);              \
        pthread_mutex_lock(&lock);                                       \
        if (!has_room(fd, at + (int64_t)size)) { pthread_mutex_unlock(&lock); errno = ENOSPC; return -1; } \
        ssize_t done = REAL(name)(fd, data, size, at);                   \
        if (done > 0) record('w', of(fd), at, data, done);               \
        pthread_mutex_unlock(&lock);                                     \
        return done;                                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, off)                                              \
    int name(int fd, off size) {                                         \
        if (!of(fd)) return REAL(name)(fd, size);                        \
        pthread_mutex_lock(&lock);                                       \
        struct stat st;                                                  \
        int64_t before = fstat(fd, &st) ? size : st.st_size;             \
        if (!has_room(fd, size)) { pthread_mutex_unlock(&lock); errno = ENOSPC; return -1; } \
        int rc = REAL(name)(fd, size);                                   \
        if (!rc) { record('t', of(fd), size, NULL, 0); if (size < before) spare += before - size; } \
        pthread_mutex_unlock(&lock);                                     \
        return rc;                                                       \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define ALLOCATE(name, off)                                              \
    int name(int fd, off at, off size) {                                 \
        if (!of(fd)) return REAL(name)(fd, at, size);                    \
        pthread_mutex_lock(&lock);                                       \
        int rc = has_room(fd, at + size) ? REAL(name)(fd, at, size) : ENOSPC; \
        if (!rc) record('t', of(fd), at + size, NULL, 0);                \
        pthread_mutex_unlock(&lock);                                     \
        return rc;                                                       \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define SYNC(name)                                                       \
    int name(int fd) {                                                   \
        int rc = REAL(name)(fd);                                         \
        pthread_mutex_lock(&lock);                                       \
        if (!rc && of(fd)) record('s', of(fd), 0, NULL, 0);              \
        pthread_mutex_unlock(&lock);                                     \
        return rc;                                                       \
    }
SYNC(fsync)
SYNC(fdatasync)

static void left(const char *path) {
    struct stat st;
    if (inside(path) && !stat(path, &st) && S_ISREG(st.st_mode)) spare += st.st_size;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int rc = REAL(rename)(from, to);
    if (!rc && inside(from)) record('r', inside(from), 0, inside(to), strlen(inside(to)));
    pthread_mutex_unlock(&lock);
    return rc;
}

int unlinkat(int folder, const char *path, int flags) {
    char room[PATH_MAX];
    const char *whole = absolute(folder, path, room);
    pthread_mutex_lock(&lock);
    left(whole);
    int rc = REAL(unlinkat)(folder, path, flags);
    if (!rc && inside(whole)) record(flags & AT_REMOVEDIR ? 'd' : 'u', inside(whole), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return rc;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    char room[PATH_MAX];
    const char *whole = absolute(AT_FDCWD, path, room);
    pthread_mutex_lock(&lock);
    int rc = REAL(mkdir)(path, mode);
    if (!rc && inside(whole)) record('m', inside(whole), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return rc;
}
