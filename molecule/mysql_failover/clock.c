/* A clock of its own for a process: this machine's plus so many seconds, which the file /var/lib/clock holds as a 64-bit integer. Monotonic clocks
 * are left alone. The kernel lets a wait until a time of day end when that clock is set past it; here it is looked at ten times a second. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SLICE 100000000 /* nanoseconds */

static long long ahead(void)
{
    static const volatile long long *seconds;

    if (!seconds) {
        int file = open("/var/lib/clock", O_RDONLY | O_CLOEXEC);
        void *page = mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);

        if (page == MAP_FAILED)
            abort();
        close(file);
        seconds = page;
    }
    return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);

    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;

    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec precise;

    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}

static int reached(const struct timespec *now, const struct timespec *then)
{
    return now->tv_sec > then->tv_sec || (now->tv_sec == then->tv_sec && now->tv_nsec >= then->tv_nsec);
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    struct timespec now, slice;
    int result;

    if (until->tv_sec < 1000000000) /* no time of day: since the machine was started */
        return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, until);
    clock_gettime(CLOCK_MONOTONIC, &slice);
    slice.tv_nsec += SLICE;
    if (slice.tv_nsec >= 1000000000) {
        slice.tv_sec++;
        slice.tv_nsec -= 1000000000;
    }
    result = pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &slice);
    if (result != ETIMEDOUT)
        return result;
    clock_gettime(CLOCK_REALTIME, &now);
    return reached(&now, until) ? ETIMEDOUT : 0; /* a spurious wake-up, for which every caller is prepared */
}
