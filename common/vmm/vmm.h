/*
 * vmm.h - the contract between the modules of the VMM: the structures they share and every function
 * that one module calls in another. It is the same file in every lab.
 *
 * Conventions: a function that can fail returns 0, or an exit status (STATUS_...) after it has said
 * on standard error what failed and why; fail() does both. Guest-physical addresses are uint64_t
 * or uint32_t counted from 0; sizes are in bytes. "SDM" is the Intel Software Developer's Manual,
 * "api.rst" the Linux kernel's Documentation/virt/kvm/api.rst.
 */
#pragma once

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "abi.h"

/* ------------------------------------------------------------------ the structures */

enum guest_kind {
    GUEST_REAL,   /* flat code, real mode, at offset 0 of its vCPU's window */
    GUEST_PAGING, /* flat code, protected mode with paging: --mode=paging */
    GUEST_ELF,    /* an ELF32 kernel: protected mode with paging, and boot information */
    GUEST_KINDS
};

/* A guest as named on the command line, read into memory. */
struct guest {
    const char *path;
    enum guest_kind kind;
    uint8_t *image;
    size_t image_bytes;
};

/* A page that --map adds to a paging guest's tables. */
struct page_mapping {
    uint32_t virt, phys; /* multiples of PAGE_BYTES; phys counts from the guest's own part of RAM */
    uint32_t flags;      /* PAGE_PRESENT, PAGE_WRITABLE, PAGE_USER; 0 takes the page away */
};

#define MAPPINGS_MAX 64

struct options {
    size_t ram_bytes;     /* --mem, of each VM */
    bool isolate;         /* --isolate */
    bool final_registers; /* --regs */
    enum guest_kind flat; /* --mode: what a flat image is */
    uint32_t load;        /* --load: physical address of a flat paging image */
    uint32_t entry;       /* --entry: its first instruction's virtual address */
    const char *initrd;   /* --initrd, or NULL */
    unsigned tick_ms;     /* --tick-ms */
    bool color;           /* --color, with `auto` resolved */
    enum { STATS_NONE, STATS_TEXT, STATS_JSON } stats;
    FILE *trace; /* --trace, or NULL */
    struct page_mapping mappings[MAPPINGS_MAX];
    size_t mapping_count;
};

/* What vCPU is to do next: the answer of every exit handler. */
enum step {
    STEP_RUN,       /* enter the guest again */
    STEP_END,       /* this vCPU has ended; vcpu->status is set */
    STEP_UNHANDLED, /* only from exit_dispatch: no handler for this exit at this stage */
};

/* Where a vCPU's thread is. */
enum vcpu_life { VCPU_CREATED, VCPU_RUNNING, VCPU_ENDED };

/* What is kept of an exit. */
struct exit_record {
    uint32_t reason;  /* EXIT_NONE: there was none */
    bool out;         /* KVM_EXIT_IO, KVM_EXIT_MMIO: the guest writes */
    uint32_t size;    /* of both: bytes an operand */
    uint32_t count;   /* KVM_EXIT_IO: operands */
    uint64_t address; /* port or guest-physical address */
    uint64_t rip;     /* 0: not known, for KVM does not hand registers over with the exit */
};

#define EXIT_NONE        UINT32_MAX
#define EXIT_REASONS_MAX 64
#define CONSOLE_LINE_MAX 4096

struct vmm;
struct vm;

/* One virtual CPU and the guest that runs on it. */
struct vcpu {
    int id;    /* 0 to VCPUS_MAX - 1: the guest's place on the command line */
    int index; /* 0 to VCPUS_MAX - 1: its place in its VM */
    struct vm *vm;
    struct guest *guest;

    int fd;              /* from KVM_CREATE_VCPU; -1: none */
    struct kvm_run *run; /* shared with the kernel; NULL: not mapped */
    size_t run_bytes;    /* from KVM_GET_VCPU_MMAP_SIZE */
    int status;          /* exit status, once it has ended */

    bool getchar_called; /* lab 2: HC_GETCHAR was written, its answer not yet read */

    pthread_t thread;     /* lab 3: once `life` is VCPU_RUNNING; for the kick */
    pthread_mutex_t lock; /* lab 3: guards `life` and, from lab 4 on, `pending` */
    enum vcpu_life life;  /* lab 3: of its thread */
    char line[CONSOLE_LINE_MAX];
    size_t line_bytes; /* lab 3: of `line`, waiting for their newline */

