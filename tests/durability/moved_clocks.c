/* Moves the clocks of a process that preloads this library, and the id of the boot that it reads.
 *
 * MOVED_CLOCKS names a file with two numbers of 64 bits: the seconds by which CLOCK_BOOTTIME and CLOCK_REALTIME are ahead.
 * MOVED_BOOT_ID names the file that is read instead of the kernel's. CLOCK_MONOTONIC stays: it is what timers run on, and it
 * stands still while a machine is suspended.
 *
 * HELD_AT stops a relay for ever while it starts: "sync" the thread that syncs a file first, "core" the worker's thread when
 * that reads the clock first, before it restores the core from the queue. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *ahead;

static void stop_here(const char *place) {
    const char *held_at = getenv("HELD_AT");
    while (held_at && !strcmp(held_at, place)) pause();
}

__attribute__((constructor)) static void map_offsets(void) {
    const char *path = getenv("MOVED_CLOCKS");
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) ahead = mapped;
    close(file);
}

int fsync(int file) {
    stop_here("sync");
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    stop_here("sync");
    return (int)syscall(SYS_fdatasync, file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (id == CLOCK_BOOTTIME && syscall(SYS_gettid) != getpid()) stop_here("core");
    int failed = (int)syscall(SYS_clock_gettime, id, now);
    if (!failed && ahead && id == CLOCK_BOOTTIME) now->tv_sec += ahead[0];
    if (!failed && ahead && id == CLOCK_REALTIME) now->tv_sec += ahead[1];
    return failed;
}

static int open_file(const char *path, int flags, int mode) {
    const char *boot_id = getenv("MOVED_BOOT_ID");
    if (boot_id && !strcmp(path, "/proc/sys/kernel/random/boot_id")) path = boot_id;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;
    va_end(rest);
    return open_file(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;
    va_end(rest);
    return open_file(path, flags, mode);
}
