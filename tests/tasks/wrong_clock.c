/* A wall clock that is off by WRONG_CLOCK_S seconds, or by what the file WRONG_CLOCK_FILE says at the moment; preloaded
 * into one process. Monotonic time and time spans stay right, as on a machine whose clock was set (Debian's faketime
 * shifts monotonic time too, and every thread that waits with a bound then waits for ever or not at all). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long off(void) {
    const char *file = getenv("WRONG_CLOCK_FILE"), *fixed = getenv("WRONG_CLOCK_S");
    char text[32] = {0};
    int fd;
    if (file == NULL) return fixed ? atol(fixed) : 0;
    fd = open(file, O_RDONLY);
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*right)(clockid_t, struct timespec *);
    if (right == NULL) right = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int answer = right(id, at);
    if (answer == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += off();
    return answer;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) *at = now.tv_sec;
    return now.tv_sec;
}
