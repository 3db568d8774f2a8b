/*
 * kernel.h - the contract between the files of the kernel, in the order in which to read them.
 *
 * The kernel runs with interrupts off from a trap's first instruction to its last, so that no two
 * parts of it ever run at once; only the idle process lets interrupts in. All physical memory is
 * mapped at HIGHER_HALF in every address space, for the kernel alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "os.h"
#include "text.h"
#include "x86.h"

/* The VMM's exit status when the kernel itself ends the machine. */
#define STATUS_REFUSED 61 /* it can't start: boot information, memory or archive is wrong */
#define STATUS_PANIC   62 /* a fault inside the kernel */
#define STATUS_UNDONE  63 /* reached an exercise that is not written yet */

/* ------------------------------------------------------------------ boot.c */

extern uint32_t tick_ms; /* time between two timer interrupts */

static inline uint32_t physical_address(const void *address)
{
    return (uint32_t)address - HIGHER_HALF;
}

static inline void *physical_memory(uint32_t address)
{
    return (void *)(address + HIGHER_HALF);
}

/* ------------------------------------------------------------------ console.c */

void console_write(const char *text, size_t count);
void console_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The next character of the keyboard, GETCHAR_NOTHING or GETCHAR_END. */
int console_getchar(void);

/* Ends the virtual machine. */
_Noreturn void machine_exit(int status);

/* ------------------------------------------------------------------ panic.c */

struct trap_frame;

/* The kernel can't start, for a reason from outside; arguments as for console_print. */
#define refuse(...) (console_print("1K OS can't start: " __VA_ARGS__), refuse_end())
_Noreturn void refuse_end(void);

/* The kernel is broken. `frame`: the registers to show. */
#define panic(frame, ...) (console_print("\n1K OS panic: " __VA_ARGS__), panic_end(frame))
_Noreturn void panic_end(const struct trap_frame *frame);

/* An exercise that is not written yet. */
#define TODO(exercise) todo_reached(exercise, __FILE__, __LINE__)
_Noreturn void todo_reached(const char *exercise, const char *file, int line);

/* The kernel's functions by address, for the stack trace; written by symbols.awk. */
struct symbol {
    uint32_t address;
    const char *name;
};
extern const struct symbol symbols[];
extern const size_t symbol_count;

/* ------------------------------------------------------------------ descriptors.c */

/* Loads the kernel's own GDT, task state segment and interrupt descriptors. */
void descriptors_load(void);

/* Sets the stack that the processor uses for traps from a program: TSS.esp0. */
void trap_stack_set(uint32_t stack);

/* ------------------------------------------------------------------ trap_entries.asm, traps.c */

/* What a trap leaves on the kernel's stack, lowest address first. */
struct trap_frame {
    uint32_t gs, fs, es, ds;
    uint32_t edi, esi, ebp, unused_esp, ebx, edx, ecx, eax; /* by pusha */
    uint32_t vector, error_code;
    uint32_t eip, cs, eflags;
    uint32_t esp, ss; /* only for a trap from a program */
};

void trap_handle(struct trap_frame *frame);

/* Leaves a trap: ESP points at its trap_frame. Not to be called but returned to. */
void trap_return(void);

/* ------------------------------------------------------------------ pages.c */

/* Makes the memory from `start` to `end` free; both are multiples of PAGE_BYTES. */
void pages_start(void *start, void *end);

/* A page of zeros; NULL: no page is free. */
void *page_allocate(void);

/* Frees a page; NULL is allowed. */
void page_free(void *page);

extern uint32_t free_pages;

/* ------------------------------------------------------------------ memory.c */

#define KERNEL_FIRST_SLOT ((int)(HIGHER_HALF / LARGE_PAGE_BYTES)) /* of a directory */

extern uint32_t kernel_directory[TABLE_ENTRIES]; /* no program's pages; idle's */
extern uint32_t memory_bytes;

/* Maps `bytes` of physical memory for the kernel and leaves the VMM's directory. */
void memory_start(uint32_t bytes);

/* A new page directory that maps the kernel, or NULL. */
uint32_t *directory_create(void);

/* The address space that the processor uses from now on. */
void directory_load(const uint32_t *directory);

/* Maps a new page of zeros at `virt`; its kernel address, or NULL. */
uint8_t *user_page_add(uint32_t *directory, uint32_t virt, uint32_t flags);

/* The kernel address of the page that a program sees at `virt`, if it has all these rights. */
uint8_t *user_page(const uint32_t *directory, uint32_t virt, uint32_t flags);

/* Can the current program itself read (flags 0), or write (PAGE_WRITABLE), all these bytes? */
bool user_range(uint32_t address, uint32_t bytes, uint32_t flags);

/* Copies a string out of the current program; 0, ERROR_ADDRESS or ERROR_TOO_LONG. */
int user_string(char *to, uint32_t address, uint32_t size);

/* ------------------------------------------------------------------ archive.c */

#define FILES_MAX 64

struct file {
    const char *name; /* shorter than FILE_NAME_MAX */
    const uint8_t *data;
    uint32_t bytes;
};

extern struct file files[FILES_MAX];
extern uint32_t file_count;

/* Checks a ustar archive and fills `files` from it. NULL, or what is wrong with it in words. */
const char *archive_open(const uint8_t *archive, size_t bytes);

