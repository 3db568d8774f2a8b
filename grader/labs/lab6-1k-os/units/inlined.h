/*
 * inlined.h - compiled in front of the learner's sched.c: a caller into which the compiler copies
 * context_switch. A function call would hide it when the switch does not name all that it changes,
 * because a caller keeps nothing in EAX, ECX and EDX across a call, and reads memory again after
 * it. Inlined there is no call, and the compiler goes by what the asm names alone.
 */
#pragma once

#include <stdint.h>

/*
 * The kernel's two functions that a switch calls, inlined too; without the clobber "memory", which
 * the switch has to name by itself.
 */
static inline void directory_load(const uint32_t *directory);
static inline void trap_stack_set(uint32_t stack);

#include "kernel.h"

static inline void directory_load(const uint32_t *directory)
{
    asm volatile("mov %0, %%cr3" : : "r"(physical_address(directory)));
}

/*
 * TSS.esp0, found as the processor does: SDM vol. 3, 3.5 "System Descriptor Types". In assembly, so
 * that it takes no register from the values below.
 */
static inline void trap_stack_set(uint32_t stack)
{
    asm volatile("pushl %%eax\n\t"
                 "pushl %%edx\n\t"
                 "pushl %0\n\t"
                 "subl $8, %%esp\n\t"
                 "sgdt (%%esp)\n\t"
                 "movl 2(%%esp), %%edx\n\t"
                 "addl $8, %%esp\n\t"
                 "movl %c1+2(%%edx), %%eax\n\t" /* bits 0 to 23 of the TSS's address */
                 "andl $0xffffff, %%eax\n\t"
                 "movzbl %c1+7(%%edx), %%edx\n\t" /* bits 24 to 31 */
                 "shll $24, %%edx\n\t"
                 "orl %%edx, %%eax\n\t"
                 "popl 4(%%eax)\n\t"
                 "popl %%edx\n\t"
                 "popl %%eax"
                 :
                 : "r"(stack), "i"(SELECTOR_TSS)
                 : "cc");
}

volatile uint32_t switch_pattern;

uint32_t switch_inlined(struct process *next, bool *same);

/*
 * Switches to `next` with values alive in whatever registers the switch leaves to the compiler, and
 * with two that the switch itself has in registers. Returns the bits in which they differ after the
 * switch back; *same: does `current` read as it did before?
 */
__attribute__((flatten, noinline)) uint32_t switch_inlined(struct process *next, bool *same)
{
    uint32_t a = switch_pattern, b = switch_pattern, c = switch_pattern;
    struct process *before = current;
    uint32_t *place = &before->stack, stack = next->stack;
    volatile uint32_t kept[] = {(uint32_t)place, stack};
    uint32_t lost = 0;

    context_switch(next);
    *same = current == before;
    for (int i = 0; i < 100; i++)
        lost |= (a ^ switch_pattern) | (b ^ switch_pattern) | (c ^ switch_pattern);
    return lost | ((uint32_t)place ^ kept[0]) | (stack ^ kept[1]);
}
