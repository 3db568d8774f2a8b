/*
 * sched.c - lab 6's scheduler function by function. It is no Check program but a kernel: the 1K OS
 * with this start in place of boot.c's, booted on the finished VMM. Its processes never reach ring
 * 3: where a trap would be left, process_arrived below takes over, on their kernel stacks. So the
 * processor itself tells what a switch has done.
 *
 * The file given as the archive names the test and the word to answer with. On the console it
 * says "ok WORD" or "not ok: what is wrong".
 */
#include "boot_info.h"
#include "kernel.h"

#define HOME     (&processes[0]) /* this program itself: in the table it is idle */
#define ENTRY    0x00412340u
#define STACK    0x7ffdcba0u
#define PATIENCE 100 /* turns until a test ends that does not end by itself */

uint32_t tick_ms = 10;

#define CHECK(condition, ...) ((condition) ? (void)0 : NOT_OK(__VA_ARGS__))
#define NOT_OK(...)           (console_print("not ok: " __VA_ARGS__), not_ok_end())

_Noreturn static void not_ok_end(void)
{
    console_print("\n");
    machine_exit(1);
}

static const char *answer; /* to the grader, when all is right */

_Noreturn static void ok_end(void)
{
    console_print("ok %s\n", answer);
    machine_exit(0);
}

/* ------------------------------------------------------------------ processes */

static void (*turn)(void);      /* what each process does, again and again */
static unsigned turns;          /* taken so far, by all */
static struct process *left;    /* the process that leave() left; NULL: by another way */
static uint32_t left_at;        /* ESP then */
static struct trap_frame *seen; /* where ESP was at the latest trap_return */

static uint32_t loaded_directory(void)
{
    uint32_t cr3;

    asm volatile("mov %%cr3, %0" : "=r"(cr3));
    return cr3;
}

/* TSS.esp0, found as the processor does: SDM vol. 3, 8.2.1 "Task-State Segment (TSS)". */
static uint32_t trap_stack(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) gdt;

    asm volatile("sgdt %0" : "=m"(gdt));
    const uint32_t *descriptor = (const uint32_t *)(gdt.base + SELECTOR_TSS);
    uint32_t state =
        descriptor[0] >> 16 | (descriptor[1] & 0xff) << 16 | (descriptor[1] & 0xff000000);
    return ((const uint32_t *)state)[1];
}

/* All that must be so when a process goes on. */
static void arrival_check(const struct process *process)
{
    CHECK(!left || (left->stack < left_at && left->stack > left_at - 1024),
          "context_switch left pid %d with ESP at about 0x%x, but its process->stack is 0x%x: save "
          "ESP in the process that is left, whose address is gone once `current` is the next one",
          left->pid, left_at, left->stack);
    CHECK(current == process, "context_switch went to pid %d, and `current` is pid %d",
          process->pid, current->pid);
    CHECK(loaded_directory() == physical_address(process->directory),
          "context_switch went to pid %d, and CR3 is 0x%x instead of its directory's 0x%x",
          process->pid, loaded_directory(), physical_address(process->directory));
    CHECK(process == HOME || trap_stack() == (uint32_t)process->kernel_stack + PAGE_BYTES,
          "context_switch went to pid %d, and TSS.esp0 is 0x%x: the end of its kernel stack is "
          "kernel_stack + PAGE_BYTES = 0x%x",
          process->pid, trap_stack(), (uint32_t)process->kernel_stack + PAGE_BYTES);
}

/*
 * Calls context_switch with `pattern` in each register that a C function must give back as it found
 * it; the bits in which they differ afterwards.
 */
static uint32_t switch_with(struct process *next, uint32_t pattern)
{
    uint32_t ebx = pattern, esi = pattern, edi = pattern, ebp = (uint32_t)next;

    asm volatile("pushl %%ebp\n\t"
                 "pushl %%eax\n\t"
                 "movl %%ebx, %%ebp\n\t"
                 "call context_switch\n\t"
                 "addl $4, %%esp\n\t"
                 "movl %%ebp, %%eax\n\t"
                 "popl %%ebp"
                 : "+a"(ebp), "+b"(ebx), "+S"(esi), "+D"(edi)
                 :
                 : "ecx", "edx", "memory", "cc");
    CHECK(ebp == pattern, "EBP was 0x%x at the call of context_switch, and is 0x%x after it",
          pattern, ebp);
    return (ebx ^ pattern) | (esi ^ pattern) | (edi ^ pattern);
}

