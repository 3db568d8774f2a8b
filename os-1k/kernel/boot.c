/* boot.c - starts the kernel, and becomes the idle process. */
#include "boot_info.h"
#include "kernel.h"

#define MEMORY_MAX 0x40000000 /* 1 GB */

extern uint8_t kernel_end[]; /* kernel.ld */

uint32_t tick_ms;

_Noreturn void kernel_main(uint32_t boot_info)
{
    descriptors_load();
    if (boot_info % sizeof(uint32_t) != 0 || boot_info >= LARGE_PAGE_BYTES)
        refuse("EBX is 0x%x, which can't be the address of the boot information", boot_info);
    const struct boot_info *info = physical_memory(boot_info);
    if (info->magic != BOOT_MAGIC || info->size != sizeof *info)
        refuse("the boot information at 0x%x begins with 0x%x and size %u, not 0x%x and %u",
               boot_info, info->magic, info->size, BOOT_MAGIC, (uint32_t)sizeof *info);
    if (info->tick_ms == 0)
        refuse("the boot information says that the timer ticks every 0 ms");
    tick_ms = info->tick_ms;

    /* The archive is the last thing in memory: what follows it is free. */
    uint32_t memory = info->memory_bytes < MEMORY_MAX ? info->memory_bytes : MEMORY_MAX;
    uint32_t start = info->archive_start, bytes = info->archive_bytes;
    if (start == 0)
        refuse("there is no archive; pass one to the VMM with --initrd");
    if (start % PAGE_BYTES != 0 || start < physical_address(kernel_end) || start > memory ||
        bytes > memory - start)
        refuse("the archive, %u bytes at 0x%x, is not on a page between 0x%x and 0x%x", bytes,
               start, physical_address(kernel_end), memory);
    memory_start(memory);
    uint32_t free_start = (start + bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1u);
    pages_start(physical_memory(free_start), physical_memory(memory & ~(PAGE_BYTES - 1u)));

    const char *wrong = archive_open(physical_memory(start), bytes);
    if (wrong)
        refuse("the archive is damaged: %s", wrong);
    console_print("1K OS: %u KB of memory, %u pages free, a tick every %u ms\n", memory / 1024,
                  free_pages, tick_ms);
    int pid = process_create("shell", "", IDLE_PID);
    if (pid != SHELL_PID)
        refuse("the archive has no shell that can be started (error %d)", pid);

    for (;;) { /* from here on this is the idle process */
        schedule();
        asm volatile("sti; hlt; cli" : : : "memory");
    }
}