    pthread_cond_t wake; /* lab 4: a halted vCPU sleeps on it; vcpu_kick signals it */
    uint32_t pending;    /* lab 4: bit N: vector TIMER_VECTOR + N waits to be injected */
    uint64_t interrupts; /* lab 4: injected so far, for --stats */

    uint64_t exits[EXIT_REASONS_MAX + 1]; /* by reason, for --stats; the last: any other */
    struct exit_record exit, exit_before; /* the latest two, for --trace and the post-mortem */

    /*
     * The registers of the start or, where KVM hands them over, of the latest exit but shutdown;
     * the kit fills them in.
     */
    struct kvm_regs known_regs;
    struct kvm_sregs known_sregs;
};

/* One virtual machine: RAM and vCPUs. */
struct vm {
    struct vmm *vmm;
    int kvm_fd;   /* /dev/kvm; -1: not open */
    int fd;       /* from KVM_CREATE_VM; -1: none */
    uint8_t *ram; /* guest-physical address 0; NULL: not mapped */
    size_t ram_bytes;
};

/* The whole program. */
struct vmm {
    struct options options;
    struct guest guests[VCPUS_MAX];
    struct vcpu vcpus[VCPUS_MAX]; /* vcpus[i] runs guests[i] */
    int guest_count;
    struct vm vms[VCPUS_MAX];
    int vm_count;           /* 1, or with --isolate one a guest */
    atomic_int stop_signal; /* the signal that stops all vCPUs; 0: none */
};

/*
 * What this stage's VMM is made of: stage.c fills it in for each lab. The run loop asks this table
 * and so needs no change when a later lab adds to it.
 */
struct stage {
    int lab;
    int guests_max;
    /* Loads the vCPU's guest into RAM and sets the start state; 0 or a status. NULL: not yet. */
    int (*prepare[GUEST_KINDS])(struct vcpu *vcpu);
    /* Called in this order before each KVM_RUN. */
    enum step (*before_entry[2])(struct vcpu *vcpu);
    /* By exit reason; NULL: the run loop's own answer. */
    enum step (*on_exit[EXIT_REASONS_MAX])(struct vcpu *vcpu);
    int (*run)(struct vmm *vmm); /* runs all guests; the VMM's exit status */
    void (*console_write)(struct vcpu *vcpu, const char *bytes, size_t count);
    int (*getchar)(struct vcpu *vcpu); /* 0 to 255, GETCHAR_NOTHING or GETCHAR_END; never waits */
    int (*devices_start)(struct vmm *vmm); /* before the first vCPU runs; NULL: none */
    void (*devices_stop)(void);            /* after the last has ended */
    void (*on_end)(struct vcpu *vcpu);     /* a vCPU has ended; NULL: nobody wants to know */
    /* vcpu_translate for a guest with paging on; NULL: not yet. */
    bool (*translate)(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out);
};
extern const struct stage stage;

/* ------------------------------------------------------------------ given: common/vmm/ */

/* Says "vmm: ..." in one line on standard error; returns `status`. */
int fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Stops the VMM with STATUS_TODO and says which exercise, where, and which handout section. */
#define TODO(exercise) todo_reached(exercise, __FILE__, __LINE__)
_Noreturn void todo_reached(const char *exercise, const char *file, int line);

/* Fills `options` and the guests' paths from the command line; exits by itself on --help. */
int options_parse(struct vmm *vmm, int argc, char **argv);

/* A size or address like 4096, 0x1000, 64K, 16M or 1G; false: it is none, or over `max`. */
bool parse_number(const char *text, uint64_t max, uint64_t *number);

/* Reads a guest's file and tells its kind; files of over `max` bytes are refused. */
int guest_read(struct guest *guest, enum guest_kind flat, size_t max);

/* Reads the whole of a file into malloc'ed memory; refuses empty ones and those over `max`. */
int file_read(const char *path, size_t max, uint8_t **bytes, size_t *count);

/* Copies `count` bytes into guest RAM; false: they don't fit. */
bool ram_write(struct vm *vm, uint64_t phys, const void *bytes, size_t count);