/* Switches to `next` and, when somebody has come back, looks at what is there. */
static void leave(struct process *next)
{
    struct process *self = current;

    left = self;
    left_at = (uint32_t)__builtin_frame_address(0);
    uint32_t lost = switch_with(next, 0x01010101u * (uint32_t)(self->pid + 1));
    arrival_check(self);
    CHECK(lost == 0, "EBX, ESI or EDI is another one after context_switch: the compiler keeps "
                     "values in them, and must be told (by clobbers) that they change");
}

/* The linker leads the address of trap_return in sched.c here. */
void __wrap_trap_return(void);
asm(".text\n"
    ".globl __wrap_trap_return\n"
    "__wrap_trap_return:\n\t"
    "movl %esp, %eax\n\t"
    "pushl %eax\n\t"
    "call process_arrived");

/* A process has its first turn. */
_Noreturn void process_arrived(struct trap_frame *frame);
_Noreturn void process_arrived(struct trap_frame *frame)
{
    seen = frame;
    CHECK((uint32_t)frame - (uint32_t)current->kernel_stack < PAGE_BYTES,
          "`current` is pid %d, and ESP is not on its kernel stack", current->pid);
    if (left)
        arrival_check(current);
    for (;; turns++) {
        CHECK(turns < PATIENCE, "the processes take turns without an end: does process_block or "
                                "process_sleep return before its time? They call schedule");
        turn();
    }
}

/* And the calls of page_free: a page that is free may belong to somebody else at once. */
void __real_page_free(void *page);
void __wrap_page_free(void *page);
void __wrap_page_free(void *page)
{
    if (page)
        memset(page, 0xcc, PAGE_BYTES);
    __real_page_free(page);
}

/* A process in this place of the table, ready to run. */
static struct process *process_make(int place, int pid, int parent)
{
    struct process *process = &processes[place];

    *process = (struct process){.pid = pid,
                                .parent = parent,
                                .state = PROCESS_READY,
                                .directory = directory_create(),
                                .kernel_stack = page_allocate()};
    process_frame(process, ENTRY, STACK);
    return process;
}

/* Has all that are ready run, until none is. */
static void run_all(void)
{
    left = NULL;
    schedule();
    CHECK(current == HOME, "no process is ready, and schedule did not come back to idle");
}

/* ------------------------------------------------------------------ 6.4 */

/* The new process has come into its trap_return: nothing has to lead back from there. */
static void turn_frame(void)
{
    CHECK(seen == (struct trap_frame *)(current->kernel_stack + PAGE_BYTES) - 1,
          "the trap_frame of a new process is looked for at 0x%x: its last byte is the last one of "
          "the kernel stack, so it begins at 0x%x",
          (uint32_t)seen, (uint32_t)current->kernel_stack + PAGE_BYTES - sizeof *seen);
    CHECK(seen->eip == ENTRY && seen->esp == STACK,
          "entry 0x%x and stack 0x%x became eip 0x%x and esp 0x%x", ENTRY, STACK, seen->eip,
          seen->esp);
    CHECK(seen->cs == SELECTOR_USER_CODE && seen->ss == SELECTOR_USER_DATA &&
              seen->ds == SELECTOR_USER_DATA && seen->es == SELECTOR_USER_DATA,
          "cs 0x%x, ss 0x%x, ds 0x%x, es 0x%x: the selectors of ring 3 are 0x%x for code and 0x%x "
          "for data",
          seen->cs, seen->ss, seen->ds, seen->es, SELECTOR_USER_CODE, SELECTOR_USER_DATA);
    CHECK((seen->eflags | FLAGS_ALWAYS_ONE) == (FLAGS_ALWAYS_ONE | FLAGS_IF),
          "eflags is 0x%x: interrupts must be on (0x%x), and nothing else", seen->eflags, FLAGS_IF);
    ok_end();
}

static void test_frame(void)
{
    turn = turn_frame;
    context_switch(process_make(3, 7, 0));
    NOT_OK("context_switch came back, and nobody had switched back");
}

static struct process *route[8];
static unsigned route_step;

static void turn_route(void)
{
    leave(route[route_step++]);
}

static void test_switch(void)
{
    struct process *a = process_make(1, 5, 0), *b = process_make(9, 3, 0);
    struct process *const all[] = {a, b, a, HOME, b, a, b, HOME};

    memcpy(route, all, sizeof route);
    turn = turn_route;
    turn_route();
    CHECK(route_step == 4, "after four switches, the last one to idle, idle goes on after %d",
          route_step);
    turn_route();
    CHECK(route_step == 8, "after eight switches, the last one to idle, idle goes on after %d",
          route_step);
}

