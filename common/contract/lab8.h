/*
 * lab8.h - what devices.c and linux.c of lab 8 provide: a bus with the devices of a small PC, and
 * an unmodified Linux kernel on it.
 *
 * devices.c is a model of the hardware. It makes no system call and has no variables of its own:
 * all of a device's state is in the structures below, which the vCPU's thread owns, so none has a
 * lock. linux.c connects these devices to KVM and to lab 4's interrupts, and boots Linux.
 */
#pragma once

#include <asm/bootparam.h>

#include "lab7.h"
#include "pc.h"

/* ------------------------------------------------------------------ devices.c: the bus */

enum bus_space { BUS_PORT, BUS_MEMORY };

/*
 * Part of an address space, and the device whose registers are there. The handlers get the access's
 * address, its size of 1 to 8 bytes, and the device.
 */
struct bus_range {
    enum bus_space space;
    uint64_t first, bytes;
    void *device;
    uint64_t (*read)(void *device, uint64_t address, unsigned size);
    void (*write)(void *device, uint64_t address, unsigned size, uint64_t value);
};

#define BUS_RANGES_MAX 16

/* All zeros: empty. */
struct bus {
    struct bus_range ranges[BUS_RANGES_MAX];
    size_t count;
};

/*
 * 8.1 Adds a range. 0; or, with the bus unchanged, EINVAL: empty, or past the end of its space (the
 * last port, or 2^64 - 1); EEXIST: it overlaps another range; ENOSPC: the bus is full.
 */
int bus_add(struct bus *bus, const struct bus_range *range);

/*
 * 8.1 One access of `size` bytes, 1 to 8. It reaches a device if a range contains all of its bytes.
 * Everything else is a hole: it reads as all ones, in `size` bytes, and ignores writes.
 */
uint64_t bus_read(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size);
void bus_write(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value);

/*
 * The devices below have registers of one byte, and their functions that end in _read and _write
 * are handlers for the bus: `device` is the struct, `port` the register's port. Of a wider write
 * they see the low byte; of a wider read the other bytes are 0.
 */

/* ------------------------------------------------------------------ devices.c: the serial port */

/* A 16550A: an 8250 with FIFOs. All zeros but for the line: after reset. */
struct uart {
    uint8_t registers[UART_PORTS]; /* what IER, LCR, MCR and SCR read as; the others are not used */
    uint8_t fifo_control;
    uint8_t divisor[2];    /* DLL, DLM; the line has no speed */
    bool overrun;          /* a byte came and there was no room: until LSR is read */
    bool transmitter_news; /* the THR-empty interrupt is due: until IIR reports it */
    uint8_t modem_news;    /* bits 3 to 0 of MSR: until it is read */
    struct ring received;  /* bytes for RBR: 1, or UART_FIFO with FCR_ENABLE */

    void *line;                 /* what the port is connected to */
    int (*receive)(void *line); /* the next byte; negative: none now */
    void (*transmit)(void *line, uint8_t byte);
};

/*
 * 8.2 The registers as the data sheet has them. THR is sent at once, so it is always empty. RBR
 * reads 0 if there is no byte. The receive FIFO's trigger level is 1 byte, whatever FCR asks for. A
 * change of FCR_ENABLE clears the FIFO, and so does FCR_CLEAR, even without FCR_ENABLE. CTS, DSR
 * and DCD are set, RI is not. In loopback mode a byte for THR goes to RBR instead, or is lost if
 * there is no room: THR is empty again in both cases. The modem's inputs are then the port's own
 * outputs. What bits 7 to 5 of MCR read as does not matter.
 */
uint64_t uart_read(void *device, uint64_t port, unsigned size);
void uart_write(void *device, uint64_t port, unsigned size, uint64_t value);

/*
 * 8.2 Takes bytes from the line while there is room and the guest is ready for them: RTS is set,
 * and loopback is off. So none is lost before the guest has opened the port. uart_read and
 * uart_write call it; the owner does when the line has something new.
 */
void uart_receive(struct uart *uart);

/* 8.2 The level of the interrupt line: some cause is pending and enabled. */
bool uart_interrupt(const struct uart *uart);

/* ------------------------------------------------------------------ devices.c: the interrupts */

/* One 8259A. All zeros: after reset. */
struct pic_chip {
    uint8_t base;                  /* ICW2: the vector of input 0 */
    uint8_t requested, in_service; /* IRR, ISR: bit N is input N */
    uint8_t masked;                /* IMR */
    uint8_t lines;                 /* the level of each input */
    unsigned next_icw;             /* 2 to 4: which ICW the data port takes next; 0: OCW1 */
    bool needs_icw4, automatic_eoi, read_in_service;
};

/*
 * A PC's two 8259As: IRQ 0 to 7 are the master's inputs, 8 to 15 the slave's. They are
 * edge-triggered and fully nested, input 0 first. Rotation is not modelled: an EOI with rotation is
 * an EOI. Polling, special masks, level triggering and single mode (SNGL: no ICW3) are not modelled
 * either: what asks for them has no effect.
 */