/* Sets every field to "nothing there yet", so that *_destroy is right at any time. */
void vm_init(struct vm *vm, struct vmm *vmm);
void vcpu_init(struct vcpu *vcpu, int id, int index, struct vm *vm, struct guest *guest);

/* Loads the guest and sets its start state, by its kind. */
int vcpu_prepare(struct vcpu *vcpu);

/* The vCPU has ended: prints --regs, tells the stage's devices. Its thread calls it at its end. */
void vcpu_ended(struct vcpu *vcpu);

/* Writes all bytes to standard output. */
void stdout_write(const char *bytes, size_t count);

/* The next byte of standard input, GETCHAR_NOTHING or GETCHAR_END; never waits. */
int stdin_getchar(struct vcpu *vcpu);

/*
 * Guest-physical address of a linear address, the way the vCPU's mode translates it now. On `out`,
 * unless NULL, it tells how. false: not mapped. The answer holds up to the end of its page only.
 */
bool vcpu_translate(struct vcpu *vcpu, uint32_t linear, uint64_t *phys, FILE *out);

/* Calls the stage's before_entry hooks, until one does not answer STEP_RUN. */
enum step stage_before_entry(struct vcpu *vcpu);

/* Records the exit in vcpu->run (--stats, --trace) and hands it to the stage's handler for it. */
enum step exit_dispatch(struct vcpu *vcpu);

/* From now on SIGUSR2 makes each vCPU's thread say where its guest is; and which vCPU it runs. */
void where_start(void);
void where_set(struct vcpu *vcpu, bool runs);

/* "real mode" and so on, from CR0, CR4 and EFER. */
const char *vcpu_mode(const struct kvm_sregs *sregs);

/* "KVM_EXIT_HLT", or "exit reason 99". */
const char *exit_name(uint32_t reason);

/* The exit and what it carries, in a line of under EXIT_TEXT_MAX bytes. */
#define EXIT_TEXT_MAX 128
void exit_describe(const struct exit_record *exit, char *text, size_t size);

/* Writes a line of --trace, for events beside exits. */
void trace_event(struct vcpu *vcpu, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints --stats of all vCPUs. */
void stats_print(const struct vmm *vmm);

/* The guest died: prints the cause in words and a post-mortem; sets STATUS_DIED; STEP_END. */
enum step vcpu_die(struct vcpu *vcpu, const char *format, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result));

/* The vCPU ended by itself with this status: STEP_END. */
enum step vcpu_end(struct vcpu *vcpu, int status) __attribute__((warn_unused_result));

/* ------------------------------------------------------------------ lab 1: vm.c */

/* 1.1 Opens /dev/kvm as vm->kvm_fd and checks API version and capabilities. 0 or STATUS_NO_KVM. */
int kvm_open(struct vm *vm);

/* 1.2 Creates the VM: addresses that Intel needs, `ram_bytes` of RAM at 0. 0 or STATUS_NO_KVM. */
int vm_create(struct vm *vm, size_t ram_bytes);

/* 1.3 Creates vCPU number vcpu->index, maps its kvm_run, gives it CPUID. 0 or STATUS_NO_KVM. */
int vcpu_create(struct vcpu *vcpu);

/*
 * 1.4 Changes the reset state in `sregs`, and sets every field of `regs`, whatever is in it: real
 * mode with every segment at `base` (a multiple of 16 below 1 MB), execution at its offset 0, the
 * stack at its end of 64 KB, no interrupt table, all other general registers 0.
 */
void real_mode_state(uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs);

/* 1.4 Puts the vCPU into that state. 0 or STATUS_NO_KVM. */
int vcpu_set_real_mode(struct vcpu *vcpu, uint32_t base);

/* 1.5 Runs the vCPU until it has ended; returns vcpu->status. */
int vcpu_run(struct vcpu *vcpu);

/* 1.6 Give back what the two created, also after a creation that failed half-way. */
void vcpu_destroy(struct vcpu *vcpu);
void vm_destroy(struct vm *vm);

/* ------------------------------------------------------------------ lab 2: hypercall.c */

/* A KVM_EXIT_IO in plain words (api.rst section 5, "struct kvm_run"). */
struct io_access {
    bool out; /* the guest writes */
    uint16_t port;
    uint8_t size;   /* bytes of one operand: 1, 2 or 4 */
    uint32_t count; /* operands, one after the other: more than 1 for `rep` */
    uint8_t *data;  /* size * count bytes, behind *run in its mapping */
};

