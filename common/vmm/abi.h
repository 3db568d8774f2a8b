/*
 * abi.h - what guest and VMM agree on. C includes this file; nasm gets the same constants from
 * build/abi.inc, which the Makefile writes from the #define lines below. So: plain numbers only.
 */
#pragma once

/* Hypercalls: the guest writes a call's number to HYPERCALL_PORT (8, 16 or 32 bits wide). */
#define HYPERCALL_PORT 0x500
#define HC_EXIT        0 /* BL = status, 0 to STATUS_GUEST_MAX */
#define HC_PUTCHAR     1 /* BL = character */
#define HC_GETCHAR     2 /* then read HYPERCALL_PORT: 0 to 255, or one of the two below */
#define HC_WRITE       3 /* DS:ESI = string, ECX = bytes (16-bit code: SI, CX): one exit for all */

#define GETCHAR_NOTHING -1 /* no character yet */
#define GETCHAR_END     -2 /* end of input: there will never be one again */

/*
 * `rep outsb` to STRING_PORT writes a run of characters with one instruction. How many of them come
 * in one exit is KVM's choice (kvm_run.io.count); today's KVM makes an exit of each.
 */
#define STRING_PORT 0x501

/* Exit statuses of the VMM. A guest's own status is 0 to STATUS_GUEST_MAX. */
#define STATUS_GUEST_MAX  63
#define STATUS_USAGE      64  /* wrong command line */
#define STATUS_GUEST_FILE 65  /* a guest file that can't be loaded */
#define STATUS_NO_KVM     69  /* no usable KVM, or the host lacks memory or threads for it */
#define STATUS_DIED       70  /* the guest died; a post-mortem tells how */
#define STATUS_OUTPUT     74  /* standard output can't be written */
#define STATUS_TODO       77  /* an exercise that isn't written yet was reached */
#define STATUS_SIGNAL     128 /* plus the signal that ended the VMM */

/* Interrupt vectors. The lower vector has the higher priority, like IRQ 0 and IRQ 1 on a PC. */
#define TIMER_VECTOR    0x20
#define KEYBOARD_VECTOR 0x21

/* Physical memory of real-mode guests: window N starts at N * WINDOW_BYTES. */
#define VCPUS_MAX    4
#define WINDOW_BYTES 0x40000

/*
 * Physical memory of paging guests. Offsets are into the guest's own part of RAM, which is all of
 * it for one guest, and SLOT_BYTES for each of several. The VMM fills GDT to TABLES_END before
 * the start; the whole part is mapped at 0 and again at HIGHER_HALF.
 */
#define PAGE_BYTES       0x1000
#define LARGE_PAGE_BYTES 0x400000
#define SLOT_BYTES       0x400000
#define HIGHER_HALF      0x80000000
#define GDT_OFFSET       0x1000 /* 6 descriptors, see the selectors below */
#define TSS_OFFSET       0x1800 /* 104 bytes, all zero: the guest fills esp0, ss0, I/O map base */
#define DIRECTORY_OFFSET 0x2000 /* the page directory: CR3 */
#define TABLES_OFFSET    0x3000 /* page tables, taken one after the other up to TABLES_END */
#define TABLES_END       0x20000
#define BOOT_INFO_OFFSET 0x20000 /* struct boot_info, for ELF guests; its address is in EBX */
#define LOAD_MIN         0x30000 /* lowest address an image may be loaded at */
#define LOAD_DEFAULT     0x100000

/* Selectors in the VMM's GDT for paging guests. */
#define SELECTOR_KERNEL_CODE 0x08
#define SELECTOR_KERNEL_DATA 0x10
#define SELECTOR_USER_CODE   0x1b
#define SELECTOR_USER_DATA   0x23
#define SELECTOR_TSS         0x28

/* struct boot_info's first word: the bytes "1KOS". */
#define BOOT_MAGIC 0x534f4b31