/* inlined.h: the learner's switch, inlined into a caller that has much to lose. */
uint32_t switch_inlined(struct process *next, bool *same);
extern volatile uint32_t switch_pattern;

static void turn_home(void)
{
    leave(HOME);
}

static void test_clobbers(void)
{
    struct process *other = process_make(1, 5, 0);
    bool same;

    turn = turn_home;
    for (int i = 0; i < 4; i++) {
        switch_pattern = 0x9e3779b9u * (uint32_t)(i + 1);
        left = NULL;
        uint32_t lost = switch_inlined(other, &same);
        CHECK(lost == 0, "context_switch inlined into its caller: after the switch back a value of "
                         "the caller's is another one, in a register that the asm changes and does "
                         "not name as an operand or a clobber");
        CHECK(same,
              "context_switch inlined into its caller: after the switch back the caller takes "
              "`current` as it was before the asm, because the asm does not say that it "
              "changes memory");
    }
}

/* ------------------------------------------------------------------ 6.5 */

/*
 * What a process has in its `stack` while it runs is left from an earlier time. Here a switch that
 * loads it finds the address of the function below, however many words it pops.
 */
static uint32_t stale_stack[2048];

_Noreturn static void switched_to_itself(void)
{
    NOT_OK("schedule called context_switch for `current` itself, and ESP was loaded from "
           "current->stack, which is only right while another process runs: when no other is ready "
           "there is nothing to switch");
}

/* Calls schedule; `current` may be the only one that is ready. */
static void schedule_alone(void)
{
    for (size_t i = 1024; i < 2048; i++)
        stale_stack[i] = (uint32_t)switched_to_itself;
    current->stack = (uint32_t)&stale_stack[1024];
    schedule();
}

#define STEPS 9
static int order[STEPS];
static unsigned steps;

static void turn_order(void)
{
    order[steps++] = current->pid;
    if (steps < STEPS)
        schedule_alone();
    else
        context_switch(HOME);
}

static void test_order(void)
{
    static const int expected[STEPS] = {40, 20, 30, 10, 40, 20, 30, 10, 40};
    const enum process_state resting[] = {PROCESS_BLOCKED, PROCESS_SLEEPING, PROCESS_ENDED};

    turn = turn_order;
    schedule_alone();
    CHECK(current == HOME, "no process but idle is there, and schedule went to another");
    process_make(2, 40, 0);
    process_make(5, 20, 0);
    process_make(6, 30, 0);
    process_make(PROCESSES_MAX - 1, 10, 0);
    for (int i = 0; i < 3; i++)
        process_make(8 + i, 50 + i, 0)->state = resting[i];
    schedule();
    for (int i = 0; i < STEPS; i++)
        CHECK(order[i] == expected[i],
              "ready are pid 40, 20, 30, 10 in the places 2, 5, 6, 15 of the table; blocked, "
              "asleep, ended are 50, 51, 52. Turn %d is for pid %d and was given to %d",
              i + 1, expected[i], order[i]);

    for (int i = 1; i < PROCESSES_MAX; i++)
        processes[i].state = PROCESS_UNUSED;
    steps = 0;
    process_make(4, 60, 0);
    schedule();
    CHECK(steps == STEPS,
          "only pid 60 and idle are ready: schedule called by pid 60 went to idle, not back to 60");
}

static int reasons[2];

/* Those with an even pid wait for one reason, those with an odd one for another. */
static void turn_block(void)
{
    process_block(&reasons[current->pid % 2]);
}

static void test_wake(void)
{
    struct process *even = process_make(1, 4, 0), *odd = process_make(2, 5, 0),
                   *too = process_make(4, 6, 0), *sleeper = process_make(5, 7, 0),
                   *ended = process_make(6, 8, 0);

    sleeper->state = PROCESS_SLEEPING;
    ended->state = PROCESS_ENDED;
    sleeper->waits_for = ended->waits_for = &reasons[0]; /* left from an earlier time */
    turn = turn_block;
    run_all();
    CHECK(even->state == PROCESS_BLOCKED && odd->state == PROCESS_BLOCKED &&
              too->state == PROCESS_BLOCKED,
          "process_block leaves `current` in state %d, not PROCESS_BLOCKED", even->state);
    process_wake(&turns);
    process_wake(NULL);
    CHECK(even->state == PROCESS_BLOCKED && odd->state == PROCESS_BLOCKED,
          "process_wake woke a process that waits for another reason");
    process_wake(&reasons[0]);
    CHECK(even->state == PROCESS_READY && too->state == PROCESS_READY,
          "two processes wait for a reason, and process_wake did not make both ready");
    CHECK(odd->state == PROCESS_BLOCKED,
          "process_wake woke a process that waits for another reason");
    CHECK(sleeper->state == PROCESS_SLEEPING && ended->state == PROCESS_ENDED,
          "process_wake made one ready that %s: only who is PROCESS_BLOCKED waits for a reason; "
          "waits_for may be left from an earlier time",
          ended->state == PROCESS_ENDED ? "sleeps" : "has ended");
    turns = 0;
    run_all();
    CHECK(turns == 2, "two processes were woken, and process_block returned %d times", turns);
}

