/*
 * kernel.c - a small 64-bit kernel to take further: an IDT, a timer that switches between threads,
 * a keyboard queue, and a prompt. It has no memory management and no ring 3 yet. It uses no SSE
 * registers, so a switch need not save them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "boot_info.h"

#define VECTORS      0x22
#define GATE         0x8e /* present, ring 0, 64-bit interrupt gate */
#define STATUS_PANIC 62
#define FLAGS_START  0x202 /* interrupts enabled; bit 1 is always 1 */
#define TURNS        3     /* of each thread, in the command `threads` */
#define LINE_MAX     64
#define KEYS_MAX     256

/* What is on the stack in `interrupt`, lowest address first: entry.asm's part, then the
 * processor's. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* SDM vol. 3, 6.14.1 "64-Bit Mode IDT". */
struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct thread {
    const char *name;
    bool runs;
    unsigned turns;      /* how often it was switched to */
    struct frame *frame; /* where it continues, while another one runs */
    uint8_t stack[4096] __attribute__((aligned(16)));
};

extern const uint64_t entries[VECTORS]; /* entry.asm */
_Noreturn void kernel_main(uint64_t boot_information);
struct frame *interrupt(struct frame *frame);
void *memset(void *to, int byte, size_t count);

static struct gate idt[VECTORS];
static struct thread threads[] = {{.name = "prompt", .runs = true}, {.name = "a"}, {.name = "b"}};
static unsigned current;       /* the thread that runs */
static uint8_t keys[KEYS_MAX]; /* typed, and not read yet; those that do not fit are lost */
static volatile unsigned key_first, key_count;
static volatile bool input_ended;

#define THREADS (sizeof threads / sizeof threads[0])

/* Compilers call it, even for a kernel. */
void *memset(void *to, int byte, size_t count)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(byte) : "memory");
    return to;
}

/* ------------------------------------------------------------------ hypercalls */

static uint32_t call(uint32_t number, uint64_t rbx)
{
    __asm__ volatile("outl %0, %1" : : "a"(number), "Nd"((uint16_t)HYPERCALL_PORT), "b"(rbx));
    return number;
}

static void print(const char *text)
{
    while (*text)
        call(HC_PUTCHAR, (uint8_t)*text++);
}

static void print_number(uint64_t number, unsigned base)
{
    char digits[65];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do
        digits[--at] = "0123456789abcdef"[number % base];
    while ((number /= base) != 0);
    print(base == 16 ? "0x" : "");
    print(digits + at);
}

_Noreturn static void end(uint8_t status)
{
    for (;;)
        call(HC_EXIT, status);
}

/* ------------------------------------------------------------------ interrupts and threads */

static void idt_load(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (uint64_t)idt};

    for (size_t i = 0; i < VECTORS; i++)
        idt[i] = (struct gate){
            .offset_low = (uint16_t)entries[i],
            .offset_middle = (uint16_t)(entries[i] >> 16),
            .offset_high = (uint32_t)(entries[i] >> 32),
            .selector = SELECTOR_KERNEL_CODE,
            .type = GATE,
        };
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

_Noreturn static void panic(const struct frame *frame)
{
    uint64_t cr2;

    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    print("kernel64 panic: exception ");
    print_number(frame->vector, 10);
    print(" at ");
    print_number(frame->rip, 16);
    print(", error code ");
    print_number(frame->error, 16);
    print(", CR2 ");
    print_number(cr2, 16);
    print("\n");
    end(STATUS_PANIC);
}

/* Takes every key that there is: the VMM interrupts again only for those that come later. */
static void keys_take(void)
{
    uint32_t key;

    for (;;) {
        call(HC_GETCHAR, 0);
        __asm__ volatile("inl %1, %0" : "=a"(key) : "Nd"((uint16_t)HYPERCALL_PORT));
        if (key == (uint32_t)GETCHAR_NOTHING)
            return;
        if (key == (uint32_t)GETCHAR_END) {
            input_ended = true;
            return;
        }
        if (key_count < KEYS_MAX)
            keys[(key_first + key_count++) % KEYS_MAX] = (uint8_t)key;
    }
}

