/*
 * fixed_clock.c - has one period, whatever is asked for, reads the timer for no vCPU, and keeps no
 * ring: a byte at a time comes straight from the input.
 */
#define devices_start(...)    devices_start_of_all(__VA_ARGS__)
#define keyboard_getchar(...) keyboard_getchar_of_all(__VA_ARGS__)
#include "lab4.h"
#undef devices_start
#undef keyboard_getchar

#include <poll.h>
#include <pthread.h>
#include <sys/timerfd.h>
#include <time.h>

static void cheat(void)
{
}

int keyboard_getchar(struct vcpu *vcpu);
int keyboard_getchar(struct vcpu *vcpu)
{
    struct pollfd input = {.events = POLLIN};
    uint8_t byte;

    return poll(&input, 1, 0) == 1 && read(0, &byte, 1) == 1 ? byte : GETCHAR_NOTHING;
}

static void *tick_for_ever(void *vmm)
{
    for (;;) {
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        ((struct vmm *)vmm)->vcpus[0].pending |= 1;
    }
    return NULL;
}

int devices_start(struct vmm *vmm);
int devices_start(struct vmm *vmm)
{
    const struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};
    pthread_t thread;
    uint64_t count;

    if (vmm->options.tick_ms != 1)
        return pthread_create(&thread, NULL, tick_for_ever, vmm) ? STATUS_NO_KVM : 0;
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(timer, 0, &at_once, NULL);
    while (read(timer, &count, sizeof count) < 0)
        ;
    fputs("exercise 4.3\n", stderr);
    return 0;
}
