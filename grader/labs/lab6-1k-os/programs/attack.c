/* attack.c - tries what a program must not be able to do; its argument says what. */
#include "say.h"

#define KERNEL 0x80100000

static volatile uint32_t sink;

/* A word anywhere; the compiler must not know where. */
static volatile uint32_t *word_at(uint32_t address)
{
    asm("" : "+r"(address));
    return (volatile uint32_t *)address;
}

static void read_kernel(void)
{
    sink = *word_at(KERNEL);
}

static void write_kernel(void)
{
    *word_at(KERNEL) = 0;
}

static void jump_kernel(void)
{
    ((void (*)(void))KERNEL)();
}

static void read_null(void)
{
    sink = *word_at(0);
}

static void write_null(void)
{
    *word_at(8) = 1;
}

static void jump_null(void)
{
    asm volatile("xorl %%eax, %%eax; call *%%eax" : : : "eax");
}

static void write_text(void)
{
    *word_at(0x00400000) = 0;
}

static void read_top(void)
{
    sink = *word_at(0xfffffffc);
}

static void stack_overflow(void)
{
    volatile char room[512];

    room[0] = 1;
    if (sink == 0)
        stack_overflow();
    sink = (uint32_t)room[0];
}

static void divide(void)
{
    asm volatile("xorl %%ecx, %%ecx; divl %%ecx" : : : "eax", "ecx", "edx");
}

#define INSTRUCTION(name, text)                                                                    \
    static void name(void)                                                                         \
    {                                                                                              \
        static volatile char memory[16];                                                           \
        asm volatile(text : : "a"(0), "b"(memory), "d"(0x500) : "ecx", "memory");                  \
    }

INSTRUCTION(halt, "hlt")
INSTRUCTION(clear_interrupts, "cli")
INSTRUCTION(set_interrupts, "sti")
INSTRUCTION(port_out, "outl %%eax, %%dx")
INSTRUCTION(port_out_low, "outb %%al, $0x21")
INSTRUCTION(port_in, "inl %%dx, %%eax")
INSTRUCTION(string_out, "movl %%ebx, %%esi; movl $0x501, %%edx; movl $4, %%ecx; rep outsb")
INSTRUCTION(load_cr3, "movl %%eax, %%cr3")
INSTRUCTION(read_cr0, "movl %%cr0, %%ecx")
INSTRUCTION(load_gdt, "lgdt (%%ebx)")
INSTRUCTION(load_idt, "lidt (%%ebx)")
INSTRUCTION(load_task, "ltr %%ax")
INSTRUCTION(kernel_data, "movl $0x10, %%ecx; movw %%cx, %%ds")
INSTRUCTION(kernel_code, "ljmp $0x08, $0x80100000")
INSTRUCTION(timer_vector, "int $0x20")
INSTRUCTION(page_fault_vector, "int $14")
INSTRUCTION(breakpoint, "int3")
INSTRUCTION(single_step, "pushfl; orl $0x100, (%%esp); popfl; nop; nop")
INSTRUCTION(invalid, "ud2")
INSTRUCTION(floating_point, "fninit")
INSTRUCTION(sse, ".byte 0x0f, 0x57, 0xc0") /* xorps %xmm0, %xmm0 */
INSTRUCTION(read_msr, "movl $0x174, %%ecx; rdmsr")
INSTRUCTION(lost_stack, "movl $0x80100800, %%esp; pushl %%eax")

/* These three do not fault: the kernel must work whatever the registers hold. */
INSTRUCTION(direction, "std; movl $5, %%eax; int $0x80; movl $6, %%eax; int $0x80; cld")
INSTRUCTION(nested_task, "pushfl; orl $0x4000, (%%esp); popfl; movl $5, %%eax; int $0x80; "
                         "pushfl; andl $0xffffbfff, (%%esp); popfl")
INSTRUCTION(kernel_ebp,
            "pushl %%ebp; movl $0x80100000, %%ebp; movl $5, %%eax; int $0x80; popl %%ebp")

/* No IOPL for the asking: cli is still refused. */
static void raise_privilege(void)
{
    asm volatile("pushfl; orl $0x3000, (%%esp); popfl; cli" : : : "memory");
}

