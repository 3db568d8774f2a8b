/*
 * replay.c - how a guest came to its crash, for make explain (--explain). At every entry it keeps a
 * checkpoint of the vCPU and of RAM. When the guest crashes it returns to the last one, executes
 * the guest again one instruction at a time, and writes the last instructions and the guest's
 * memory to standard error; grader/commands/explain/ reads them.
 *
 * Interrupts are injected at entries only, so what a guest executes between an entry and the next
 * exit depends on nothing but the state at that entry: the second time it does the same.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "debug/debug.h"
#include "given.h"

#define HISTORY      64         /* the instructions that are written */
#define STEPS_FIRST  20000      /* instructions executed one at a time, from the last checkpoint */
#define STEPS_MAX    300000     /* and from one closer to the crash */
#define TICK_NS      200000000  /* a guest without exits is interrupted, for a new checkpoint */
#define FINE_NS      100000     /* likewise, the second time */
#define STEP_NS      1000000000 /* for one instruction; nested KVMs sometimes lose an interrupt */
#define TRIES        4
#define ROUNDS_MAX   3000   /* of that */
#define PAGES_MAX    4096   /* of memory that are written */
#define CODE_BYTES   15     /* of the longest instruction */
#define TSS_BUSY     2      /* in a TSS descriptor's type */
#define GATE_PRESENT 0x8000 /* in a gate's second word */
#define OPCODE_HLT   0xf4
#define DIRTY_BITS   64 /* pages per word of KVM's dirty log */

/* A vCPU's state at one of its entries. */
struct checkpoint {
    bool taken;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_vcpu_events events;
    uint8_t *ram;
    uint64_t *dirty; /* pages of RAM that may differ from `ram` */
};

/* An instruction that is about to be executed. */
struct instruction {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint8_t code[CODE_BYTES];
    size_t code_bytes;
    uint32_t repeated; /* how often, if it is a repeated string instruction */
    bool handler;      /* the processor came here to deliver an exception or interrupt */
};

/* What a vCPU's thread has. */
static struct watched {
    struct vcpu *vcpu;
    pthread_t thread;
    timer_t timer;
    bool inside; /* between its entry and the next exit; guarded by `lock` */
    struct checkpoint checkpoint;
} watched[VCPUS_MAX];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool replaying; /* no other vCPU may enter; guarded by `lock` */

/* ------------------------------------------------------------------ checkpoints */

static size_t dirty_words(const struct vm *vm)
{
    size_t pages = vm->ram_bytes / PAGE_BYTES;

    return (pages + DIRTY_BITS - 1) / DIRTY_BITS;
}

static int log_dirty_pages(const struct vm *vm)
{
    struct kvm_userspace_memory_region region = {
        .flags = KVM_MEM_LOG_DIRTY_PAGES,
        .memory_size = vm->ram_bytes,
        .userspace_addr = (uintptr_t)vm->ram,
    };

    return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Adds the pages that were written since the last call to those of each vCPU of the VM. */
static void dirty_collect(const struct vm *vm)
{
    size_t words = dirty_words(vm);
    uint64_t *bitmap = calloc(words, sizeof *bitmap);
    struct kvm_dirty_log log = {.dirty_bitmap = bitmap};

    if (!bitmap || ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log) < 0)
        exit(fail(STATUS_NO_KVM, "--explain: KVM_GET_DIRTY_LOG: %s", strerror(errno)));
    for (size_t id = 0; id < VCPUS_MAX; id++)
        for (size_t i = 0; watched[id].vcpu && watched[id].vcpu->vm == vm && i < words; i++)
            watched[id].checkpoint.dirty[i] |= bitmap[i];
    free(bitmap);
}

