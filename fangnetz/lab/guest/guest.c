/* The lab's guest: PID 1 of a VM that does nothing but prove on its disk, about four times a second, that it lives.
 *
 * At start it draws a random boot id. Each boot writes into a slot of its own (4 KiB, O_DIRECT), found from the boot id
 * by going on from a taken slot, so copies of one VM never hide each other's traces. It never reads what others wrote
 * except to see that a slot is taken, and never frees one. The power button shuts it down.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOT = 4096, INTERVAL_MS = 250, BUTTONS_MAX = 4 };
static const char MAGIC[] = "fangnetz-guest 1 ";
static char block[SLOT] __attribute__((aligned(SLOT)));

static void load_modules(const char *list)
{
    char path[128];
    FILE *names = fopen(list, "r");
    while (names && fscanf(names, "%127s", path) == 1) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
            printf("guest: cannot load %s: %s\n", path, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (names)
        fclose(names);
}

static off_t own_slot(int disk, uint64_t boot)
{
    uint64_t slots = (uint64_t)lseek(disk, 0, SEEK_END) / SLOT;
    uint64_t slot = 1 + boot % (slots - 1); /* slot 0 stays empty: partition scanners look there */
    for (uint64_t tried = 0; tried < slots; tried++) {
        if (pread(disk, block, SLOT, (off_t)(slot * SLOT)) == SLOT && memcmp(block, MAGIC, sizeof MAGIC - 1) != 0)
            break;
        slot = slot + 1 < slots ? slot + 1 : 1;
    }
    return (off_t)(slot * SLOT);
}

static int open_buttons(struct pollfd *buttons)
{
    int count = 0;
    for (int i = 0; i < BUTTONS_MAX; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0)
            buttons[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    return count;
}

static void power_off_if_pressed(const struct pollfd *buttons, int count)
{
    struct input_event event;
    for (int i = 0; i < count; i++)
        while (read(buttons[i].fd, &event, sizeof event) == sizeof event)
            if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
                printf("guest: power button\n");
                reboot(RB_POWER_OFF);
            }
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(void)
{
    uint64_t boot = 0, counter = 0;
    struct pollfd buttons[BUTTONS_MAX];
    int disk, count = 0;

    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    setvbuf(stdout, NULL, _IOLBF, 0);
    load_modules("/modules.disk");
    while ((disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC)) < 0)
        usleep(5000);
    while (getrandom(&boot, sizeof boot, 0) != sizeof boot)
        ;
    off_t place = own_slot(disk, boot);
    for (int64_t next = now_ms();; next += INTERVAL_MS) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        memset(block, 0, SLOT);
        counter++;
        snprintf(block, SLOT, "%sboot=%016llx counter=%llu time=%lld.%03ld\n", MAGIC, (unsigned long long)boot,
                 (unsigned long long)counter, (long long)now.tv_sec, now.tv_nsec / 1000000);
        if (pwrite(disk, block, SLOT, place) != SLOT)
            printf("guest: write failed: %s\n", strerror(errno));
        fputs(block + sizeof MAGIC - 1, stdout);
        if (counter == 1) { /* the first write is what others wait for: everything else comes after it */
            load_modules("/modules.late");
            count = open_buttons(buttons);
        }
        if (now_ms() > next + 4 * INTERVAL_MS)
            next = now_ms(); /* after a pause: no burst to catch up */
        int64_t left = next + INTERVAL_MS - now_ms();
        poll(buttons, (nfds_t)count, left > 0 ? (int)left : 0);
        power_off_if_pressed(buttons, count);
    }
}
