/* Loaded into a process under audit (LD_PRELOAD): syncs that fail or take long, as a file says that the audit writes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* How many syncs are to fail, and for how many milliseconds each takes. */
struct trouble {
    int32_t failures;
    int32_t slow_ms;
};

static struct trouble *trouble;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SLUICE_AUDIT_DISK");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *trouble, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        trouble = mapped;
}

static int fails(void) {
    if (!trouble)
        return 0;
    int32_t slow_ms = __atomic_load_n(&trouble->slow_ms, __ATOMIC_RELAXED);
    /* The disk that is slow: this is what it does. */
    if (slow_ms > 0) {
        struct timespec pause = {slow_ms / 1000, slow_ms % 1000 * 1000000L};
        nanosleep(&pause, NULL);
    }
    int32_t left = __atomic_load_n(&trouble->failures, __ATOMIC_RELAXED);
    while (left > 0)
        if (__atomic_compare_exchange_n(&trouble->failures, &left, left - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            errno = EIO;
            return 1;
        }
    return 0;
}

#define SYNC(name)                                                      \
    int name(int file) {                                                \
        static int (*real)(int);                                        \
        if (!real)                                                      \
            real = (int (*)(int))dlsym(RTLD_NEXT, #name);               \
        return fails() ? -1 : real(file);                               \
    }

SYNC(fsync)
SYNC(fdatasync)