/* The file with this name, or NULL. */
const struct file *file_find(const char *name);

/* ------------------------------------------------------------------ program.c */

#define PROGRAM_MIN 0x00400000 /* where programs are linked to start */
#define PROGRAM_END 0x7f000000
#define STACK_TOP   0x7ffff000
#define STACK_PAGES 4

/* Loads an ELF32 program and its stack; 0 or an error. Sets where it starts and its ESP. */
int program_load(uint32_t *directory, const struct file *file, const char *argument,
                 uint32_t *entry, uint32_t *stack);

/* ------------------------------------------------------------------ processes.c */

#define PROCESSES_MAX 16
#define IDLE_PID      0
#define SHELL_PID     1

struct process {
    int pid, parent; /* idle's are both IDLE_PID */
    enum process_state state;
    char name[PROCESS_NAME_MAX];
    uint32_t *directory;   /* its address space */
    uint8_t *kernel_stack; /* a page: the stack of its traps; idle, never in ring 3, has none */
    uint32_t stack;        /* ESP on that stack, while another process runs */
    const void *waits_for; /* blocked: what process_wake must name */
    int foreground_pid;    /* the child that has the keyboard instead; 0: none */
    uint32_t wake_tick;    /* sleeping: until when */
    uint32_t ticks;        /* timer interrupts that found it running */
    int status;            /* ended: how */
};

extern struct process processes[PROCESSES_MAX]; /* processes[0] is idle */
extern struct process *current;
extern uint32_t ticks; /* timer interrupts so far */

/* The process with this pid, or NULL. */
struct process *process_find(int pid);

/* Starts a program of the archive; its pid or an error. */
int process_create(const char *name, const char *argument, int parent);

/* The process that has the keyboard: the shell, or the process it passed it to. */
struct process *process_foreground(void);

/* ------------------------------------------------------------------ lab 6: sched.c */

/*
 * 6.4 Prepares the kernel stack of a new process, so that the first context_switch to it enters
 * the program at `entry` in ring 3, with its ESP at `stack`, interrupts on, and 0 in the other
 * general registers. The kernel stack comes as a page of zeros; the trap_frame may be anywhere on
 * it.
 */
void process_frame(struct process *process, uint32_t entry, uint32_t stack);

/*
 * 6.4 Goes on with `next`, which is not `current`, where it once called context_switch; returns
 * when another process switches back to the one that called. TSS.esp0 becomes the end of the kernel
 * stack of `next`. The processor takes it only out of ring 3, so idle, which has no kernel stack,
 * may have any.
 */
void context_switch(struct process *next);

/*
 * 6.5 Gives the processor to the next ready process after `current` in the table, around its end,
 * `current` itself last; to idle only if none is ready. Returns at once where that is `current`.
 */
void schedule(void);

/* 6.5 Blocks `current` until process_wake(reason). */
void process_block(const void *reason);

/* 6.5 Makes every process ready that is blocked for `reason`. */
void process_wake(const void *reason);

/* 6.5 Puts `current` to rest until `count` timer interrupts have come: 1 to INT32_MAX of them. */
void process_sleep(uint32_t count);

/* 6.5 One timer interrupt: counts it, for `current` as well, and wakes processes that are due. */
void scheduler_tick(void);

/*
 * 6.6 Ends a process, `current` or another. The shell inherits its children, and is woken for
 * those that have ended. The parent is woken, with the parent's struct process as the reason: that
 * is what process_wait blocks for. The process keeps its memory until process_wait. The function
 * returns even for `current`; trap_handle then calls schedule.
 */
void process_end(struct process *process, int status);

/*
 * 6.6 Waits until the child `pid` (or WAIT_ANY) of `current` has ended, releases it, sets its
 * status, which is not NULL, and returns its pid; ERROR_NOT_FOUND: no such child. With WAIT_NO_HANG
 * among the flags: 0, not yet.
 */
int process_wait(int pid, uint32_t flags, int *status);

/*
 * 6.6 Releases whatever memory the process has, and its place in the table: of one that is
 * PROCESS_UNUSED, no other field matters. A page is not read or written any more once page_free has
 * it.
 */
void process_release(struct process *process);

/* ------------------------------------------------------------------ system_calls.c */

/* Serves the call in `frame`; its result. */
int32_t system_call(const struct trap_frame *frame);

/* ------------------------------------------------------------------ queue.c */

#define QUEUE_BYTES 256

/* Bytes waiting for a reader. All zeros: empty. */
struct queue {
    uint8_t bytes[QUEUE_BYTES];
    unsigned first; /* where the oldest is */
    unsigned count;
};

/* Appends a byte; false: the queue is full. */
bool queue_put(struct queue *queue, uint8_t byte);

/* Takes the oldest byte; false: the queue is empty. */
bool queue_take(struct queue *queue, uint8_t *byte);

/* ------------------------------------------------------------------ keyboard.c */

void keyboard_interrupt(void);

/* Waits for characters and takes up to `bytes` of them; 0: end of input. Flags as in os.h. */
int32_t keyboard_read(uint8_t *buffer, uint32_t bytes, uint32_t flags);

/*
 * To be called before `current` writes, with the flags of its CALL_WRITE: clears the line that
 * another process is editing, and wakes that process.
 */
void line_claim(uint32_t flags);
