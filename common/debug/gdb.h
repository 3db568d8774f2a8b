/*
 * gdb.h - what the files of --gdb share: a server for gdb's remote protocol, through which gdb
 * debugs the guest. The protocol is in the GDB manual, appendix E "GDB Remote Serial Protocol".
 *
 *     gdb_packets.c      the connection, and packets on it
 *     gdb_commands.c     what each packet asks for
 *     gdb_run.c          stops, resumes and steps the vCPUs: the observer of --gdb
 *     gdb_registers.c    a vCPU's registers, and their description for gdb
 *     gdb_breakpoints.c  breakpoints, and the traps for steps into handlers
 *     gdb_watch.c        watchpoints
 *
 * All guests stop together and run together ("all-stop"). A vCPU is a thread for gdb, with its id
 * plus 1 as its number. gdb's addresses are linear: outside of 64-bit code, EIP and ESP as gdb sees
 * them are the segment's base plus the offset.
 */
#pragma once

#include "debug/debug.h"

#define PACKET_MAX 4096 /* bytes between a packet's $ and # */

/* Signals by gdb's numbers: include/gdb/signals.def of its source. */
#define GDB_SIGINT  2
#define GDB_SIGTRAP 5
#define GDB_SIGABRT 6
#define GDB_SIGSEGV 11

/* What gdb has asked of a vCPU. */
enum resume { HELD, STEPPING, RUNNING };

/* Why a vCPU has stopped by itself. */
struct stop {
    int signal;         /* GDB_...; 0: it has not */
    const char *reason; /* as stop replies name it, like "swbreak"; "": none */
    uint64_t address;   /* of "watch", "rwatch" and "awatch" */
    bool lasting;       /* stays to be reported if another vCPU's stop came first */
};

struct debugged {
    struct vcpu *vcpu; /* NULL: there is none with this id */
    pthread_t thread;  /* once it has been entered */
    bool inside;       /* may be executing the guest */
    bool ended;
    enum resume resume;
    struct stop stop;
    bool unfinished; /* KVM completes the last exit, like the register of IN, at the next entry */
    bool silent;     /* executes one instruction without traps, then runs on */
    bool trapped;    /* another vCPU's step has its traps where this one is */
    struct kvm_regs entered_regs; /* with these it was last entered */
    struct kvm_sregs entered_sregs;
    uint8_t opcode[2]; /* of the instruction that is stepped, without a prefix */
    bool marked;       /* R11 has a TF that is not the guest's: it steps SYSRET */
};

/* Everything below is guarded by this lock, and so is the connection. */
extern struct world {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a vCPU's `inside` or `ended`, or `running` */
    bool attached;          /* gdb is connected and has not detached */
    bool ending;            /* the VMM exits */
    bool running;           /* some vCPUs run, and gdb waits for the next stop */
    struct vmm *vmm;
    struct debugged vcpus[VCPUS_MAX];
    struct debugged *stepper; /* the vCPU whose traps are set; NULL: none */
    int selected;             /* the id of the vCPU that registers and addresses are meant for */
    bool console;             /* the guest has no terminal: gdb prints its output */
    int input;                /* where `monitor type` writes; -1: nowhere, or no longer */
} world;

/* ------------------------------------------------------------------ gdb_packets.c */

/* Prepares the place where gdb connects, as --gdb names it. 0 or a status. */
int connection_open(const char *place);

/* Waits for gdb. false: it can't connect any more. */
bool connection_accept(void);
void connection_close(void);

/* The next packet, of at most PACKET_MAX bytes and a 0, or one of these; without the lock. */
enum received { RECEIVED_PACKET, RECEIVED_INTERRUPT, RECEIVED_END };
enum received packet_receive(char *packet);

/* Sends a packet; the text must not contain the protocol's own # $ } *. */
void packet_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
void packet_send_text(const char *text, size_t count);

/* From now on packets are not acknowledged. */
void acknowledge_no_more(void);

