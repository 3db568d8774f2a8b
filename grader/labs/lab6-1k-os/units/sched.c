/*
 * sched.c - lab 6's scheduler function by function. It is not a Check program but a kernel: the 1K
 * OS with this start in place of boot.c's, booted on the finished VMM. Its processes never reach
 * ring 3: where a trap would be left, process_arrived below takes over, on their kernel stacks. So
 * the processor itself shows what a switch has done.
 *
 * The file given as the archive has the test's name, and code and numbers that the grader chose.
 * The kernel prints facts: what became of these numbers. It does not decide the test, because the
 * learner's code shares its memory: tests.py compares the facts. A CHECK explains a mistake, "not
 * ok: ...".
 */
#include "boot_info.h"
#include "kernel.h"

#define HOME     (&processes[0]) /* this program itself: in the table it is idle */
#define PATIENCE 100             /* turns until a test ends that does not end by itself */

uint32_t tick_ms = 10;

#define CHECK(condition, ...) ((condition) ? (void)0 : NOT_OK(__VA_ARGS__))
#define NOT_OK(...)           (console_print("not ok: " __VA_ARGS__), not_ok_end())

_Noreturn static void not_ok_end(void)
{
    console_print("\n");
    machine_exit(1);
}

static const uint32_t *given; /* the grader's numbers */

/* The grader's code, EAX to EAX: after each fact comes the number that it computes from the text.
 */
#define LINE_CODE_BYTES 128
static const uint8_t *line_code;

static void fact_add(const char *text, size_t count)
{
    static uint32_t number;

    for (size_t i = 0; i < count; i++) {
        if (text[i] == '\n') {
            console_print(" [%08x]\n", number);
            number = 0;
            continue;
        }
        number ^= (uint8_t)text[i];
        asm volatile("call *%1" : "+a"(number) : "r"(line_code) : "ecx", "edx", "cc");
        console_write(&text[i], 1);
    }
}

__attribute__((format(printf, 1, 2))) static void fact(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_format(fact_add, format, arguments);
    va_end(arguments);
}

/* ------------------------------------------------------------------ processes */

static const char *const state_names[] = {[PROCESS_UNUSED] = "is unused",
                                          [PROCESS_READY] = "is ready",
                                          [PROCESS_BLOCKED] = "is blocked",
                                          [PROCESS_SLEEPING] = "sleeps",
                                          [PROCESS_ENDED] = "has ended"};

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

/* CR3 and TSS.esp0 are those of this process. */
static bool state_is_of(const struct process *process)
{
    return loaded_directory() == physical_address(process->directory) &&
           (process == HOME || trap_stack() == (uint32_t)process->kernel_stack + PAGE_BYTES);
}