/* Copies the pages that may differ, from the VM's RAM to the checkpoint or back. */
static void ram_copy(const struct vm *vm, struct checkpoint *checkpoint, bool back)
{
    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES; page++) {
        uint64_t *word = &checkpoint->dirty[page / DIRTY_BITS];
        uint8_t *ram = vm->ram + page * PAGE_BYTES, *copy = checkpoint->ram + page * PAGE_BYTES;
        if (*word & 1ull << page % DIRTY_BITS)
            memcpy(back ? ram : copy, back ? copy : ram, PAGE_BYTES);
        else if (*word == 0)
            page |= DIRTY_BITS - 1;
    }
    memset(checkpoint->dirty, 0, dirty_words(vm) * sizeof checkpoint->dirty[0]);
}

static void checkpoint_take(struct vcpu *vcpu)
{
    struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;

    checkpoint->taken = ioctl(vcpu->fd, KVM_GET_REGS, &checkpoint->regs) == 0 &&
                        ioctl(vcpu->fd, KVM_GET_SREGS, &checkpoint->sregs) == 0 &&
                        ioctl(vcpu->fd, KVM_GET_FPU, &checkpoint->fpu) == 0 &&
                        ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &checkpoint->events) == 0;
    dirty_collect(vcpu->vm);
    ram_copy(vcpu->vm, checkpoint, false);
}

static bool checkpoint_restore(struct vcpu *vcpu)
{
    struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;
    struct kvm_sregs sregs = checkpoint->sregs;

    /* On AMD's processors KVM reports each TSS as busy. QEMU's stops for one that was not loaded by
     * ltr. */
    if (__builtin_cpu_is("amd"))
        sregs.tr.type &= (uint8_t)~TSS_BUSY;
    dirty_collect(vcpu->vm);
    ram_copy(vcpu->vm, checkpoint, true);
    return ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) == 0 &&
           ioctl(vcpu->fd, KVM_SET_REGS, &checkpoint->regs) == 0 &&
           ioctl(vcpu->fd, KVM_SET_FPU, &checkpoint->fpu) == 0 &&
           ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &checkpoint->events) == 0;
}

/* ------------------------------------------------------------------ while the guest runs */

/* The signal does its work by interrupting KVM_RUN. */
static void tick_handler(int signal)
{
}

static void tick_arm(const struct watched *watch, long nanoseconds)
{
    const struct itimerspec time = {
        .it_value = {nanoseconds / 1000000000, nanoseconds % 1000000000}};

    timer_settime(watch->timer, 0, &time, NULL);
}

/* At a vCPU's first entry, on its own thread. */
static void watch_start(struct watched *watch, struct vcpu *vcpu)
{
    const struct vm *vm = vcpu->vm;
    struct sigaction action = {.sa_handler = tick_handler};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    struct checkpoint *checkpoint = &watch->checkpoint;

    sigaction(SIGRTMIN, &action, NULL);
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    checkpoint->ram = calloc(1, vm->ram_bytes);
    checkpoint->dirty = calloc(dirty_words(vm), sizeof checkpoint->dirty[0]);
    if (!checkpoint->ram || !checkpoint->dirty || log_dirty_pages(vm) < 0 ||
        timer_create(CLOCK_MONOTONIC, &event, &watch->timer) < 0)
        exit(fail(STATUS_NO_KVM, "--explain: %s", strerror(errno)));
    /* The copy is all zeros, and so is most of RAM. */
    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES; page++)
        if (memcmp(vm->ram + page * PAGE_BYTES, checkpoint->ram + page * PAGE_BYTES, PAGE_BYTES))
            checkpoint->dirty[page / DIRTY_BITS] |= 1ull << page % DIRTY_BITS;
    watch->thread = pthread_self();
    watch->vcpu = vcpu;
}

static void set_inside(struct watched *watch, bool inside)
{
    watch->inside = inside;
    pthread_cond_broadcast(&changed);
}

/*
 * KVM carries out the rest of an exit, like the register that `in` sets, at the next KVM_RUN. With
 * immediate_exit it does no more than that. A kick that this clears came before the hooks that
 * look for its reason.
 */
static void finish_exit(struct vcpu *vcpu)
{
    vcpu->run->immediate_exit = 1;
    ioctl(vcpu->fd, KVM_RUN, 0);
    vcpu->run->immediate_exit = 0;
}

