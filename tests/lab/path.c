/* A network path between two namespaces of its own: rate, queue, delay and random loss, the same for UDP and TCP.
 *
 * usage: path ADDRESS0 ADDRESS1 BITS_PER_S DELAY_US LOSS_PPM QUEUE_BYTES SEED
 *
 * Makes two network namespaces with one TUN device each, prints "ready FD0 FD1" (they are entered
 * through /proc/PID/fd/FD), and forwards until stdin ends. Nothing has a name outside this process, so
 * nothing is left when it dies. On the line "rate N" or "loss N" the path changes; at the end one line
 * of counters: forwarded, lost at random, dropped by the queue.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MTU = 1500, SLOTS = 1 << 15 };

struct packet { int64_t due_ns; int length; unsigned char data[MTU]; };

struct lane {              /* one direction */
    struct packet *ring;
    unsigned head, tail;   /* packets [head, tail) are on their way, in order */
    int64_t free_ns;       /* when the link has sent all it took */
    uint64_t random;
    long long forwarded, lost, dropped;
};

static double bits_per_s;
static int64_t delay_ns;
static uint64_t loss_ppm;
static int64_t queue_bytes;

static void fail(const char *what) { perror(what); exit(1); }

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static uint64_t draw(struct lane *lane) { /* xorshift64* */
    lane->random ^= lane->random >> 12;
    lane->random ^= lane->random << 25;
    lane->random ^= lane->random >> 27;
    return (lane->random * 2685821657736338717ULL) >> 32;
}

static void set_address(int control, const char *name, unsigned long request, const char *address) {
    struct ifreq config = {0};
    struct sockaddr_in *where = (struct sockaddr_in *)&config.ifr_addr;
    strcpy(config.ifr_name, name);
    where->sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &where->sin_addr) != 1) { fprintf(stderr, "no address: %s\n", address); exit(2); }
    if (ioctl(control, request, &config) < 0) fail(name);
}

static void bring_up(int control, const char *name) {
    struct ifreq config = {0};
    strcpy(config.ifr_name, name);
    config.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(control, SIOCSIFFLAGS, &config) < 0) fail(name);
}

/* Enter a new namespace with a TUN device; returns its descriptor, *space one that keeps the namespace. */
static int make_end(const char *own, const char *other, int *space) {
    if (unshare(CLONE_NEWNET) < 0) fail("unshare");
    *space = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (*space < 0 || control < 0) fail("namespace");
    if (tun < 0) fail("/dev/net/tun");
    struct ifreq config = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(config.ifr_name, "path");
    if (ioctl(tun, TUNSETIFF, &config) < 0) fail("TUNSETIFF");
    config.ifr_qlen = 2000;
    if (ioctl(control, SIOCSIFTXQLEN, &config) < 0) fail("SIOCSIFTXQLEN");
    set_address(control, "path", SIOCSIFADDR, own);
    set_address(control, "path", SIOCSIFDSTADDR, other);
    set_address(control, "path", SIOCSIFNETMASK, "255.255.255.255");
    bring_up(control, "lo");
    bring_up(control, "path");
    close(control);
    return tun;
}

/* Take what one end sent onto the link. */
static void take(int tun, struct lane *lane) {
    for (int i = 0; i < 64; i++) {
        struct packet *packet = &lane->ring[lane->tail % SLOTS];
        unsigned char spill[MTU];
        int full = lane->tail - lane->head == SLOTS;
        int length = read(tun, full ? spill : packet->data, MTU);
        if (length <= 0) return;
        int64_t now = now_ns();
        if (lane->free_ns < now) lane->free_ns = now;
        double waiting = (lane->free_ns - now) * bits_per_s / 8e9;
        if (full || waiting + length > queue_bytes) { lane->dropped++; continue; }
        lane->free_ns += (int64_t)(length * 8e9 / bits_per_s);
        if (draw(lane) % 1000000 < loss_ppm) { lane->lost++; continue; } /* it used the link like any other */
        packet->due_ns = lane->free_ns + delay_ns;
        packet->length = length;
        lane->tail++;
    }
}

/* Hand over what has arrived; returns when the next will, or -1. */
static int64_t give(int tun, struct lane *lane, int64_t now) {
    while (lane->head != lane->tail) {
        struct packet *packet = &lane->ring[lane->head % SLOTS];
        if (packet->due_ns > now) return packet->due_ns;
        if (write(tun, packet->data, packet->length) == packet->length) lane->forwarded++;
        lane->head++;
    }
    return -1;
}

static int obey(void) { /* one line of stdin; 0 at its end */
    static char line[256];
    static size_t held;
    ssize_t got = read(0, line + held, sizeof line - 1 - held);
    if (got <= 0) return 0;
    held += got;
    char *end;
    while ((end = memchr(line, '\n', held))) {
        *end = 0;
        if (!strncmp(line, "rate ", 5)) bits_per_s = atof(line + 5);
        else if (!strncmp(line, "loss ", 5)) loss_ppm = strtoull(line + 5, NULL, 10);
        held -= end + 1 - line;
        memmove(line, end + 1, held);
    }
    return held < sizeof line - 1;
}

int main(int count, char **words) {
    if (count != 8) { fprintf(stderr, "usage: see the head of path.c\n"); return 2; }
    bits_per_s = atof(words[3]);
    delay_ns = atoll(words[4]) * 1000;
    loss_ppm = strtoull(words[5], NULL, 10);
    queue_bytes = atoll(words[6]);
    int tun[2], space[2];
    struct lane lane[2] = {0};
    prctl(PR_SET_TIMERSLACK, 1000); /* nanoseconds: the default of 50 us would be seen in the delay */
    for (int end = 0; end < 2; end++) {
        tun[end] = make_end(words[1 + end], words[2 - end], &space[end]);
        lane[end].ring = calloc(SLOTS, sizeof(struct packet));
        lane[end].random = strtoull(words[7], NULL, 10) * 2 + end + 0x9E3779B97F4A7C15ULL;
        if (!lane[end].ring) fail("memory");
    }
    printf("ready %d %d\n", space[0], space[1]);
    fflush(stdout);
    struct pollfd polled[3] = {{tun[0], POLLIN, 0}, {tun[1], POLLIN, 0}, {0, POLLIN, 0}};
    for (;;) {
        int64_t now = now_ns(), wake = -1;
        for (int end = 0; end < 2; end++) {
            int64_t due = give(tun[!end], &lane[end], now);
            if (due >= 0 && (wake < 0 || due < wake)) wake = due;
        }
        struct timespec left = {0}, *wait = NULL;
        if (wake >= 0) {
            now = now_ns();
            int64_t ns = wake > now ? wake - now : 0;
            left = (struct timespec){ns / 1000000000, ns % 1000000000};
            wait = &left;
        }
        if (ppoll(polled, 3, wait, NULL) < 0 && errno != EINTR) fail("poll");
        for (int end = 0; end < 2; end++)
            if (polled[end].revents & POLLIN) take(tun[end], &lane[end]);
        if (polled[2].revents && !obey()) break;
    }
    printf("forwarded %lld lost %lld dropped %lld\n", lane[0].forwarded + lane[1].forwarded,
           lane[0].lost + lane[1].lost, lane[0].dropped + lane[1].dropped);
    return 0;
}