/* The next thread that runs, after the one that was interrupted. */
static struct frame *thread_switch(struct frame *frame)
{
    threads[current].frame = frame;
    do
        current = (current + 1) % THREADS;
    while (!threads[current].runs);
    threads[current].turns++;
    return threads[current].frame;
}

/* Every exception and interrupt comes here; returns the frame to continue with. */
struct frame *interrupt(struct frame *frame)
{
    if (frame->vector == TIMER_VECTOR)
        return thread_switch(frame);
    if (frame->vector != KEYBOARD_VECTOR)
        panic(frame);
    keys_take();
    return frame;
}

/* A thread's work: it never gives up the processor by itself. */
static void spin(void)
{
    for (;;)
        __asm__ volatile("pause");
}

static void thread_start(struct thread *thread, void (*function)(void))
{
    uint64_t end_of_stack = (uint64_t)(thread->stack + sizeof thread->stack);

    thread->frame = (struct frame *)(end_of_stack - 16) - 1;
    *thread->frame = (struct frame){
        .rip = (uint64_t)function,
        .cs = SELECTOR_KERNEL_CODE,
        .rflags = FLAGS_START,
        .rsp = end_of_stack - 8, /* as after a call */
        .ss = SELECTOR_KERNEL_DATA,
    };
    thread->turns = 0;
    thread->runs = true;
}

/* Waits for the next interrupt. STI takes effect after HLT has begun: none is missed between. */
static void wait(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* ------------------------------------------------------------------ the prompt */

static bool is(const char *text, const char *other)
{
    while (*text && *text == *other)
        text++, other++;
    return *text == *other;
}

/* Reads a line with interrupts disabled but in `wait`; false: the input has ended. */
static bool line_read(char *line)
{
    size_t count = 0;

    for (;;) {
        while (key_count == 0) {
            if (input_ended)
                return false;
            wait();
        }
        char key = (char)keys[key_first];
        key_first = (key_first + 1) % KEYS_MAX;
        key_count--;
        if (key == '\n')
            break;
        if (count < LINE_MAX - 1)
            line[count++] = key;
    }
    line[count] = '\0';
    return true;
}

/* Two threads that never stop by themselves: only the timer can switch between them. */
static void command_threads(void)
{
    for (size_t i = 1; i < THREADS; i++)
        thread_start(&threads[i], spin);
    for (size_t i = 1; i < THREADS; i++)
        while (*(volatile unsigned *)&threads[i].turns < TURNS)
            wait();
    for (size_t i = 1; i < THREADS; i++) {
        threads[i].runs = false;
        print("thread ");
        print(threads[i].name);
        print(" ran, and was interrupted by the timer\n");
    }
}

static void command_run(const char *line, const struct boot_info *info)
{
    if (is(line, "threads")) {
        command_threads();
    } else if (is(line, "memory")) {
        print_number(info->memory_bytes >> 10, 10);
        print(" KB\n");
    } else if (is(line, "fault")) {
        *(volatile uint8_t *)0x7f0000000000 = 0;
    } else if (*line) {
        print("commands: threads, memory, fault, exit\n");
    }
}

_Noreturn void kernel_main(uint64_t boot_information)
{
    const struct boot_info *info = (const struct boot_info *)(HIGHER_HALF_64 + boot_information);
    char line[LINE_MAX];

    if (info->magic != BOOT_MAGIC)
        end(STATUS_PANIC);
    idt_load();
    print("kernel64: a 64-bit kernel with two threads\n");
    for (;;) {
        print("64> ");
        if (!line_read(line) || is(line, "exit"))
            end(0);
        print(line);
        print("\n");
        command_run(line, info);
    }
}