static void replay_before_hooks(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    pthread_mutex_lock(&lock);
    if (!watch->vcpu)
        watch_start(watch, vcpu);
    set_inside(watch, false); /* after EINTR there was no exit */
    while (replaying)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    finish_exit(vcpu);
}

static void replay_entry(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    pthread_mutex_lock(&lock);
    checkpoint_take(vcpu);
    set_inside(watch, true);
    pthread_mutex_unlock(&lock);
    tick_arm(watch, TICK_NS);
}

static void replay_exit(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];

    tick_arm(watch, 0);
    pthread_mutex_lock(&lock);
    set_inside(watch, false);
    pthread_mutex_unlock(&lock);
}

/* ------------------------------------------------------------------ one instruction at a time */

/*
 * The processor stops single-stepping when it delivers an exception or an interrupt. So the first
 * byte of each handler is HLT while the guest is stepped, which leads to an exit there.
 */
static struct trap {
    uint64_t phys;
    uint8_t byte; /* the handler's own */
} traps[VECTOR_COUNT];
static size_t trap_count;

/* What the traps were set for: the guest may change its handlers. */
static struct kvm_sregs trapped;
static uint8_t trapped_table[VECTOR_COUNT * 8];

/* KVM's own walk, because the learner's may be unwritten: api.rst 4.24 KVM_TRANSLATE. */
static bool translate(const struct vcpu *vcpu, uint64_t linear, uint64_t *phys)
{
    struct kvm_translation translation = {.linear_address = linear};

    if (ioctl(vcpu->fd, KVM_TRANSLATE, &translation) < 0 || !translation.valid ||
        translation.physical_address >= vcpu->vm->ram_bytes)
        return false;
    *phys = translation.physical_address;
    return true;
}

/* Copies bytes at a linear address; false: they are not all in RAM. */
static bool linear_read(const struct vcpu *vcpu, uint64_t linear, void *bytes, size_t count)
{
    const struct vm *vm = vcpu->vm;
    uint64_t phys;

    for (size_t done = 0, part; done < count; done += part) {
        part = PAGE_BYTES - (linear + done) % PAGE_BYTES;
        part = part < count - done ? part : count - done;
        if (!translate(vcpu, linear + done, &phys) || part > vm->ram_bytes - phys)
            return false;
        memcpy((uint8_t *)bytes + done, vm->ram + phys, part);
    }
    return true;
}

/* The linear address of a vector's handler; false: the vector has none. */
static bool handler_find(const struct vcpu *vcpu, const struct kvm_sregs *sregs, unsigned vector,
                         uint64_t *linear)
{
    uint16_t real[2];
    uint32_t gate[2], code[2]; /* SDM vol. 3, 6.11 "IDT Descriptors", 3.4.5 "Segment Descriptors" */

    if (!(sregs->cr0 & CR0_PE)) {
        if ((vector + 1) * sizeof real > sregs->idt.limit + 1u ||
            !linear_read(vcpu, sregs->idt.base + vector * sizeof real, real, sizeof real))
            return false;
        *linear = ((uint64_t)real[1] << 4) + real[0];
        return true;
    }
    if ((vector + 1) * sizeof gate > sregs->idt.limit + 1u ||
        !linear_read(vcpu, sregs->idt.base + vector * sizeof gate, gate, sizeof gate) ||
        !(gate[1] & GATE_PRESENT) ||
        !linear_read(vcpu, sregs->gdt.base + (gate[0] >> 16 & ~7u), code, sizeof code))
        return false;
    *linear = (uint32_t)((code[0] >> 16 | (code[1] & 0xff) << 16 | (code[1] & 0xff000000)) +
                         ((gate[0] & 0xffff) | (gate[1] & 0xffff0000)));
    return true;
}

static void traps_remove(struct vm *vm)
{
    while (trap_count > 0) {
        trap_count--;
        vm->ram[traps[trap_count].phys] = traps[trap_count].byte;
    }
}

