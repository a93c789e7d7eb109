/* Records what a process asks of the disk, for replaying a power cut: loaded with LD_PRELOAD, knows files, not databases.
 *
 * Only files below RECORDER_ROOT are recorded; shared-memory indexes (-shm) are not, since they are rebuilt after a cut. The
 * trace (RECORDER_TRACE) is a row of records, each a `struct record` followed by a path (OPEN, UNLINK, RENAME) or data (WRITE).
 * A record is written when its call has succeeded; SYNC carries in `offset` how many records there were when it began: what was
 * recorded before that is on the disk when the SYNC is.
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
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, TRUNCATE, SYNC, UNLINK, RENAME };

struct record {
    uint32_t kind, file; /* file: a number per opened path, the same for all descriptors of one path */
    int64_t at;          /* CLOCK_MONOTONIC, nanoseconds */
    int64_t offset;      /* of a write; the new size of a truncation; of a SYNC: see above; of a RENAME: length of the first path */
    int64_t size;        /* of what follows */
};

#define MAX_FD 65536
#define MAX_FILES 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1, ready;
static char root[PATH_MAX];
static size_t root_length;
static int64_t records;
static uint32_t file_of[MAX_FD]; /* 0: not recorded */
static char *files[MAX_FILES];
static uint32_t file_count;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    const char *root_name = getenv("RECORDER_ROOT"), *trace_name = getenv("RECORDER_TRACE");
    if (ready || !root_name || !trace_name) return;
    ready = 1;
    if (!realpath(root_name, root)) abort();
    root_length = strlen(root);
    trace = (int)syscall(SYS_openat, AT_FDCWD, trace_name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) abort();
}

/* Call with the lock held. One writev, so that a killed process leaves whole records behind. */
static void put(uint32_t kind, uint32_t file, int64_t offset, const void *data, size_t size) {
    struct record head = {kind, file, now(), offset, (int64_t)size};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, size}};
    ssize_t wrote = syscall(SYS_writev, trace, parts, size ? 2 : 1);
    if (wrote != (ssize_t)(sizeof head + size)) abort(); /* a trace with a hole would prove nothing */
    records++;
}

/* The absolute path if it is to be recorded, else NULL. */
static const char *recorded(int directory, const char *path, char *full) {
    char joined[PATH_MAX * 2], base[PATH_MAX];
    if (trace < 0 || !path) return NULL;
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char link[64];
        ssize_t length = 0;
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            length = readlink(link, base, sizeof base - 1);
            if (length < 0) return NULL;
            base[length] = 0;
        }
        snprintf(joined, sizeof joined, "%s/%s", base, path);
    }
    char *slash = strrchr(joined, '/');
    *slash = 0;
    if (!realpath(*joined ? joined : "/", base)) return NULL;
    snprintf(full, PATH_MAX, "%.*s/%.255s", PATH_MAX - 260, base, slash + 1);
    size_t length = strlen(full);
    if (slash[1] == 0) full[--length] = 0;
    if (strncmp(full, root, root_length) || (full[root_length] && full[root_length] != '/')) return NULL;
    if (length > 4 && !strcmp(full + length - 4, "-shm")) return NULL;
    return full;
}

static void opened(int fd, int directory, const char *path, int flags) {
    char full[PATH_MAX];
    int error = errno;
    if (fd >= 0 && fd < MAX_FD && recorded(directory, path, full)) {
        pthread_mutex_lock(&lock);
        uint32_t file = 0;
        while (file < file_count && strcmp(files[file], full)) file++;
        if (file == file_count) {
            if (file_count == MAX_FILES) abort();
            files[file_count++] = strdup(full);
        }
        file_of[fd] = file + 1;
        put(OPEN, file + 1, flags & O_TRUNC ? 1 : 0, full, strlen(full));
        pthread_mutex_unlock(&lock);
    } else if (fd >= 0 && fd < MAX_FD) {
        file_of[fd] = 0;
    }
    errno = error;
}

