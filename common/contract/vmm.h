/*
 * vmm.h - the structures that the parts of the VMM share: guests, options, vCPUs, VMs, and the
 * table of what a stage consists of. They are the same in every lab; given.h has the functions that
 * the kit provides, lab1.h to lab8.h those that each lab's module provides.
 *
 * Guest-physical addresses are uint64_t or uint32_t and count from 0; sizes are in bytes. "SDM" is
 * the Intel Software Developer's Manual, "api.rst" the Linux kernel's
 * Documentation/virt/kvm/api.rst.
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
#include "x86.h"

enum guest_kind {
    GUEST_REAL,   /* flat code, real mode, at offset 0 of its vCPU's window */
    GUEST_PAGING, /* flat code, protected mode with paging: --mode=paging */
    GUEST_ELF,    /* an ELF32 kernel: protected mode with paging, and boot information */
    GUEST_ELF64,  /* an ELF64 kernel: long mode, and boot information */
    GUEST_LINUX,  /* a bzImage: Linux's 64-bit boot protocol */
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
    uint64_t virt;  /* a multiple of PAGE_BYTES, like phys */
    uint32_t phys;  /* counts from the guest's own part of RAM */
    uint64_t flags; /* PAGE_PRESENT, PAGE_WRITABLE, PAGE_USER, PAGE_NX; 0 unmaps the page */
};

#define MAPPINGS_MAX 64

struct options {
    size_t ram_bytes;     /* --mem, of each VM */
    bool ram_given;       /* otherwise ram_bytes is a default */
    bool isolate;         /* --isolate */
    bool final_registers; /* --regs */
    enum guest_kind flat; /* --mode: what a flat image is */
    uint32_t load;        /* --load: physical address of a flat paging image */
    uint32_t entry;       /* --entry: its first instruction's virtual address */
    const char *initrd;   /* --initrd, or NULL */
    const char *cmdline;  /* --cmdline, or NULL */
    unsigned tick_ms;     /* --tick-ms */
    bool color;           /* --color, with `auto` resolved */
    enum { STATS_NONE, STATS_TEXT, STATS_JSON } stats;
    FILE *trace; /* --trace, or NULL */
    struct page_mapping mappings[MAPPINGS_MAX];
    size_t mapping_count;
};

/* What a vCPU does next: the return value of every exit handler. */
enum step {
    STEP_RUN,       /* enter the guest again */
    STEP_END,       /* this vCPU has ended; vcpu->status is set */
    STEP_UNHANDLED, /* only from exit_dispatch: no handler for this exit at this stage */
};

/* Where a vCPU's thread is. */
enum vcpu_state { VCPU_CREATED, VCPU_RUNNING, VCPU_ENDED };

/* An exit as it is recorded. */
struct exit_record {
    uint32_t reason;  /* EXIT_NONE: there was none */
    bool out;         /* KVM_EXIT_IO, KVM_EXIT_MMIO: the guest writes */
    uint32_t size;    /* of both: bytes per operand */
    uint32_t count;   /* KVM_EXIT_IO: operands */
    uint64_t address; /* port or guest-physical address */
    uint64_t rip;     /* 0: unknown, KVM does not hand registers over with the exit */
};

#define EXIT_NONE        UINT32_MAX
#define EXIT_REASONS_MAX 64
#define CONSOLE_LINE_MAX 4096

struct vmm;
struct vm;
struct platform;

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

    pthread_t thread;      /* lab 3: once `state` is VCPU_RUNNING; for the kick */
    pthread_mutex_t lock;  /* lab 3: guards `state` and, from lab 4 on, `pending` */
    enum vcpu_state state; /* lab 3: of its thread */
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
    struct platform *platform; /* lab 8: the devices of a Linux guest; NULL: none */
};

/* The whole program. */
struct vmm {
    struct options options;
    struct guest guests[VCPUS_MAX];
    struct vcpu vcpus[VCPUS_MAX]; /* vcpus[i] runs guests[i] */
    int guest_count;
    struct vm vms[VCPUS_MAX];
    int vm_count;           /* 1, or with --isolate one per guest */
    atomic_int stop_signal; /* the signal that stops all vCPUs; 0: none */
};

/*
 * What this stage's VMM consists of: common/stages/ has one for each lab. The run loop reads this
 * table, so a later lab changes it without changing the loop.
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
    void (*on_end)(struct vcpu *vcpu);     /* a vCPU has ended; NULL: no hook */
    /* vcpu_translate for a guest with 32-bit paging; NULL: not yet. */
    bool (*translate)(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint32_t linear,
                      uint64_t *phys, FILE *out);
    /* The same for a guest in long mode. */
    bool (*translate_long)(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear,
                           uint64_t *phys, FILE *out);
};
extern const struct stage stage;