static void traps_set(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    struct vm *vm = vcpu->vm;
    uint64_t linear, phys;

    for (unsigned vector = 0; vector < VECTOR_COUNT; vector++) {
        if (!handler_find(vcpu, sregs, vector, &linear) || !translate(vcpu, linear, &phys) ||
            vm->ram[phys] == OPCODE_HLT)
            continue;
        traps[trap_count++] = (struct trap){phys, vm->ram[phys]};
        vm->ram[phys] = OPCODE_HLT;
    }
}

/* Sets the traps again if the guest has changed its handlers. */
static void traps_update(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    uint8_t now[sizeof trapped_table] = {0};
    size_t count = sregs->idt.limit + 1u < sizeof now ? sregs->idt.limit + 1u : sizeof now;

    linear_read(vcpu, sregs->idt.base, now, count);
    if (trap_count > 0 && memcmp(now, trapped_table, sizeof now) == 0 &&
        sregs->idt.base == trapped.idt.base && sregs->idt.limit == trapped.idt.limit &&
        sregs->gdt.base == trapped.gdt.base && sregs->cr3 == trapped.cr3 &&
        sregs->cr0 == trapped.cr0)
        return;
    traps_remove(vcpu->vm);
    traps_set(vcpu, sregs);
    memcpy(trapped_table, now, sizeof now);
    trapped = *sregs;
}

static struct trap *trap_at(uint64_t phys)
{
    for (size_t i = 0; i < trap_count; i++)
        if (traps[i].phys == phys)
            return &traps[i];
    return NULL;
}

/* ------------------------------------------------------------------ the second time */

static struct instruction history[HISTORY]; /* a ring: the latest is at (count - 1) % HISTORY */
static uint64_t history_count;

/* Records the instruction at the vCPU's position, or that it is repeated. */
static void history_add(struct vcpu *vcpu, const struct kvm_regs *regs,
                        const struct kvm_sregs *sregs, bool handler)
{
    struct instruction *last = &history[(history_count + HISTORY - 1) % HISTORY];
    uint64_t linear = sregs->cs.base + regs->rip;

    if (history_count > 0 && !handler && last->regs.rip == regs->rip &&
        last->sregs.cs.base == sregs->cs.base &&
        (last->code[0] == 0xf2 || last->code[0] == 0xf3)) { /* rep */
        last->repeated++;
        last->regs = *regs;
        return;
    }
    last = &history[history_count++ % HISTORY];
    *last = (struct instruction){.regs = *regs, .sregs = *sregs, .repeated = 1, .handler = handler};
    for (uint64_t phys; last->code_bytes < CODE_BYTES; last->code_bytes++) {
        if (!translate(vcpu, linear + last->code_bytes, &phys))
            break;
        const struct trap *trap = trap_at(phys);
        last->code[last->code_bytes] = trap ? trap->byte : vcpu->vm->ram[phys];
    }
}

/* Executes the instruction at `phys`, without a trap there; negative: the vCPU did not come back.
 */
static int step(struct vcpu *vcpu, uint64_t phys)
{
    struct trap *trap = trap_at(phys);
    int result;

    if (trap)
        vcpu->vm->ram[phys] = trap->byte;
    tick_arm(&watched[vcpu->id], STEP_NS);
    result = ioctl(vcpu->fd, KVM_RUN, 0);
    tick_arm(&watched[vcpu->id], 0);
    if (trap)
        vcpu->vm->ram[phys] = OPCODE_HLT;
    return result;
}

/*
 * Executes from the checkpoint to the crash, at most `max` instructions, one at a time. Returns
 * whether it ended with `reason`, as the first time.
 */