static uint32_t known(int fd) { return fd >= 0 && fd < MAX_FD ? file_of[fd] : 0; }

#define OPENER(name, declared, directory, call)                        \
    int name declared {                                                \
        mode_t mode = 0;                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                           \
            va_list rest;                                              \
            va_start(rest, flags);                                     \
            mode = va_arg(rest, mode_t);                               \
            va_end(rest);                                              \
        }                                                              \
        int fd = call;                                                 \
        opened(fd, directory, path, flags);                            \
        return fd;                                                     \
    }

OPENER(open, (const char *path, int flags, ...), AT_FDCWD, REAL(open)(path, flags, mode))
OPENER(open64, (const char *path, int flags, ...), AT_FDCWD, REAL(open64)(path, flags, mode))
OPENER(openat, (int at, const char *path, int flags, ...), at, REAL(openat)(at, path, flags, mode))
OPENER(openat64, (int at, const char *path, int flags, ...), at, REAL(openat64)(at, path, flags, mode))

int close(int fd) {
    if (known(fd)) file_of[fd] = 0;
    return REAL(close)(fd);
}

static void wrote(int fd, const void *data, ssize_t size, int64_t offset) {
    int error = errno;
    if (size > 0 && known(fd)) {
        pthread_mutex_lock(&lock);
        put(WRITE, known(fd), offset, data, (size_t)size);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    ssize_t done = REAL(pwrite)(fd, data, size, offset);
    wrote(fd, data, done, offset);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t done = REAL(pwrite64)(fd, data, size, offset);
    wrote(fd, data, done, offset);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t done = REAL(write)(fd, data, size);
    if (done > 0 && known(fd)) wrote(fd, data, done, lseek(fd, 0, SEEK_CUR) - done);
    return done;
}

/* Calls that would write unseen: nobody here uses them on a recorded file, and if somebody begins to, the test must know. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (known(fd)) abort();
    return REAL(writev)(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    if (known(fd)) abort();
    return REAL(pwritev)(fd, parts, count, offset);
}

static int synced(int fd, int (*call)(int)) {
    pthread_mutex_lock(&lock);
    int64_t before = records;
    pthread_mutex_unlock(&lock);
    int result = call(fd), error = errno;
    if (result == 0 && known(fd)) {
        pthread_mutex_lock(&lock);
        put(SYNC, known(fd), before, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int truncated(int fd, int64_t size, int result) {
    int error = errno;
    if (result == 0 && known(fd)) {
        pthread_mutex_lock(&lock);
        put(TRUNCATE, known(fd), size, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size, REAL(ftruncate)(fd, size)); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size, REAL(ftruncate64)(fd, size)); }

static int unlinked(int directory, const char *path, int result) {
    char full[PATH_MAX];
    int error = errno;
    if (result == 0 && recorded(directory, path, full)) {
        pthread_mutex_lock(&lock);
        put(UNLINK, 0, 0, full, strlen(full));
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int unlink(const char *path) { return unlinked(AT_FDCWD, path, REAL(unlink)(path)); }
int unlinkat(int at, const char *path, int flags) { return unlinked(at, path, REAL(unlinkat)(at, path, flags)); }

static int renamed(int from_at, const char *from, int to_at, const char *to, int result) {
    char pair[PATH_MAX * 2], full[PATH_MAX];
    int error = errno;
    if (result == 0 && recorded(to_at, to, full)) {
        char target[PATH_MAX];
        memcpy(target, full, sizeof target);
        if (!recorded(from_at, from, full)) abort(); /* moved in from outside: its content is not in the trace */
        int length = snprintf(pair, sizeof pair, "%s%s", full, target);
        pthread_mutex_lock(&lock);
        put(RENAME, 0, (int64_t)strlen(full), pair, (size_t)length);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, REAL(rename)(from, to)); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renamed(from_at, from, to_at, to, REAL(renameat)(from_at, from, to_at, to));
}