static uint32_t sleep_ticks;

static void turn_sleep(void)
{
    process_sleep(sleep_ticks);
}

/* Two new processes sleep from now on; they must be ready after so many ticks. */
static void sleep_check(uint32_t start, uint32_t count)
{
    const struct process *sleepers[] = {process_make(1, 4, 0), process_make(3, 6, 0)};

    ticks = start;
    sleep_ticks = count;
    run_all();
    for (uint32_t passed = 0; passed <= count; passed++) {
        if (passed > 0)
            scheduler_tick();
        for (int i = 0; i < 2; i++)
            CHECK((sleepers[i]->state == PROCESS_READY) == (passed == count),
                  "two call process_sleep(%u) at tick 0x%x: %u ticks later pid %d %s", count, start,
                  passed, sleepers[i]->pid, passed == count ? "still sleeps" : "is awake");
    }
}

static void test_sleep(void)
{
    struct process *blocked = process_make(2, 5, 0);
    uint32_t used = HOME->ticks;

    blocked->state = PROCESS_BLOCKED;
    turn = turn_sleep;
    sleep_check(1000, 1);
    sleep_check(2000, 40);
    sleep_check(0xfffffff0, 32); /* the count of ticks passes its end */
    CHECK(ticks == 0x10, "32 ticks after 0xfffffff0 `ticks` is 0x%x", ticks);
    CHECK(HOME->ticks - used == 1 + 40 + 32,
          "73 ticks found idle running, and were not counted for it: its ticks grew by %u",
          HOME->ticks - used);
    CHECK(blocked->state == PROCESS_BLOCKED, "scheduler_tick woke a process that does not sleep");
}

/* ------------------------------------------------------------------ 6.6 */

static void test_end(void)
{
    struct process *shell = process_make(1, SHELL_PID, IDLE_PID),
                   *parent = process_make(4, 7, SHELL_PID), *process = process_make(2, 12, 7),
                   *child = process_make(3, 20, 12), *ended = process_make(6, 21, 12),
                   *brother = process_make(5, 13, 7);
    uint32_t free = free_pages;

    shell->state = parent->state = brother->state = PROCESS_BLOCKED;
    shell->waits_for = shell;
    parent->waits_for = parent;
    brother->waits_for = brother;
    ended->state = PROCESS_ENDED;
    process_end(process, 33);
    CHECK(process->state == PROCESS_ENDED && process->status == 33,
          "process_end(process, 33) leaves state %d and status %d", process->state,
          process->status);
    CHECK(free_pages == free && process->directory && process->kernel_stack,
          "process_end gave memory back: the process keeps it until its parent has waited");
    CHECK(parent->state == PROCESS_READY,
          "the parent waits, with its own struct process as reason, and was not woken");
    CHECK(child->parent == SHELL_PID && ended->parent == SHELL_PID,
          "the children's parent is pid %d, not the shell", child->parent);
    CHECK(brother->parent == 7 && parent->parent == SHELL_PID,
          "process_end changed the parent of a process that is no child of the one that ends");
    CHECK(shell->state == PROCESS_READY,
          "the shell waits and inherits a child that has ended already: it was not woken");
    CHECK(brother->state == PROCESS_BLOCKED, "process_end woke a process that is not its parent");

    parent->state = PROCESS_BLOCKED;
    parent->waits_for = &turns;
    process_end(brother, 0);
    CHECK(parent->state == PROCESS_BLOCKED, "the parent waits for something else, and was woken");
}

static bool end_returned;