/* 2.1 Decodes the KVM_EXIT_IO in `run`. */
struct io_access io_decode(struct kvm_run *run);

/* 2.1 Operand number `index` of the access, zero-extended; and its counterpart for `in`. */
uint32_t io_operand(const struct io_access *io, uint32_t index);
void io_answer(const struct io_access *io, uint32_t index, uint32_t value);

/* 2.2 The general registers at this exit. 0 or STATUS_DIED. */
int vcpu_registers(struct vcpu *vcpu, struct kvm_regs *regs);

/* 2.2 - 2.5 The handler of KVM_EXIT_IO. */
enum step hypercall_io(struct vcpu *vcpu);

/* ------------------------------------------------------------------ lab 3: vcpus.c */

/* 3.1 Guest-physical address of the window of vCPU `id`. */
uint32_t window_base(int id);

/* 3.1 Loads a real-mode guest into its window and starts it there. 0 or a status. */
int window_prepare(struct vcpu *vcpu);

/* 3.2, 3.4, 3.5 Runs all guests to their end; the worst (highest) of their statuses. */
int vcpus_run(struct vmm *vmm);

/* 3.3 Collects a vCPU's output into lines; each finished line goes out whole, with its name. */
void console_write_lines(struct vcpu *vcpu, const char *bytes, size_t count);

/* 3.3 Puts out the vCPU's last line, if it was left without a newline. */
void console_finish(struct vcpu *vcpu);

/*
 * 3.4 Makes the vCPU, called from any thread, look at what it has to do: out of KVM_RUN, out of
 * its sleep on vcpu->wake, and also if it is just about to enter either. Set the flag it shall see
 * before the call.
 */
void vcpu_kick(struct vcpu *vcpu);

/* 3.4 before_entry: takes back a kick, then ends the vCPU if the VMM stops. */
enum step vcpu_check_stop(struct vcpu *vcpu);

/* ------------------------------------------------------------------ lab 4: interrupts.c */

#define RING_BYTES 256

/* Bytes on their way from standard input to the guest. Zeroed: empty. Not locked by itself. */
struct ring {
    uint8_t bytes[RING_BYTES];
    unsigned head;  /* where the next byte is taken */
    unsigned count; /* bytes in it, 0 to RING_BYTES */
};

/* 4.5 Room left, in bytes. */
unsigned ring_room(const struct ring *ring);

/* 4.5 Appends a byte; false: the ring is full. */
bool ring_put(struct ring *ring, uint8_t byte);

/* 4.5 Takes the oldest byte; -1: the ring is empty. */
int ring_get(struct ring *ring);

/* 4.2 The vector to inject first out of a set (vcpu->pending's format), or -1 for an empty set. */
int pending_first(uint32_t pending);

/* 4.3 Makes `vector` pending on the vCPU, from any thread, and has it noticed at once. */
void interrupt_raise(struct vcpu *vcpu, int vector);

/* 4.2 before_entry: injects what is pending, or asks for the moment when it can be. */
enum step interrupt_deliver(struct vcpu *vcpu);

/* 4.2 The handler of KVM_EXIT_IRQ_WINDOW_OPEN. */
enum step interrupt_window_open(struct vcpu *vcpu);

/* 4.4 The handler of KVM_EXIT_HLT. */
enum step interrupt_halt(struct vcpu *vcpu);

/* 4.5 HC_GETCHAR's source from lab 4 on. */
int keyboard_getchar(struct vcpu *vcpu);

/* Lets the next VM have the keyboard, when a VM with it has ended; given. */
void keyboard_pass_on(struct vcpu *vcpu);

/* 4.1, 4.5, 4.6 Start and end timer and keyboard. 0 or a status. */
int devices_start(struct vmm *vmm);
void devices_stop(void);

/* ------------------------------------------------------------------ lab 5: paging.c */

/* Bits of page directory and page table entries: SDM vol. 3, 4.3 "32-bit paging". */
#define PAGE_PRESENT  0x001
#define PAGE_WRITABLE 0x002
#define PAGE_USER     0x004
#define PAGE_LARGE    0x080 /* in a directory entry: maps 4 MB by itself; needs CR4.PSE */