/* All that must be so when a process goes on. */
static void arrival_check(const struct process *process)
{
    CHECK(!left || (left->stack < left_at && left->stack > left_at - 1024),
          "context_switch left pid %d with ESP at about 0x%x, but its process->stack is 0x%x: save "
          "ESP in the process that is left, whose address is gone once `current` is the next one",
          left->pid, left_at, left->stack);
    CHECK(
        current == process || !state_is_of(current),
        "context_switch went to the stack of pid %d; `current`, CR3 and TSS.esp0 are those of pid "
        "%d. ESP must be loaded from its process->stack; and EBP be saved with it, because "
        "functions may take their ESP from EBP when they return",
        process->pid, current->pid);
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
 * Calls context_switch with `pattern` in each register that a C function must leave as it found
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

/* Switches to `next`, and checks the state after a switch back. */
static void leave(struct process *next)
{
    struct process *self = current;

    left = self;
    left_at = (uint32_t)__builtin_frame_address(0);
    uint32_t lost = switch_with(next, 0x01010101u * (uint32_t)(self->pid + 1));
    arrival_check(self);
    CHECK(lost == 0, "EBX, ESI or EDI is another one after context_switch: the compiler keeps "
                     "values in them, and clobbers must declare that they change");
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
    CHECK(current->state == PROCESS_READY,
          "schedule gave the processor to pid %d, which %s: only who is PROCESS_READY has a turn",
          current->pid, state_names[current->state]);
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

/*
 * And the calls of page_free. A page that is free may belong to somebody else at once: here it gets
 * other words, and is kept until they have been compared. None looks like the entry of a page.
 */
#define FREED_MAX 128
static uint32_t *freed[FREED_MAX];
static unsigned freed_pages;
static uint32_t freed_key; /* the grader's */

static uint32_t freed_word(const uint32_t *place)
{
    return ((uint32_t)place * 0x9e3779b1u ^ freed_key) & ~(uint32_t)PAGE_PRESENT;
}

void __real_page_free(void *page);
void __wrap_page_free(void *page);
void __wrap_page_free(void *page)
{
    uint32_t *words = page;

    if (!page)
        return;
    for (int i = 0; i < TABLE_ENTRIES; i++)
        words[i] = freed_word(&words[i]);
    freed[freed_pages++ % FREED_MAX] = words;
}

/* Makes them free. Each must still hold the words that it was given. */
static void freed_return(void)
{
    for (unsigned page = 0; page < freed_pages; page++)
        for (int i = 0; i < TABLE_ENTRIES; i++)
            CHECK(freed[page][i] == freed_word(&freed[page][i]),
                  "process_release writes to a page after it has given it to page_free, at offset "
                  "0x%x: the page may belong to another process already, and its first word links "
                  "the free pages",
                  i * (int)sizeof freed[page][i]);
    while (freed_pages > 0)
        __real_page_free(freed[--freed_pages]);
}

/* The pages of one process, and what became of them. `free_pages` says less: any code may set it.
 */
static const uint32_t *owned[FREED_MAX];
static unsigned owned_pages;

static void owned_add(const void *page)
{
    CHECK(owned_pages < FREED_MAX, "the test has no room for so many pages");
    owned[owned_pages++] = page;
}

static void owned_find(const struct process *process)
{
    owned_pages = freed_pages = 0;
    if (process->kernel_stack)
        owned_add(process->kernel_stack);
    if (!process->directory)
        return;
    owned_add(process->directory);
    for (int slot = 0; slot < KERNEL_FIRST_SLOT; slot++) {
        if ((process->directory[slot] & PAGE_PRESENT) == 0)
            continue;
        const uint32_t *table = physical_memory(process->directory[slot] & PAGE_FRAME);
        owned_add(table);
        for (const uint32_t *entry = table; entry < table + TABLE_ENTRIES; entry++)
            if (*entry & PAGE_PRESENT)
                owned_add(physical_memory(*entry & PAGE_FRAME));
    }
}

/* How many of them came back. None may come back twice, and nobody else's. */
static unsigned owned_freed(void)
{
    CHECK(freed_pages <= FREED_MAX, "page_free was called for more pages than the process had");
    for (unsigned i = 0; i < freed_pages; i++) {
        bool is_owned = false;
        for (unsigned j = 0; j < owned_pages; j++)
            is_owned = is_owned || freed[i] == owned[j];
        CHECK(is_owned, "the page at 0x%x was given to page_free, and the process did not have it",
              (uint32_t)freed[i]);
        for (unsigned j = 0; j < i; j++)
            CHECK(freed[i] != freed[j], "the page at 0x%x was given to page_free twice",
                  (uint32_t)freed[i]);
    }
    return freed_pages;
}

static uint32_t entry = 0x00412340, stack = 0x7ffdcba0; /* of new processes */

/* A process in this place of the table, ready to run. */
static struct process *process_make(int place, int pid, int parent)
{
    struct process *process = &processes[place];

    *process = (struct process){.pid = pid,
                                .parent = parent,
                                .state = PROCESS_READY,
                                .directory = directory_create(),
                                .kernel_stack = page_allocate()};
    process_frame(process, entry, stack);
    return process;
}

static void states_print(const char *when)
{
    static const char *const names[] = {[PROCESS_UNUSED] = "unused",
                                        [PROCESS_READY] = "ready",
                                        [PROCESS_BLOCKED] = "blocked",
                                        [PROCESS_SLEEPING] = "sleeping",
                                        [PROCESS_ENDED] = "ended"};

    fact("%s:", when);
    for (int i = 1; i < PROCESSES_MAX; i++)
        if (processes[i].state != PROCESS_UNUSED)
            fact(" %d %s", processes[i].pid, names[processes[i].state]);
    fact("\n");
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
    const struct trap_frame *last = (struct trap_frame *)(current->kernel_stack + PAGE_BYTES) - 1;
    const bool is_right = seen->eip == entry && seen->esp == stack;
    CHECK(seen <= last && (is_right || seen == last),
          "the trap_frame of a new process is looked for at 0x%x: if its last byte is the last one "
          "of the kernel stack, it begins at 0x%x",
          (uint32_t)seen, (uint32_t)last);
    CHECK(is_right, "entry 0x%x and stack 0x%x became eip 0x%x and esp 0x%x", entry, stack,
          seen->eip, seen->esp);
    CHECK(seen->cs == SELECTOR_USER_CODE && seen->ss == SELECTOR_USER_DATA &&
              seen->ds == SELECTOR_USER_DATA && seen->es == SELECTOR_USER_DATA,
          "cs 0x%x, ss 0x%x, ds 0x%x, es 0x%x: the selectors of ring 3 are 0x%x for code and 0x%x "
          "for data",
          seen->cs, seen->ss, seen->ds, seen->es, SELECTOR_USER_CODE, SELECTOR_USER_DATA);
    CHECK((seen->eflags | FLAGS_ALWAYS_ONE) == (FLAGS_ALWAYS_ONE | FLAGS_IF),
          "eflags is 0x%x: interrupts must be on (0x%x), and nothing else", seen->eflags, FLAGS_IF);
    CHECK((seen->eax | seen->ebx | seen->ecx | seen->edx | seen->esi | seen->edi | seen->ebp) == 0,
          "the general registers of a new program are not all 0: it could find the kernel's "
          "values there");
    fact("pid %d: eip 0x%x, esp 0x%x, cs 0x%x, ss 0x%x, ds 0x%x, es 0x%x, eflags 0x%x\n",
         current->pid, seen->eip, seen->esp, seen->cs, seen->ss, seen->ds, seen->es,
         seen->eflags | FLAGS_ALWAYS_ONE);
    machine_exit(0);
}

/* Given: pid, entry, stack. */
static void test_frame(void)
{
    turn = turn_frame;
    entry = given[1];
    stack = given[2];
    context_switch(process_make(3, (int)given[0], 0));
    NOT_OK("context_switch came back, and nobody had switched back");
}

static struct process *route[8];
static unsigned route_step;

/* A word in the process's own memory and one at the end of its kernel stack. */
static struct process *process_mark(struct process *process, uint32_t memory, uint32_t trap)
{
    *(uint32_t *)user_page_add(process->directory, PROGRAM_MIN, PAGE_WRITABLE) = memory;
    ((uint32_t *)(process->kernel_stack + PAGE_BYTES))[-1] = trap;
    return process;
}

/* Who runs, and the two words to which CR3 and TSS.esp0 lead. */
static void here_print(void)
{
    if (current == HOME)
        fact("idle\n");
    else
        fact("pid %d: memory 0x%x, kernel stack 0x%x\n", current->pid,
             *(volatile uint32_t *)PROGRAM_MIN, ((uint32_t *)trap_stack())[-1]);
}

static void turn_route(void)
{
    here_print();
    leave(route[route_step++]);
}

/* Given: of two processes pid and the two words. */
static void test_switch(void)
{
    struct process *a = process_mark(process_make(1, (int)given[0], 0), given[1], given[2]),
                   *b = process_mark(process_make(9, (int)given[3], 0), given[4], given[5]);
    struct process *const all[] = {a, b, a, HOME, b, a, b, HOME};

    memcpy(route, all, sizeof route);
    turn = turn_route;
    turn_route();
    CHECK(route_step == 4, "after four switches, the last one to idle, idle goes on after %d",
          route_step);
    turn_route();
    CHECK(route_step == 8, "after eight switches, the last one to idle, idle goes on after %d",
          route_step);
    here_print();
}

/* inlined.h: the learner's switch, inlined into a caller that has much to lose. */
uint32_t switch_inlined(struct process *next, bool *same);
extern volatile uint32_t switch_pattern;

/* Other tests check the rest of a switch: here only the way back matters. */
static void turn_home(void)
{
    fact("turn of pid %d\n", current->pid);
    left = current;
    context_switch(HOME);
}

/* Given: four values to be kept, and the pid of another process. */
static void test_clobbers(void)
{
    struct process *other = process_make(1, (int)given[4], 0);
    bool same;

    turn = turn_home;
    for (int i = 0; i < 4; i++) {
        switch_pattern = given[i];
        left = NULL;
        uint32_t lost = switch_inlined(other, &same);
        CHECK(left == other, "context_switch inlined into its caller did not switch");
        CHECK(lost == 0, "context_switch inlined into its caller: after the switch back a value of "
                         "the caller's is another one, in a register that the asm changes and does "
                         "not name as an output or a clobber");
        CHECK(same,
              "context_switch inlined into its caller: after the switch back the caller takes "
              "`current` as it was before the asm, because the asm does not say that it "
              "changes memory");
        fact("kept 0x%x\n", switch_pattern ^ lost);
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
    fact("turn of pid %d\n", current->pid);
    order[steps++] = current->pid;
    if (steps < STEPS)
        schedule_alone();
    else
        context_switch(HOME);
}

/*
 * Given: the pids of four processes that are ready, of three that are not, and of one alone; then
 * the place of each in the table.
 */
static void test_order(void)
{
    const int *pids = (const int *)given, *places = pids + 8;
    const enum process_state resting[] = {PROCESS_BLOCKED, PROCESS_SLEEPING, PROCESS_ENDED};

    turn = turn_order;
    schedule_alone();
    CHECK(current == HOME, "no process but idle is there, and schedule went to another");
    for (int i = 0; i < 4; i++)
        process_make(places[i], pids[i], 0);
    for (int i = 0; i < 3; i++)
        process_make(places[4 + i], pids[4 + i], 0)->state = resting[i];
    for (int round = 0; round < 2; round++) {
        steps = 0;
        schedule();
        for (int i = 0; i < STEPS; i++)
            CHECK(order[i] == pids[i % 4],
                  "ready are pid %d, %d, %d, %d in the places %d, %d, %d, %d of the table; "
                  "blocked, asleep, ended are %d, %d, %d. Turn %d after idle, in place 0, is for "
                  "pid %d and was given to %d",
                  pids[0], pids[1], pids[2], pids[3], places[0], places[1], places[2], places[3],
                  pids[4], pids[5], pids[6], i + 1, pids[i % 4], order[i]);
    }

    for (int i = 1; i < PROCESSES_MAX; i++)
        processes[i].state = PROCESS_UNUSED;
    steps = 0;
    process_make(places[7], pids[7], 0);
    schedule();
    CHECK(steps == STEPS,
          "only pid %d and idle are ready: schedule called by pid %d went to idle, not back to it",
          pids[7], pids[7]);
}

#define LAST (PROCESSES_MAX - 1)

static int reasons[2];

/* Those with an even pid wait for one reason, those with an odd one for another. */
static void turn_block(void)
{
    process_block(&reasons[current->pid % 2]);
    fact("pid %d goes on\n", current->pid);
}

/* Given: a pid for each place of the table but idle's, and what is there: 0 waits, 1 sleeps, 2 has
 * ended, 3 is unused. */
static void test_wake(void)
{
    static const enum process_state resting[] = {
        [1] = PROCESS_SLEEPING, [2] = PROCESS_ENDED, [3] = PROCESS_UNUSED};

    turn = turn_block;
    for (int i = 0; i < LAST; i++) {
        struct process *process = process_make(1 + i, (int)given[i], 0);
        if (given[LAST + i] == 0)
            continue;
        process->state = resting[given[LAST + i]];
        process->waits_for = &reasons[0]; /* left from an earlier time */
    }
    run_all();
    states_print("all wait");
    process_wake(&turns);
    process_wake(NULL);
    states_print("other reasons");
    process_wake(&reasons[0]);
    CHECK(turns == 0,
          "process_wake gave the processor away: %u times a process went on before it "
          "returned. It only makes processes ready; its caller goes on",
          turns);
    unsigned woken = 0;
    for (int i = 0; i < LAST; i++) {
        const struct process *process = &processes[1 + i];
        const bool waited = given[LAST + i] == 0, wakes = waited && process->pid % 2 == 0;
        CHECK(waited || process->state != PROCESS_READY,
              "process_wake made one ready that %s: only who is PROCESS_BLOCKED waits for a "
              "reason; waits_for may be left from an earlier time",
              state_names[resting[given[LAST + i]]]);
        CHECK(!wakes || process->state == PROCESS_READY,
              "several processes wait for a reason, and process_wake did not make the one in "
              "place %d of the table ready; unused places may come before it",
              1 + i);
        CHECK(wakes || process->state != PROCESS_READY,
              "process_wake woke a process that waits for another reason");
        woken += wakes;
    }
    states_print("their reason");
    turns = 0;
    run_all();
    CHECK(turns == woken, "%u processes were woken, and process_block returned %u times", woken,
          turns);
}

static uint32_t sleep_ticks;

static void turn_sleep(void)
{
    process_sleep(sleep_ticks);
}

/* Sleeps have ended: before the next ones begin at another tick, all come back from theirs. */
static void turn_rest(void)
{
    current->state = PROCESS_BLOCKED;
    schedule();
}

static struct process *blocked, *ended, *unused; /* these do not sleep */

static bool sleeps(const struct process *process)
{
    return process != blocked && process != ended && process != unused;
}

/*
 * All others in the table sleep from now on; they must be ready after so many ticks. The one that
 * is blocked slept before that; the one that has ended was killed while it slept. Of the longest
 * sleep only the beginning is seen. Returns how many ticks have come.
 */
#define LONGEST_SEEN 100
static uint32_t sleep_check(uint32_t start, uint32_t count)
{
    for (int i = 1; i <= LAST; i++)
        if (sleeps(&processes[i]))
            processes[i].state = PROCESS_READY;
    turn = turn_sleep;
    turns = 0;
    ticks = start;
    sleep_ticks = count;
    blocked->wake_tick = start - count;
    ended->wake_tick = unused->wake_tick = start + 1;
    run_all();
    turns = 0;
    const uint32_t seen_ticks = count == INT32_MAX ? LONGEST_SEEN : count;
    for (uint32_t passed = 0; passed <= seen_ticks; passed++) {
        if (passed > 0)
            scheduler_tick();
        CHECK(turns == 0, "scheduler_tick gave the processor away: it only counts and makes "
                          "processes ready; its caller then calls schedule");
        /* Most ticks of a long sleep need no look. */
        for (int i = 1; i <= LAST && (passed < 40 || passed + 2 > count || passed % 64 == 0); i++)
            CHECK(!sleeps(&processes[i]) ||
                      (processes[i].state == PROCESS_READY) == (passed == count),
                  "some call process_sleep(%u) at tick 0x%x: %u ticks later pid %d, in place %d of "
                  "the table, %s; place %d is unused",
                  count, start, passed, processes[i].pid, i,
                  passed == count ? "still sleeps" : "is awake", (int)(unused - processes));
        CHECK(blocked->state == PROCESS_BLOCKED && ended->state == PROCESS_ENDED &&
                  unused->state == PROCESS_UNUSED,
              "scheduler_tick woke a process that does not sleep: it %s, and its wake_tick is left "
              "from an earlier sleep",
              state_names[blocked->state != PROCESS_BLOCKED ? PROCESS_BLOCKED
                          : ended->state != PROCESS_ENDED   ? PROCESS_ENDED
                                                            : PROCESS_UNUSED]);
    }
    fact("tick 0x%x, ", ticks);
    states_print("slept");
    CHECK(ticks == start + seen_ticks, "%u ticks after 0x%x `ticks` is 0x%x", seen_ticks, start,
          ticks);
    turn = turn_rest;
    run_all();
    return seen_ticks;
}

static void turn_tick(void)
{
    scheduler_tick();
    fact("pid %d: ticks %u\n", current->pid, current->ticks);
    CHECK(current->ticks == 1, "a tick found pid %d running, and was not counted for it",
          current->pid);
    leave(HOME);
}

#define SLEEPS 6

/*
 * Given: the place of a process that is blocked, of one that has ended and of one that is unused;
 * start and count of the sleeps, of which one passes the highest tick, one the highest signed
 * number, and one is long; the last one is the longest; a pid for each place.
 */
static void test_sleep(void)
{
    const uint32_t *times = given + 3, *pids = times + 2 * SLEEPS;
    uint32_t used = HOME->ticks, all = 0;

    for (int i = 1; i <= LAST; i++)
        process_make(i, (int)pids[i - 1], 0);
    blocked = &processes[given[0]];
    blocked->state = PROCESS_BLOCKED;
    ended = &processes[given[1]];
    ended->state = PROCESS_ENDED;
    unused = &processes[given[2]];
    unused->state = PROCESS_UNUSED;
    for (int i = 0; i < SLEEPS; i++)
        all += sleep_check(times[2 * i], times[2 * i + 1]);
    CHECK(HOME->ticks - used == all,
          "%u ticks found idle running, and were not counted for it: its ticks grew by %u", all,
          HOME->ticks - used);
    fact("idle: %u ticks\n", HOME->ticks - used);
    turn = turn_tick;
    left = NULL;
    context_switch(process_make((int)given[0], (int)pids[given[0] - 1], 0));
}

/* ------------------------------------------------------------------ 6.6 */

static void table_print(void)
{
    for (int i = 1; i <= LAST; i++)
        if (processes[i].state != PROCESS_UNUSED)
            fact("pid %d, parent %d, status %d\n", processes[i].pid, processes[i].parent,
                 processes[i].status);
}

static bool end_returned;

static void turn_end(void)
{
    CHECK(current->pid == (int)given[3],
          "pid %d called process_end for itself, and pid %d has the processor: process_end returns "
          "even for `current`, trap_handle then calls schedule",
          (int)given[3], current->pid);
    process_end(current, (int)given[2]);
    end_returned = true;
    context_switch(HOME);
}

/*
 * Given: the pids of two that end, and the status of the first; their parent, which ends last; then
 * pid, parent and state of each in the table, PROCESS_UNUSED among them. The first has the same
 * parent as the second, and children in any state.
 */
static void test_end(void)
{
    const int status = (int)given[2];

    for (int i = 1; i <= LAST; i++) {
        const uint32_t *about = given + 1 + 3 * i;
        struct process *process = process_make(i, (int)about[0], (int)about[1]);
        process->state = about[2];
        process->waits_for = process;
    }
    struct process *process = process_find((int)given[0]), *brother = process_find((int)given[1]),
                   *parent = process_find(process->parent);
    freed_pages = 0;
    process_end(process, status);
    CHECK(process->state == PROCESS_ENDED && process->status == status,
          "process_end(process, %d) leaves state %d and status %d", status, process->state,
          process->status);
    CHECK(freed_pages == 0 && process->directory && process->kernel_stack,
          "process_end gave memory back: the process keeps it until its parent has waited");
    CHECK(parent->state == PROCESS_READY,
          "the parent waits, with its own struct process as reason, and was not woken");
    for (int i = 1; i <= LAST; i++) {
        const int before = (int)given[1 + 3 * i + 1],
                  after = before == process->pid ? SHELL_PID : before;
        CHECK(processes[i].parent == after || processes[i].state == PROCESS_UNUSED,
              "pid %d ends: the parent of pid %d, in place %d of the table, which was %d, is %d, "
              "not %d (the shell is %d); unused places may come before it",
              process->pid, processes[i].pid, i, before, processes[i].parent, after, SHELL_PID);
    }
    CHECK(process_find(SHELL_PID)->state == PROCESS_READY,
          "the shell waits and inherits a child that has ended already: it was not woken");
    CHECK(brother->state == PROCESS_BLOCKED, "process_end woke a process that is not its parent");
    table_print();
    states_print("one has ended");

    parent->state = PROCESS_BLOCKED;
    parent->waits_for = &turns;
    process_end(brother, 0);
    CHECK(parent->state == PROCESS_BLOCKED, "the parent waits for something else, and was woken");
    states_print("both have ended");

    parent->state = PROCESS_READY;
    turn = turn_end;
    left = NULL;
    context_switch(parent);
    CHECK(end_returned,
          "pid %d called process_end for itself, and idle has the processor: process_end returns "
          "even for `current`, trap_handle then calls schedule",
          parent->pid);
    CHECK(parent->state == PROCESS_ENDED && parent->status == status,
          "process_end(current, %d) leaves state %d and status %d", status, parent->state,
          parent->status);
    states_print("the parent has ended itself");
}

/* The numbers given to test_wait. */
#define PARENT        ((int)given[0])
#define FIRST         ((int)given[1]) /* has ended before the parent waits */
#define SECOND        ((int)given[2]) /* ends in its turn */
#define STRANGER      ((int)given[3])
#define FIRST_STATUS  ((int)given[4])
#define SECOND_STATUS ((int)given[5])
#define NOBODY        ((int)given[6]) /* less than WAIT_ANY */
#define WAKE_UPS      given[7]        /* of the parent, before the second ends */
#define OTHER_FLAGS   given[8]
#define THIRD         ((int)given[9]) /* in the last place; its parent ends it */
#define THIRD_STATUS  ((int)given[10])
#define PLACE(number) (&processes[given[11 + (number)]]) /* of the first four in the table */

static int wait_print(int pid, uint32_t flags, int *status)
{
    *status = -99;
    int got = process_wait(pid, flags, status);
    fact("wait: %d, status %d\n", got, *status);
    return got;
}

static void turn_wait(void)
{
    struct process *parent = PLACE(0), *first = PLACE(1), *third = &processes[LAST];
    int status;

    if (current->pid == SECOND) {
        fact("pid %d is %s, its reason is %s\n", PARENT,
             parent->state == PROCESS_BLOCKED ? "blocked" : "not blocked",
             parent->waits_for == parent ? "itself" : "another");
        CHECK(parent->state == PROCESS_BLOCKED && parent->waits_for == parent,
              "process_wait for pid %d: its caller, pid %d, is not blocked for the reason that "
              "process_end wakes, its own struct process",
              SECOND, PARENT);
        for (uint32_t i = 0; i < WAKE_UPS; i++) {
            process_wake(parent);
            schedule();
        }
        process_end(current, SECOND_STATUS);
        schedule();
    }
    owned_find(first);
    int got = wait_print(SECOND, WAIT_NO_HANG, &status);
    CHECK(got == 0, "pid %d has ended, %d has not: wait(%d, WAIT_NO_HANG) is %d, not 0", FIRST,
          SECOND, SECOND, got);
    got = wait_print(STRANGER, 0, &status);
    CHECK(got == ERROR_NOT_FOUND, "wait for another one's child is %d, not ERROR_NOT_FOUND", got);
    got = wait_print(NOBODY, 0, &status);
    CHECK(got == ERROR_NOT_FOUND, "wait(%d) is %d, not ERROR_NOT_FOUND: only WAIT_ANY is any child",
          NOBODY, got);
    got = wait_print(IDLE_PID, 0, &status);
    CHECK(got == ERROR_NOT_FOUND, "wait(%d) is %d, not ERROR_NOT_FOUND: idle is nobody's child",
          IDLE_PID, got);
    got = wait_print(WAIT_ANY, 0, &status);
    CHECK(got == FIRST && status == FIRST_STATUS,
          "pid %d has ended with %d: wait(WAIT_ANY) is %d, status %d", FIRST, FIRST_STATUS, got,
          status);
    unsigned back = owned_freed();
    CHECK(
        first->state == PROCESS_UNUSED && back == 2,
        "process_wait returned the child that has ended, pid %d, and did not release it: its place "
        "in the table is %s, and %u of its 2 pages came back",
        FIRST, first->state == PROCESS_UNUSED ? "unused, as it must be" : "still in use", back);
    got = wait_print(WAIT_ANY, WAIT_NO_HANG, &status);
    CHECK(got == 0,
          "pid %d and %d are left and have not ended: wait(WAIT_ANY, WAIT_NO_HANG) is %d, not 0",
          SECOND, THIRD, got);
    got = wait_print(WAIT_ANY, WAIT_NO_HANG | OTHER_FLAGS, &status);
    CHECK(got == 0,
          "pid %d and %d are left and have not ended: wait(WAIT_ANY, 0x%x) is %d, not 0, although "
          "WAIT_NO_HANG is among the flags. 0x%x are other flags",
          SECOND, THIRD, WAIT_NO_HANG | OTHER_FLAGS, got, OTHER_FLAGS);
    got = wait_print(SECOND, 0, &status);
    CHECK(got == SECOND && status == SECOND_STATUS,
          "pid %d ends with %d meanwhile: wait(%d) is %d, status %d", SECOND, SECOND_STATUS, SECOND,
          got, status);
    process_end(third, THIRD_STATUS);
    got = wait_print(WAIT_ANY, 0, &status);
    CHECK(got == THIRD && status == THIRD_STATUS,
          "the last child, pid %d in the last place of the table, has ended with %d: "
          "wait(WAIT_ANY) is %d, status %d",
          THIRD, THIRD_STATUS, got, status);
    got = wait_print(WAIT_ANY, 0, &status);
    CHECK(got == ERROR_NOT_FOUND, "no child is left: wait(WAIT_ANY) is %d, not ERROR_NOT_FOUND",
          got);
    got = wait_print(WAIT_ANY, WAIT_NO_HANG, &status);
    CHECK(got == ERROR_NOT_FOUND,
          "no child is left: wait(WAIT_ANY, WAIT_NO_HANG) is %d, not ERROR_NOT_FOUND", got);
    machine_exit(0);
}

static void test_wait(void)
{
    process_make((int)given[11], PARENT, 1);
    process_make((int)given[12], FIRST, PARENT)->state = PROCESS_ENDED;
    process_make((int)given[13], SECOND, PARENT);
    process_make((int)given[14], STRANGER, 1)->state = PROCESS_ENDED;
    process_make(LAST, THIRD, PARENT)->state = PROCESS_SLEEPING;
    PLACE(1)->status = FIRST_STATUS;
    turn = turn_wait;
    context_switch(PLACE(0));
    NOT_OK("idle goes on before the parent, pid %d, has all its children: no process was "
           "ready, or schedule chose idle anyway",
           PARENT);
}

/* Given: a number of pages, where they are, and what freed pages hold. */
static void test_release(void)
{
    const uint32_t before = free_pages;
    struct process *process = process_make(3, 7, 1);

    for (uint32_t i = 1; i <= given[0]; i++)
        user_page_add(process->directory, given[i], i % 2 ? PAGE_WRITABLE : 0);
    owned_find(process);
    freed_key = given[1 + given[0]];
    process_release(process);
    CHECK(process->state == PROCESS_UNUSED, "the place in the table is still in use");
    unsigned back = owned_freed();
    CHECK(back == owned_pages,
          "directory, kernel stack, page tables and %u pages were taken, %u in all: %u came back. "
          "(A page is no longer yours once it is free: here page_free fills it with other words)",
          given[0], owned_pages, back);
    freed_return();
    fact("%u pages came back\n", back);

    *process = (struct process){.pid = 8, .kernel_stack = page_allocate()};
    owned_find(process);
    process_release(process);
    CHECK(owned_freed() == 1, "a process without a directory: its kernel stack did not come back");
    freed_return();
    *process = (struct process){.pid = 9, .directory = directory_create()};
    owned_find(process);
    process_release(process);
    CHECK(owned_freed() == 1, "a process without a kernel stack: its directory did not come back");
    freed_return();

    const uint32_t counted = free_pages;
    uint32_t taken = 0;
    while (page_allocate())
        taken++;
    CHECK(counted == before && taken == before,
          "%u pages were free before the processes were made. After their release free_pages is "
          "%u, and page_allocate gives %u pages",
          before, counted, taken);
    fact("%u pages are lost\n", before - taken);
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
    line_code = physical_memory(info->archive_start + sizeof name);
    given = (const uint32_t *)(line_code + LINE_CODE_BYTES);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        if (strcmp(name, tests[i].name) == 0) {
            tests[i].run();
            CHECK(current == HOME, "`current` is pid %d at the end", current->pid);
            machine_exit(0);
        }
    NOT_OK("there is no test '%s'", name);
}
