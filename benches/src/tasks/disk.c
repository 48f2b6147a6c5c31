/* A disk that counts how often it is asked to sync, and takes a fixed time longer for it.
 *
 * BENCH_DISK_SYNCS names a file of eight bytes, in which the count is kept;
 * BENCH_DISK_EXTRA_US says how many microseconds longer a sync takes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t *count;
static long extra_us;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("BENCH_DISK_SYNCS"), *us = getenv("BENCH_DISK_EXTRA_US");
    if (us) extra_us = atol(us);
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) count = page;
    close(file);
}

static int synced(int (*sync)(int), int file) {
    int done = sync(file);
    if (count) atomic_fetch_add(count, 1);
    if (extra_us) {
        struct timespec wait = {extra_us / 1000000, extra_us % 1000000 * 1000};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, 0);
    }
    return done;
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return synced(real, file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return synced(real, file);
}