/* Sends text for gdb to print, while it waits for a stop ("O") or for `monitor` ("O" as well). */
void packet_print(const char *text, size_t count);

/* Hexadecimal text: `count` bytes to `text`, and back; false: not hexadecimal digits. */
void hex_write(char *text, const void *bytes, size_t count);
bool hex_read(const char *text, void *bytes, size_t count);

/* ------------------------------------------------------------------ gdb_commands.c */

/* Serves one packet, with the lock. */
void packet_serve(char *packet);

/* ------------------------------------------------------------------ gdb_run.c */

/* Lets the vCPUs go as their `resume` says. */
void world_resume(void);

/* Stops all vCPUs; reports `self`'s stop, or NULL: an interrupt by gdb. */
void world_stop(struct debugged *self);

/* Sends why `self` has stopped, and selects it, as gdb expects. */
void stop_send(const struct debugged *self, const struct stop *stop);

/* gdb goes away and the guests run on. */
void world_detach(void);

/* ------------------------------------------------------------------ gdb_registers.c */

/*
 * The description of the registers, in XML, for the mode of a vCPU with these. All that follows is
 * as it says: gdb asks for it when it connects, and again when it finds that the mode is another.
 */
const char *registers_description(const struct kvm_sregs *sregs);

/* An address as gdb means it: outside of 64-bit code it has 32 bits. */
uint64_t registers_address(uint64_t linear);

#define REGISTER_MAX 16 /* bytes of the largest one */

/* Register `number`, or all of them, as hexadecimal text; false: there is none. */
bool register_read(const struct vcpu *vcpu, unsigned number, char *text);
bool registers_read(const struct vcpu *vcpu, char *text);
bool register_write(const struct vcpu *vcpu, unsigned number, const char *text);

/* ------------------------------------------------------------------ gdb_breakpoints.c */

/* Breakpoints by linear address; `type` is '0' or '1', as in gdb's packets. false: too many. */
bool breakpoint_add(char type, uint64_t linear);
void breakpoint_remove(char type, uint64_t linear);
void breakpoints_remove(void);

/*
 * Sets breakpoints before the vCPU enters the guest: all of them (`again`), or those that were on
 * pages that no vCPU had mapped.
 */
void breakpoints_set(const struct vcpu *vcpu, bool again);

/* Sets traps at the handlers to which the vCPU's next instruction may lead. false: KVM fails. */
bool handlers_trap(struct debugged *self, const struct kvm_vcpu_events *events);
void handlers_release(void);

/* Removes breakpoints and traps from RAM. */
void patches_remove(void);

/* KVM_EXIT_HLT: false: the HLT is the guest's own. */
bool halt_take(struct debugged *self);

/* A step has ended. TF, which KVM sets for it, is not the guest's: takes it out of saved flags. */
void stepped_flags_clean(struct debugged *self);

/* ------------------------------------------------------------------ gdb_watch.c */

enum watch_kind { WATCH_EXECUTE = 1, WATCH_WRITE, WATCH_READ, WATCH_ACCESS }; /* as in Z1 to Z4 */

/* false: impossible here. */
bool watch_add(enum watch_kind kind, const struct vcpu *vcpu, uint64_t linear, uint64_t count);
void watch_remove(enum watch_kind kind, uint64_t linear, uint64_t count);
void watches_remove(void);

/* Gives KVM the memory as the watchpoints need it; no vCPU is inside. */
void watch_pages_apply(void);

/* Sets the debug registers for KVM_SET_GUEST_DEBUG. */
void watch_registers(struct kvm_guest_debug *debug);

/* KVM_EXIT_DEBUG: the stop that a debug register has caused. false: none has. */
bool watch_debug_exit(struct debugged *self);

/* KVM_EXIT_MMIO: false: the access is not to a watched page. */
bool watch_memory_exit(struct debugged *self);

/* KVM_EXIT_INTERNAL_ERROR: whether KVM failed to fetch code from a watched page. */
bool watch_fetch_exit(struct debugged *self);
