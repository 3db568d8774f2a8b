/*
 * abi.h - the interface between guest and VMM. C includes this file; nasm gets the same constants
 * from build/abi.inc, which the build generates from the #define lines below. So: plain numbers
 * only.
 */
#pragma once

/* Hypercalls: the guest writes a call's number to HYPERCALL_PORT (8, 16 or 32 bits wide). */
#define HYPERCALL_PORT 0x500
#define HC_EXIT        0 /* BL = status, 0 to STATUS_GUEST_MAX */
#define HC_PUTCHAR     1 /* BL = character */
#define HC_GETCHAR     2 /* then read HYPERCALL_PORT: 0 to 255, or one of the two below */
#define HC_WRITE       3 /* DS:ESI = string, ECX = bytes (16 bits: SI, CX; 64: RSI, RCX): one exit */

#define GETCHAR_NOTHING -1 /* no character yet */
#define GETCHAR_END     -2 /* end of input: no character will ever follow */

/*
 * `rep outsb` to STRING_PORT writes a run of characters with one instruction. KVM chooses how
 * many of them one exit carries (kvm_run.io.count); current KVM makes one exit for each.
 */
#define STRING_PORT 0x501

/* Exit statuses of the VMM. A guest's own status is 0 to STATUS_GUEST_MAX. */
#define STATUS_GUEST_MAX  63
#define STATUS_USAGE      64  /* wrong command line */
#define STATUS_GUEST_FILE 65  /* a guest file that can't be loaded */
#define STATUS_NO_KVM     69  /* no usable KVM, or the host lacks memory or threads for it */
#define STATUS_CRASHED    70  /* the guest crashed; a post-mortem says how */
#define STATUS_OUTPUT     74  /* standard output can't be written */
#define STATUS_TODO       77  /* an exercise that isn't written yet was reached */
#define STATUS_SIGNAL     128 /* plus the signal that ended the VMM */

/* Interrupt vectors. The lower vector has the higher priority, like IRQ 0 and IRQ 1 on a PC. */
#define TIMER_VECTOR    0x20 /* the tick, to every vCPU */
#define KEYBOARD_VECTOR 0x21 /* to vCPU 0, while there are characters to take */

/* Physical memory of real-mode guests: window N starts at N * WINDOW_BYTES. */
#define VCPUS_MAX    4       /* the largest number of guests */
#define WINDOW_BYTES 0x40000 /* 256 KB: a real-mode guest's part of RAM */

/*
 * Physical memory of paging guests. Offsets are into the guest's own part of RAM, which is all of
 * it for one guest, and SLOT_BYTES for each of several. The VMM fills GDT to TABLES_END before
 * the start; the whole part is mapped at 0 and again at HIGHER_HALF.
 */
#define PAGE_BYTES       0x1000     /* 4 KB */
#define LARGE_PAGE_BYTES 0x400000   /* 4 MB: what a directory entry with PAGE_LARGE maps */
#define SLOT_BYTES       0x400000   /* each guest's part of RAM, where several share a VM */
#define HIGHER_HALF      0x80000000 /* where the guest's memory is mapped a second time */
#define GDT_OFFSET       0x1000     /* 6 descriptors, see the selectors below */
#define TSS_OFFSET       0x1800     /* 104 zeros: the guest fills in esp0, ss0, I/O map base */
#define DIRECTORY_OFFSET 0x2000     /* the page directory: CR3 */
#define TABLES_OFFSET    0x3000     /* page tables, taken one after the other up to TABLES_END */
#define TABLES_END       0x20000    /* first byte past the page tables */
#define BOOT_INFO_OFFSET 0x20000    /* struct boot_info, for ELF guests; its address is in EBX */
#define LOAD_MIN         0x30000    /* lowest address an image may be loaded at */
#define LOAD_DEFAULT     0x100000   /* where a flat image is loaded without --load */

/* Selectors in the VMM's GDT for paging guests. */
#define SELECTOR_KERNEL_CODE 0x08 /* ring 0: loaded in CS */
#define SELECTOR_KERNEL_DATA 0x10 /* ring 0: loaded in DS, ES, FS, GS and SS */
#define SELECTOR_USER_CODE   0x1b /* ring 3 */
#define SELECTOR_USER_DATA   0x23 /* ring 3 */
#define SELECTOR_TSS         0x28 /* loaded in TR */

/*
 * Long mode (lab 7). A 64-bit guest's memory has the same layout; at DIRECTORY_OFFSET is the PML4,
 * and the tables of all lower levels are taken from TABLES_OFFSET on. The GDT has 7 entries of 8
 * bytes, because a TSS descriptor takes two; SYSCALL and SYSRET fix the order of the first four.
 */
#define MEDIUM_PAGE_BYTES       0x200000           /* 2 MB: what a PD entry with PAGE_LARGE maps */
#define HIGHER_HALF_64          0xffffffff80000000 /* where the memory is mapped a second time */
#define SELECTOR_LONG_USER_DATA 0x1b               /* ring 3; kernel code, data and TSS: as above */
#define SELECTOR_LONG_USER_CODE 0x23               /* ring 3, 64-bit */

/* CPUID leaf CPUID_SIGNATURE: the largest hypervisor leaf, and "Mini-KVM Lab" in EBX, ECX, EDX. */
#define CPUID_SIGNATURE     0x40000000
#define CPUID_SIGNATURE_EBX 0x696e694d
#define CPUID_SIGNATURE_ECX 0x4d564b2d
#define CPUID_SIGNATURE_EDX 0x62614c20

/* struct boot_info's first word: the bytes "1KOS". */
#define BOOT_MAGIC 0x534f4b31