/* The parent, pid 7, waits; the child, pid 13, ends in its turn. */
static void turn_wait(void)
{
    int status = -99;

    if (current->pid == 13) {
        process_end(current, 44);
        end_returned = true;
        schedule();
    }
    uint32_t free = free_pages;
    int got = process_wait(13, WAIT_NO_HANG, &status);
    CHECK(got == 0, "pid 12 has ended, 13 has not: wait(13, WAIT_NO_HANG) is %d, not 0", got);
    got = process_wait(14, 0, &status);
    CHECK(got == ERROR_NOT_FOUND, "wait for another one's child is %d, not ERROR_NOT_FOUND", got);
    got = process_wait(WAIT_ANY, 0, &status);
    CHECK(got == 12 && status == 33, "pid 12 has ended with 33: wait(WAIT_ANY) is %d, status %d",
          got, status);
    CHECK(
        processes[2].state == PROCESS_UNUSED && free_pages == free + 2,
        "process_wait returned the child that has ended, pid 12, and did not release it: its place "
        "in the table is %s, and %d of its 2 pages came back",
        processes[2].state == PROCESS_UNUSED ? "unused, as it must be" : "still in use",
        (int)(free_pages - free));
    got = process_wait(WAIT_ANY, WAIT_NO_HANG, &status);
    CHECK(got == 0, "only pid 13 is left and has not ended: wait(WAIT_ANY, WAIT_NO_HANG) is %d",
          got);
    got = process_wait(13, 0, &status);
    CHECK(got == 13 && status == 44, "pid 13 ends with 44 meanwhile: wait(13) is %d, status %d",
          got, status);
    CHECK(end_returned, "process_end for `current` did not return: trap_handle calls schedule");
    got = process_wait(WAIT_ANY, 0, &status);
    CHECK(got == ERROR_NOT_FOUND, "no child is left: wait(WAIT_ANY) is %d, not ERROR_NOT_FOUND",
          got);
    got = process_wait(WAIT_ANY, WAIT_NO_HANG, &status);
    CHECK(got == ERROR_NOT_FOUND,
          "no child is left: wait(WAIT_ANY, WAIT_NO_HANG) is %d, not ERROR_NOT_FOUND", got);
    ok_end();
}

static void test_wait(void)
{
    process_make(4, 7, 1);
    struct process *ended = process_make(2, 12, 7), *stranger = process_make(6, 14, 1);

    process_make(5, 13, 7);
    ended->state = stranger->state = PROCESS_ENDED;
    ended->status = 33;
    turn = turn_wait;
    context_switch(&processes[4]);
    NOT_OK("idle goes on before the parent, pid 7, has all its children: nobody was "
           "ready, or schedule took idle all the same");
}

static void test_release(void)
{
    uint32_t free = free_pages;
    struct process *process = process_make(3, 7, 1);

    user_page_add(process->directory, PROGRAM_MIN, 0);
    user_page_add(process->directory, PROGRAM_MIN + LARGE_PAGE_BYTES - PAGE_BYTES, PAGE_WRITABLE);
    user_page_add(process->directory, STACK_TOP - PAGE_BYTES, PAGE_WRITABLE);
    process_release(process);
    CHECK(process->state == PROCESS_UNUSED, "the place in the table is still in use");
    CHECK(free_pages == free,
          "directory, kernel stack, 2 page tables and 3 pages were taken, 7 in all: %d came back. "
          "(A page is no longer yours once it is free: here it is filled with 0xcc)",
          7 - (int)(free - free_pages));

    *process = (struct process){.pid = 8, .kernel_stack = page_allocate()};
    process_release(process);
    CHECK(free_pages == free, "a process without a directory: its kernel stack did not come back");
    *process = (struct process){.pid = 9, .directory = directory_create()};
    process_release(process);
    CHECK(free_pages == free, "a process without a kernel stack: its directory did not come back");
}

/* ------------------------------------------------------------------ the start */

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"frame", test_frame}, {"switch", test_switch}, {"clobbers", test_clobbers},
    {"order", test_order}, {"wake", test_wake},     {"sleep", test_sleep},
    {"end", test_end},     {"wait", test_wait},     {"release", test_release},
};

_Noreturn void kernel_main(uint32_t boot_info);
_Noreturn void kernel_main(uint32_t boot_info)
{
    const struct boot_info *info = physical_memory(boot_info);
    uint32_t memory = info->memory_bytes & ~(PAGE_BYTES - 1u);
    uint32_t end = info->archive_start + PAGE_BYTES;
    char name[16];

    descriptors_load();
    memory_start(memory);
    pages_start(physical_memory(end), physical_memory(memory));
    text_copy(name, physical_memory(info->archive_start), sizeof name);
    answer = physical_memory(info->archive_start + sizeof name);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strcmp(name, tests[i].name) == 0) {
            tests[i].run();
            CHECK(current == HOME, "`current` is pid %d at the end", current->pid);
            ok_end();
        }
    NOT_OK("there is no test '%s'", name);
}