/* A descriptor in plain words: SDM vol. 3, 3.4.5 "Segment Descriptors". */
struct descriptor {
    uint32_t base;
    uint32_t limit; /* last valid offset, in bytes */
    uint8_t type;   /* 4 bits */
    bool code_data; /* S */
    uint8_t dpl;
    bool present;
    bool big; /* D/B: 32-bit */
};

/* 5.1 The 8 bytes in memory; a limit of over 1 MB is stored in pages (G). */
uint64_t descriptor_encode(const struct descriptor *descriptor);

/* 5.1 The segment register as the processor fills it when it loads `selector` from `gdt`. */
struct kvm_segment segment_load(const uint64_t *gdt, uint16_t selector);

/* The memory of one paging guest. */
struct address_space {
    uint8_t *memory;     /* host address of its part of RAM */
    uint32_t base;       /* guest-physical address of that part: a multiple of LARGE_PAGE_BYTES */
    uint32_t bytes;      /* its size */
    uint32_t next_table; /* offset of the first unused page table, TABLES_OFFSET to TABLES_END */
};

/* 5.1 Writes the GDT of abi.h's selectors at GDT_OFFSET, and a TSS of zeros at TSS_OFFSET. */
void gdt_build(struct address_space *space);

/*
 * 5.2 Writes the page directory: all of the space, also a part of 4 MB at its end, at 0 and at
 * HIGHER_HALF in 4 MB pages; every other entry is 0.
 */
void directory_build(struct address_space *space);

/*
 * 5.3 Maps one page, or with flags 0 unmaps it; virt and phys are multiples of PAGE_BYTES, phys an
 * offset into the space. A 4 MB page in its way is split into a table first, its other pages kept.
 * 0; ENOMEM: no table left; EINVAL: not page-aligned, or phys outside the space.
 */
int page_map(struct address_space *space, uint32_t virt, uint32_t phys, uint32_t flags);

/*
 * 5.4 Start state: protected mode, paging on, execution at `entry`, stack below `stack`, no IDT,
 * the other general registers 0. `sregs` comes in as KVM gave it.
 */
void paging_state(const struct address_space *space, uint32_t entry, uint32_t stack,
                  struct kvm_sregs *sregs, struct kvm_regs *regs);

/* What a page walk found: SDM vol. 3, 4.3. */
struct page_walk {
    bool mapped;
    uint64_t phys;                         /* guest-physical, if mapped */
    uint32_t directory_entry, table_entry; /* as read, mapped or not; 0: not read */
    bool writable, user;                   /* the rights of both levels together */
    const char *reason;                    /* if not mapped: at which level and why, in words */
};

/* 5.5 Translates as the processor would, from CR3 and CR4 alone. */
struct page_walk page_walk(const uint8_t *ram, size_t ram_bytes, uint32_t cr3, uint32_t cr4,
                           uint32_t virt);

/* 5.6 The vCPU's part of its VM's RAM, from how many vCPUs share it; 0 or STATUS_USAGE. */
int space_open(struct vcpu *vcpu, struct address_space *space);

/*
 * 5.4 Descriptors, directory and --map's pages into memory, the vCPU into its start state with
 * `ebx` in EBX. 0 or a status: STATUS_NO_KVM, or that of a page that can't be mapped.
 */
int paging_enter(struct vcpu *vcpu, struct address_space *space, uint32_t entry, uint32_t stack,
                 uint32_t ebx);

/* Loads a flat image at --load and enters it; given. */
int paging_prepare(struct vcpu *vcpu);

/* 5.5 vcpu_translate for a guest with paging on: the walk, told on `out` level by level. */
bool paging_translate(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out);

/* ------------------------------------------------------------------ lab 6: boot.c */

/*
 * 6.1 Checks an ELF32 file and loads its PT_LOAD segments by physical address into `memory`
 * (guest-physical 0, `memory_bytes` long), the part beyond the file's bytes zeroed. Sets the entry
 * point (virtual) and the end of the highest segment (physical). NULL, or what is wrong in words.
 */
const char *elf_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                     uint32_t *entry, uint32_t *end);

/* 6.2, 6.3 Loads kernel and archive, writes the boot information, enters the kernel. */
int boot_prepare(struct vcpu *vcpu);