struct pic {
    struct pic_chip master, slave;
};

/*
 * 8.3 ICW1 to ICW4, OCW1 to OCW3 (non-specific and specific EOI), IRR, ISR, IMR. The odd port reads
 * as IMR at all times, so as 0 during the initialisation.
 */
uint64_t pic_read(void *device, uint64_t port, unsigned size);
void pic_write(void *device, uint64_t port, unsigned size, uint64_t value);

/* 8.3 The level of an IRQ's line. A rise is a request; a fall withdraws it while it waits. */
void pic_set_line(struct pic *pic, unsigned irq, bool level);

/* 8.3 The master's output: do the two ask the processor for an interrupt? */
bool pic_asserted(const struct pic *pic);

/*
 * 8.3 The processor takes the interrupt that the two ask for: the vector of the request, which is
 * in service from now on (not with automatic EOI). If they ask for none, it is spurious: the vector
 * of input 7, and nothing changes.
 */
uint8_t pic_acknowledge(struct pic *pic);

/* ------------------------------------------------------------------ devices.c: the timer */

#define PIT_NEVER UINT64_MAX

/* One counter of the 8254. All zeros: after reset. */
struct pit_counter {
    uint8_t mode;               /* 0, 2, 3 or 4 */
    uint8_t access;             /* ACCESS_LOW, ACCESS_HIGH or ACCESS_BOTH */
    bool read_high, write_high; /* ACCESS_BOTH: the next byte is the high one */
    uint8_t low;                /* ACCESS_BOTH: the low byte, before the high one is written */
    uint32_t count; /* 1 to 0x10000; 0: none since the control word, so it stands still */
    uint64_t start; /* when it began to count down from `count` */
    bool latched;
    uint16_t latch;
};

/* Times are in nanoseconds. All zeros: after reset. */
struct pit {
    uint64_t now; /* the owner sets it before each call */
    struct pit_counter counters[3];
    uint8_t gate;  /* GATE_BITS of PIT_GATE, as written */
    uint64_t next; /* while counter 0 counts: when its output rises next, or PIT_NEVER */
};

/*
 * 8.3 The ports of the counters and of the control register, and PIT_GATE: GATE_BITS as written,
 * and GATE_OUTPUT, counter 2's output. A new count starts at once. A closed gate stops counter 2:
 * it reads as its count, and its output is that before a count; opened, it starts from its count.
 * Between the bytes of a new count the old one may go on or stop. After a latch command all of the
 * latched value is read next; with ACCESS_BOTH its low byte comes first, whatever was read before.
 * A latch command for a counter that is latched changes nothing. No counter is used before its
 * first control word. A new count or control word may make counter 0 forget a rise that pit_expired
 * has not reported. Not modelled: modes 1 and 5, BCD, the read-back command, what an odd count
 * reads as in mode 3, and the low pulse of the output in modes 2 and 4, which is too short to be
 * seen: GATE_OUTPUT may leave it out.
 */
uint64_t pit_read(void *device, uint64_t port, unsigned size);
void pit_write(void *device, uint64_t port, unsigned size, uint64_t value);

/*
 * 8.3 Has counter 0's output risen since the last call? Several times count as one. A control word
 * never counts, even one of a mode whose output is high.
 */
bool pit_expired(struct pit *pit);

/* ------------------------------------------------------------------ linux.c: the platform */

#define LOG_BYTES 1000
#define PANIC     "Kernel panic - not syncing"

/*
 * The devices of a Linux guest, and what connects them to its vCPU. Only the vCPU's thread uses
 * them; the timer's thread uses vcpu, timer_fd and stopping.
 */
struct platform {
    struct vcpu *vcpu;
    struct bus bus;
    struct uart uart;
    struct pic pic;
    struct pit pit;

    int timer_fd;      /* expires at pit.next */
    uint64_t timer_at; /* what it is set to */
    pthread_t thread;  /* waits for it */
    atomic_bool stopping;

    char log[LOG_BYTES + 1]; /* 8.6: the end of what Linux has printed; it keeps a panic's start */
    size_t log_bytes;
    bool reset; /* 8.6: the guest has asked for it */
};

/*
 * 8.3 Puts the devices on the bus and connects the serial port: it receives from stage.getchar and
 * sends to stage.console_write. Starts the timer's thread, which raises TIMER_VECTOR on the vCPU
 * when the PIT's output rises, and sleeps until then. 0 or STATUS_NO_KVM; the VMM ends then, so
 * what was opened may stay open. When platform_stop returns, the thread has ended and the timer is
 * closed.
 */
int platform_start(struct platform *platform, struct vcpu *vcpu);
void platform_stop(struct platform *platform);