static bool step_all(struct vcpu *vcpu, uint32_t reason, int max)
{
    const struct kvm_guest_debug off = {.control = 0},
                                 on = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
    /* The delivery of an interrupt is not stepped: its handler's trap, or the crash, ends it. */
    bool injected = watched[vcpu->id].checkpoint.events.interrupt.injected;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    bool handler = false;
    uint64_t phys;

    history_count = 0;
    if (!checkpoint_restore(vcpu) ||
        ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, injected ? &off : &on) < 0)
        return false;
    for (int steps = 0; steps < max; steps++) {
        if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
            return false;
        traps_update(vcpu, &sregs);
        if (!translate(vcpu, sregs.cs.base + regs.rip, &phys))
            phys = UINT64_MAX;
        history_add(vcpu, &regs, &sregs, handler);
        if (step(vcpu, phys) < 0)
            return false;
        handler = false;
        if (vcpu->run->exit_reason == KVM_EXIT_HLT) {
            if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 ||
                ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
                return false;
            regs.rip--;
            handler = translate(vcpu, sregs.cs.base + regs.rip, &phys) && trap_at(phys);
            /* KVM steps from where the vCPU is when it is asked to. */
            if (handler && (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0 ||
                            ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &on) < 0))
                return false;
        }
        if (!handler && vcpu->run->exit_reason != KVM_EXIT_DEBUG)
            return vcpu->run->exit_reason == reason;
    }
    return false;
}

/* Brings the checkpoint closer to the crash: a guest may execute millions of instructions. */
static bool checkpoint_advance(struct vcpu *vcpu)
{
    const struct kvm_guest_debug debug = {.control = 0};
    struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;

    traps_remove(vcpu->vm);
    if (ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &debug) < 0)
        return false;
    long wait = FINE_NS;
    for (int round = 0; round < ROUNDS_MAX && checkpoint_restore(vcpu); round++) {
        struct kvm_regs before = checkpoint->regs;
        tick_arm(&watched[vcpu->id], wait);
        int result = ioctl(vcpu->fd, KVM_RUN, 0);
        tick_arm(&watched[vcpu->id], 0);
        if (result == 0)
            return true;
        if (errno != EINTR)
            return false;
        checkpoint_take(vcpu);
        /* Under load the time may be over before the guest has executed anything. */
        bool moved = memcmp(&before, &checkpoint->regs, sizeof before) != 0;
        wait = moved ? FINE_NS : wait < TICK_NS / 2 ? 2 * wait : wait;
    }
    return false;
}

/* ------------------------------------------------------------------ the record */

static void hex_print(const char *name, const uint8_t *bytes, size_t count)
{
    fprintf(stderr, "\"%s\":\"", name);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%02x", bytes[i]);
    fputc('"', stderr);
}

static void segment_print(const char *name, const struct kvm_segment *segment)
{
    fprintf(stderr,
            ",\"%s\":{\"selector\":%u,\"base\":%llu,\"limit\":%u,\"type\":%u,\"s\":%u,\"dpl\":%u,"
            "\"present\":%u,\"db\":%u,\"l\":%u,\"g\":%u,\"unusable\":%u}",
            name, segment->selector, segment->base, segment->limit, segment->type, segment->s,
            segment->dpl, segment->present, segment->db, segment->l, segment->g, segment->unusable);
}

static void instruction_print(const struct instruction *instruction)
{
    const struct kvm_regs *regs = &instruction->regs;
    const struct kvm_sregs *sregs = &instruction->sregs;
    const struct {
        const char *name;
        uint64_t value;
    } values[] = {
        {"rax", regs->rax},
        {"rbx", regs->rbx},
        {"rcx", regs->rcx},
        {"rdx", regs->rdx},
        {"rsi", regs->rsi},
        {"rdi", regs->rdi},
        {"rbp", regs->rbp},
        {"rsp", regs->rsp},
        {"r8", regs->r8},
        {"r9", regs->r9},
        {"r10", regs->r10},
        {"r11", regs->r11},
        {"r12", regs->r12},
        {"r13", regs->r13},
        {"r14", regs->r14},
        {"r15", regs->r15},
        {"rip", regs->rip},
        {"rflags", regs->rflags},
        {"cr0", sregs->cr0},
        {"cr2", sregs->cr2},
        {"cr3", sregs->cr3},
        {"cr4", sregs->cr4},
        {"efer", sregs->efer},
        {"gdt_base", sregs->gdt.base},
        {"gdt_limit", sregs->gdt.limit},
        {"idt_base", sregs->idt.base},
        {"idt_limit", sregs->idt.limit},
    };

    fprintf(stderr, "explain: instruction {\"repeated\":%" PRIu32 ",\"handler\":%d,",
            instruction->repeated, instruction->handler);
    hex_print("code", instruction->code, instruction->code_bytes);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        fprintf(stderr, ",\"%s\":%" PRIu64, values[i].name, values[i].value);
    segment_print("cs", &sregs->cs);
    segment_print("ds", &sregs->ds);
    segment_print("es", &sregs->es);
    segment_print("fs", &sregs->fs);
    segment_print("gs", &sregs->gs);
    segment_print("ss", &sregs->ss);
    segment_print("tr", &sregs->tr);
    segment_print("ldt", &sregs->ldt);
    fputs("}\n", stderr);
}

