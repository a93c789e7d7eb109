/* Preloaded into a process, lets its disk fail while a file of that name lies in the folder $DISK_FAULTS: `full` refuses every write to a
   database (ENOSPC), `broken` every fsync of one (EIO). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_struck(int fd, const char *fault) {
    char link[64], path[4096], flag[4096];
    const char *folder = getenv("DISK_FAULTS");
    if (folder == NULL) return 0;
    snprintf(flag, sizeof flag, "%s/%s", folder, fault);
    if (access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    return strstr(path, ".db") != NULL;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    if (is_struck(fd, "full")) return errno = ENOSPC, -1;
    return real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    if (is_struck(fd, "broken")) return errno = EIO, -1;
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    if (is_struck(fd, "broken")) return errno = EIO, -1;
    return real(fd);
}