/*
 * 8.3 before_entry. The vectors of lab 4 are news for Linux's devices, not interrupts: TIMER_VECTOR
 * of the timer, KEYBOARD_VECTOR of the input. Clears both in vcpu->pending and has the devices
 * look: the serial port at least after KEYBOARD_VECTOR, the PIT at least after TIMER_VECTOR. Then,
 * if the guest can take an interrupt and the 8259s ask for one, acknowledges and injects it. While
 * they ask for more, request_interrupt_window is set. Takes vcpu->lock.
 */
enum step platform_deliver(struct vcpu *vcpu);

/*
 * 8.3 The handler of KVM_EXIT_HLT: interrupt_halt, again and again, until the 8259s ask for an
 * interrupt, or the VMM stops. With interrupts disabled interrupt_halt ends the vCPU, even if the
 * 8259s ask.
 */
enum step platform_halt(struct vcpu *vcpu);

/* ------------------------------------------------------------------ linux.c: the kernel */

/*
 * Physical memory of a Linux guest. The tables and the GDT are where lab 7 has them, the zero page
 * where its boot information is.
 */
#define ZERO_PAGE_OFFSET    BOOT_INFO_OFFSET
#define COMMAND_LINE_OFFSET 0x21000  /* up to LOAD_MIN */
#define LOW_RAM_END         0x9fc00  /* from here to KERNEL_OFFSET a PC has no RAM */
#define KERNEL_OFFSET       0x100000 /* the protected-mode kernel */
#define KERNEL_ENTRY_64     0x200    /* its 64-bit entry point, from there */
#define SELECTOR_BOOT_CODE  0x10
#define SELECTOR_BOOT_DATA  0x18

/*
 * The command line without --cmdline, and the TSC's frequency in kHz. Where an exit is slow, Linux
 * can't measure it with the PIT. If KVM does not know it either, it is 0, or LINUX_TSC is left out:
 * Linux then has to measure.
 */
#define LINUX_COMMAND_LINE                                                                         \
    "console=ttyS0 quiet reboot=k panic=-1 acpi=off noapic nolapic nokaslr no5lvl tsc=reliable "   \
    "nohz=off highres=off "                                                                        \
    "initcall_blacklist=pci_arch_init"
#define LINUX_TSC " tsc_early_khz=%d"

/*
 * 8.4 Checks that this is a bzImage that can be started here: boot flag and magic, version 2.12 or
 * later, a 64-bit entry point, which is in the file, loaded high; neither truncated nor too large
 * for `memory_bytes`, to where it unpacks itself included. Sets *header to the file's; what the
 * file's shorter header does not have is 0. To the checks it may be 0 or what the file has there.
 * NULL, or in words what is wrong; of several faults, any.
 */
const char *bzimage_check(const uint8_t *file, size_t file_bytes, size_t memory_bytes,
                          struct setup_header *header);

/* 8.4 The size of the real-mode part of the file, in bytes; the rest is for KERNEL_OFFSET. */
size_t bzimage_setup_bytes(const struct setup_header *header);

/*
 * 8.4 Where to put an initrd: page-aligned, as high as RAM and header->initrd_addr_max allow, and
 * above the kernel, both as it is loaded and where it unpacks itself to. 0: it does not fit.
 */
uint64_t initrd_place(const struct setup_header *header, size_t memory_bytes, size_t initrd_bytes);

/*
 * 8.4 Loads kernel, initrd (--initrd) and command line (--cmdline), and fills in the zero page: the
 * file's header, the loader's type 0xff, and an e820 map of two entries. 0, STATUS_GUEST_FILE, or
 * what file_read returns; STATUS_USAGE for a command line that is longer than header->cmdline_size,
 * or reaches LOAD_MIN.
 */
int linux_load(struct vcpu *vcpu, struct address_space *space);

/*
 * 8.5 Start state: long mode at the kernel's 64-bit entry point with lab 7's tables and a GDT with
 * the two boot selectors at GDT_OFFSET, which it writes; what else is in the GDT does not matter.
 * RSI is the zero page's address, the other general registers but RSP are 0. `sregs` comes in as
 * KVM returned it.
 */
void linux_state(struct address_space *space, struct kvm_sregs *sregs, struct kvm_regs *regs);

/*
 * 8.5 Shows the vCPU its CPUID, sets the MSR that Linux takes the fast string instructions from
 * (IA32_MISC_ENABLE, bit 0), builds the tables and puts the vCPU into its start state. 0 or
 * STATUS_NO_KVM.
 */
int linux_enter(struct vcpu *vcpu, struct address_space *space);

/*
 * 8.1, 8.6 The handler of KVM_EXIT_IO: hypercall_io for the two ports of abi.h, the bus for all
 * others. After KEYBOARD_RESET the vCPU ends: with status 0, or after a panic with STATUS_CRASHED
 * and the kernel's last lines.
 */
enum step linux_io(struct vcpu *vcpu);

/* 8.1 The handler of KVM_EXIT_MMIO. */
enum step linux_mmio(struct vcpu *vcpu);