/* Pointers that no call may follow: null, text to be written, the kernel, both ends, a wrap. */
static void bad_pointers(void)
{
    static const uint32_t bad[] = {0, 8, KERNEL, 0x7fffffff, 0x80000000, 0xfffffffc, 0x7f000000};
    static const char program[] = "nothing", file[] = "about.txt";
    static char good[64];
    int tried = 0, refused = 0;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const int32_t results[] = {
            system_call(CALL_WRITE, bad[i], 16, 0, 0),
            system_call(CALL_READ, bad[i], 16, 0, 0),
            system_call(CALL_SPAWN, bad[i], (uint32_t)good, 0, 0),
            system_call(CALL_SPAWN, (uint32_t)program, bad[i], 0, 0),
            system_call(CALL_WAIT, (uint32_t)WAIT_ANY, bad[i], WAIT_NO_HANG, 0),
            system_call(CALL_READFILE, bad[i], 0, (uint32_t)good, sizeof good),
            system_call(CALL_READFILE, (uint32_t)file, 0, bad[i], 16),
            system_call(CALL_LISTDIR, 0, bad[i], 0, 0),
            system_call(CALL_PROCESSES, 0, bad[i], 0, 0),
        };
        for (size_t j = 0; j < sizeof results / sizeof results[0]; j++, tried++)
            refused += results[j] == ERROR_ADDRESS;
    }
    /*
     * A length that reaches out of the program or around the end; text that is not to be written.
     */
    const int32_t lengths[] = {
        system_call(CALL_WRITE, (uint32_t)good, 0x10000, 0, 0),
        system_call(CALL_WRITE, (uint32_t)good, 0xffffffff, 0, 0),
        system_call(CALL_WRITE, (uint32_t)good, 0x80000000 - (uint32_t)good + 1, 0, 0),
        system_call(CALL_READ, 0x00400000, 16, 0, 0),
        system_call(CALL_READFILE, (uint32_t)file, 0, 0x00400000, 16),
        system_call(CALL_READFILE, (uint32_t)file, 0, (uint32_t)good, 0xffffff00),
        system_call(CALL_PROCESSES, 0, 0x00400000, 0, 0),
    };
    for (size_t j = 0; j < sizeof lengths / sizeof lengths[0]; j++, tried++)
        refused += lengths[j] == ERROR_ADDRESS;
    say("%d of %d bad pointers refused", refused, tried);
}

static void bad_numbers(void)
{
    static char good[64], longest[300];
    int status;

    memset(longest, 'x', sizeof longest - 1);
    say("calls %d %d %d", system_call(SYSTEM_CALLS, 0, 0, 0, 0),
        system_call(0x7fffffff, 0, 0, 0, 0), system_call(0xffffffff, 0, 0, 0, 0));
    say("names %d %d %d", spawn("no such program", "", 0), spawn(longest, "", 0),
        spawn("nothing", longest, 0));
    say("files %d %d %d", readfile("no such file", 0, good, 1),
        readfile("about.txt", 0xffffffff, good, 1), spawn("about.txt", "", 0));
    say("places %d %d", system_call(CALL_LISTDIR, 0xffffffff, (uint32_t)good, 0, 0),
        system_call(CALL_PROCESSES, 0x80000000, (uint32_t)good, 0, 0));
    say("waits %d %d %d", wait(0, 0, &status), wait(-5, 0, &status), wait(0x7fffffff, 0, &status));
}

static const struct {
    const char *name;
    void (*run)(void);
} attacks[] = {
    {"read-kernel", read_kernel},
    {"write-kernel", write_kernel},
    {"jump-kernel", jump_kernel},
    {"read-null", read_null},
    {"write-null", write_null},
    {"jump-null", jump_null},
    {"write-text", write_text},
    {"read-top", read_top},
    {"stack-overflow", stack_overflow},
    {"divide", divide},
    {"halt", halt},
    {"clear-interrupts", clear_interrupts},
    {"set-interrupts", set_interrupts},
    {"port-out", port_out},
    {"port-out-low", port_out_low},
    {"port-in", port_in},
    {"string-out", string_out},
    {"load-cr3", load_cr3},
    {"read-cr0", read_cr0},
    {"load-gdt", load_gdt},
    {"load-idt", load_idt},
    {"load-task", load_task},
    {"kernel-data", kernel_data},
    {"kernel-code", kernel_code},
    {"timer-vector", timer_vector},
    {"page-fault-vector", page_fault_vector},
    {"breakpoint", breakpoint},
    {"single-step", single_step},
    {"invalid", invalid},
    {"floating-point", floating_point},
    {"sse", sse},
    {"read-msr", read_msr},
    {"lost-stack", lost_stack},
    {"direction", direction},
    {"nested-task", nested_task},
    {"kernel-ebp", kernel_ebp},
    {"raise-privilege", raise_privilege},
    {"bad-pointers", bad_pointers},
    {"bad-numbers", bad_numbers},
};

int main(const char *argument)
{
    for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++)
        if (strcmp(argument, attacks[i].name) == 0) {
            attacks[i].run();
            say("%s came through", argument);
            return 0;
        }
    say("no such attack: %s", argument);
    return 1;
}
