/*
 * x86.h - the processor's constants: control registers, flags, descriptors and page table entries.
 * The VMM and the 1K OS's kernel both include it, so it has nothing but numbers. "SDM" is vol. 3 of
 * the Intel Software Developer's Manual.
 */
#pragma once

/* Control registers: SDM 2.5 "Control Registers", EFER: 2.2.1. */
#define CR0_PE           0x00000001 /* protected mode */
#define CR0_EM           0x00000004 /* floating-point instructions fault */
#define CR0_ET           0x00000010 /* always 1 */
#define CR0_NE           0x00000020 /* Intel's VMX wants it */
#define CR0_WP           0x00010000 /* read-only pages are read-only for the kernel too */
#define CR0_NW           0x20000000 /* with CR0_CD: caches are off */
#define CR0_CD           0x40000000
#define CR0_PG           0x80000000u /* paging */
#define CR4_PSE          0x00000010  /* 4 MB pages */
#define CR4_PAE          0x00000020  /* page table entries of 8 bytes */
#define CR4_OSFXSR       0x00000200  /* SSE instructions don't fault */
#define CR4_OSXMMEXCPT   0x00000400  /* SSE exceptions are vector 19 */
#define EFER_SCE         0x00000001  /* SYSCALL and SYSRET are enabled */
#define EFER_LME         0x00000100  /* long mode is enabled */
#define EFER_LMA         0x00000400  /* long mode is active */
#define EFER_NXE         0x00000800  /* PAGE_NX counts; without it the bit is reserved */
#define APIC_BASE_ENABLE 0x00000800  /* in the APIC base: there is a local APIC */

/* EFLAGS and RFLAGS: SDM vol. 1, 3.4.3 "EFLAGS Register". */
#define FLAGS_ALWAYS_ONE 0x00000002 /* bit 1 reads as 1 at all times */
#define FLAGS_IF         0x00000200 /* interrupts are enabled */
#define FLAGS_VM         0x00020000 /* virtual-8086 mode */

/* After reset: SDM 10.1 "Initialization Overview". */
#define RESET_CS_BASE     0xffff0000u
#define RESET_CS_SELECTOR 0xf000
#define RESET_RIP         0xfff0
#define RESET_CR0         (CR0_CD | CR0_NW | CR0_ET)

/* Types of segments: SDM 3.4.5.1, 3.5. A load of the segment register sets bit 0 (accessed). */
#define TYPE_CODE     0xb /* execute, read, accessed */
#define TYPE_DATA     0x3 /* read, write, accessed */
#define TYPE_TSS_BUSY 0xb /* system descriptor (S = 0): 32-bit TSS in use by a processor */
#define TYPE_LDT      0x2 /* system descriptor (S = 0): the only type that LDTR may have */

#define DESCRIPTOR_LONG                                                                            \
    (1ull << 53) /* L, in a code segment's descriptor: 64-bit code; D/B is 0                       \
                  */

#define REAL_MODE_LIMIT 0xffff /* a real-mode segment reaches 64 KB */

/* Page directory and page table entries: SDM 4.3 "32-Bit Paging". */
#define PAGE_PRESENT  0x001
#define PAGE_WRITABLE 0x002
#define PAGE_USER     0x004
#define PAGE_LARGE    0x080 /* in a directory entry: maps 4 MB by itself; needs CR4.PSE */

#define TABLE_ENTRIES 1024        /* of a page directory and of a page table */
#define PAGE_FRAME    0xfffff000u /* of an entry: the page's or table's address */
#define LARGE_FRAME   0xffc00000u /* of a directory entry with PAGE_LARGE: the page's address */

/* Entries of the four levels in long mode: SDM 4.5 "4-Level Paging". */
#define PAGE_NX            (1ull << 63)          /* no instruction may be fetched; needs EFER.NXE */
#define LONG_TABLE_ENTRIES 512                   /* of each table */
#define LONG_FRAME         0x000ffffffffff000ull /* of an entry: the page's or table's address */

/* Bits of CPUID leaf 1: Intel's manual, vol. 2, CPUID. */
#define CPUID_1_ECX_X2APIC       0x00200000
#define CPUID_1_ECX_TSC_DEADLINE 0x01000000  /* a mode of the local APIC's timer */
#define CPUID_1_ECX_HYPERVISOR   0x80000000u /* 0 on every real processor */
#define CPUID_1_EDX_APIC         0x00000200

/* Exceptions: SDM 6.3.1, table 6-1; bits of a page fault's error code are those of an entry. */
#define VECTOR_COUNT 256
#define PAGE_FAULT   14
