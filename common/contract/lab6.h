/*
 * lab6.h - what boot.c of lab 6 provides: the kernel of an operating system, loaded and started.
 * Each of these functions may run on the threads of several vCPUs at a time.
 */
#pragma once

#include "boot_info.h"
#include "lab5.h"

/*
 * 6.1 Checks an ELF32 file and loads its PT_LOAD segments by physical address into `memory`
 * (guest-physical 0, `memory_bytes` long), the part beyond the file's bytes zeroed. A virtual
 * address is the physical one, or HIGHER_HALF above it. Sets the entry point (virtual) and the end
 * of the highest segment (physical). NULL, or what is wrong in words.
 */
const char *elf_load(const uint8_t *file, size_t file_bytes, uint8_t *memory, size_t memory_bytes,
                     uint32_t *entry, uint32_t *end);

/*
 * 6.2, 6.3 Loads the kernel, the archive of --initrd on the first page after it, and the boot
 * information at BOOT_INFO_OFFSET; enters the kernel with its address in EBX. The guest has a VM to
 * itself: its space is all of the RAM, at base 0. 0 or a status: STATUS_GUEST_FILE for a file that
 * can't be loaded.
 */
int boot_prepare(struct vcpu *vcpu);