/* The pages of RAM that are not all zeros. */
static void memory_print(const struct vm *vm)
{
    static const uint8_t zeros[PAGE_BYTES];
    int printed = 0;

    for (size_t page = 0; page < vm->ram_bytes / PAGE_BYTES && printed < PAGES_MAX; page++) {
        const uint8_t *bytes = vm->ram + page * PAGE_BYTES;
        if (memcmp(bytes, zeros, sizeof zeros) == 0)
            continue;
        printed++;
        fprintf(stderr, "explain: page {\"address\":%zu,", page * PAGE_BYTES);
        hex_print("bytes", bytes, PAGE_BYTES);
        fputs("}\n", stderr);
    }
}

/* An interrupt that was to be delivered at the checkpoint, or -1. */
static int injected_vector(const struct kvm_vcpu_events *events)
{
    return events->interrupt.injected && !events->interrupt.soft ? events->interrupt.nr : -1;
}

static void record_print(struct vcpu *vcpu, bool same)
{
    const struct checkpoint *checkpoint = &watched[vcpu->id].checkpoint;
    uint64_t first = history_count > HISTORY ? history_count - HISTORY : 0;

    fprintf(stderr,
            "explain: crash {\"vcpu\":%d,\"lab\":%d,\"reason\":\"%s\",\"same\":%d,"
            "\"instructions\":%" PRIu64 ",\"injected\":%d,\"ram\":%zu}\n",
            vcpu->id, stage.lab, exit_name(vcpu->exit.reason), same, history_count,
            injected_vector(&checkpoint->events), vcpu->vm->ram_bytes);
    for (uint64_t i = first; i < history_count; i++)
        instruction_print(&history[i % HISTORY]);
    memory_print(vcpu->vm);
    fputs("explain: end {}\n", stderr);
}

/* Waits until no other vCPU is in its guest, and keeps them out. Called with the lock. */
static void others_stop(const struct watched *self)
{
    while (replaying)
        pthread_cond_wait(&changed, &lock);
    replaying = true;
    for (size_t id = 0; id < VCPUS_MAX; id++) {
        struct watched *other = &watched[id];
        if (other == self || !other->inside)
            continue;
        other->vcpu->run->immediate_exit = 1;
        pthread_kill(other->thread, SIGRTMIN);
        while (other->inside)
            pthread_cond_wait(&changed, &lock);
    }
}

static void replay_crash(struct vcpu *vcpu)
{
    struct watched *watch = &watched[vcpu->id];
    uint32_t reason = vcpu->exit.reason;

    if (!watch->checkpoint.taken)
        return;
    pthread_mutex_lock(&lock);
    set_inside(watch, false); /* KVM_RUN may have failed */
    others_stop(watch);
    pthread_mutex_unlock(&lock);
    bool same = false;
    for (int try = 0; try < TRIES && !same; try++)
        same = step_all(vcpu, reason, STEPS_FIRST) ||
               (history_count >= STEPS_FIRST && checkpoint_advance(vcpu) &&
                step_all(vcpu, reason, STEPS_MAX));
    traps_remove(vcpu->vm);
    record_print(vcpu, same);
    pthread_mutex_lock(&lock);
    replaying = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

const struct observer replay = {
    .before_hooks = replay_before_hooks,
    .entry = replay_entry,
    .exit = replay_exit,
    .crash = replay_crash,
};
