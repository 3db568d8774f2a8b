/*
 * boot_info.h - what the VMM passes to an ELF guest: in guest RAM at BOOT_INFO_OFFSET; EBX, or RDI
 * of a 64-bit guest, holds that address at the entry point. All addresses are physical, all
 * sizes in bytes.
 */
#pragma once

#include <stdint.h>

struct boot_info {
    uint32_t magic;         /* BOOT_MAGIC */
    uint32_t size;          /* sizeof(struct boot_info) */
    uint32_t memory_bytes;  /* guest RAM, from address 0 */
    uint32_t archive_start; /* the --initrd file, on the next page after the kernel; 0: none */
    uint32_t archive_bytes;
    uint32_t tick_ms; /* time between two timer interrupts */
};
