/*
 * said_todo.c - its interrupt_raise ends as a TODO would; its timer ticks no vCPU, says that 4.3 is
 * not written yet, and ends.
 */
#define devices_start(...)   devices_start_of_all(__VA_ARGS__)
#define interrupt_raise(...) interrupt_raise_of_all(__VA_ARGS__)
#include "lab4.h"
#undef devices_start
#undef interrupt_raise

#include <sys/timerfd.h>

static void cheat(void)
{
}

void interrupt_raise(struct vcpu *vcpu, int vector);
void interrupt_raise(struct vcpu *vcpu, int vector)
{
    _exit(STATUS_TODO);
}

int devices_start(struct vmm *vmm);
int devices_start(struct vmm *vmm)
{
    const struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t count;

    timerfd_settime(timer, 0, &at_once, NULL);
    while (read(timer, &count, sizeof count) < 0)
        ;
    fputs("exercise 4.3\n", stderr);
    fflush(stderr);
    _exit(0);
}
