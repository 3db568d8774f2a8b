/* memory.c - address spaces: page directories, page tables, and what a program may touch. */
#include "kernel.h"

uint32_t kernel_directory[TABLE_ENTRIES] __attribute__((aligned(PAGE_BYTES)));
uint32_t memory_bytes = LARGE_PAGE_BYTES; /* the least that the VMM maps */

void memory_start(uint32_t bytes)
{
    memory_bytes = bytes;
    for (uint32_t at = 0; at < bytes; at += LARGE_PAGE_BYTES)
        kernel_directory[KERNEL_FIRST_SLOT + at / LARGE_PAGE_BYTES] =
            at | PAGE_LARGE | PAGE_WRITABLE | PAGE_PRESENT;
    directory_load(kernel_directory);

    uint32_t cr0;
    asm volatile("mov %%cr0, %0" : "=r"(cr0));
    /* No floating point: programs would see each other's registers. */
    asm volatile("mov %0, %%cr0" : : "r"(cr0 | CR0_WP | CR0_EM));
}

uint32_t *directory_create(void)
{
    uint32_t *directory = page_allocate();

    if (directory)
        memcpy(directory, kernel_directory, PAGE_BYTES);
    return directory;
}

void directory_load(const uint32_t *directory)
{
    asm volatile("mov %0, %%cr3" : : "r"(physical_address(directory)) : "memory");
}

/* The table's entry for a program's page; NULL: there is no table for it. */
static uint32_t *table_entry(const uint32_t *directory, uint32_t virt)
{
    uint32_t slot = directory[virt / LARGE_PAGE_BYTES];

    if (virt >= HIGHER_HALF || (slot & PAGE_PRESENT) == 0)
        return NULL;
    uint32_t *table = physical_memory(slot & PAGE_FRAME);
    return &table[virt / PAGE_BYTES % TABLE_ENTRIES];
}

uint8_t *user_page_add(uint32_t *directory, uint32_t virt, uint32_t flags)
{
    uint32_t *slot = &directory[virt / LARGE_PAGE_BYTES];

    if ((*slot & PAGE_PRESENT) == 0) {
        uint32_t *table = page_allocate();
        if (!table)
            return NULL;
        *slot = physical_address(table) | PAGE_USER | PAGE_WRITABLE | PAGE_PRESENT;
    }
    uint8_t *page = page_allocate();
    if (page)
        *table_entry(directory, virt) = physical_address(page) | flags | PAGE_USER | PAGE_PRESENT;
    return page;
}

uint8_t *user_page(const uint32_t *directory, uint32_t virt, uint32_t flags)
{
    const uint32_t *entry = table_entry(directory, virt);
    uint32_t needed = flags | PAGE_USER | PAGE_PRESENT;

    if (!entry || (*entry & needed) != needed)
        return NULL;
    return physical_memory(*entry & PAGE_FRAME);
}

bool user_range(uint32_t address, uint32_t bytes, uint32_t flags)
{
    if (bytes > HIGHER_HALF - 1 || address > HIGHER_HALF - bytes)
        return false;
    for (uint32_t page = address & PAGE_FRAME; page < address + bytes; page += PAGE_BYTES)
        if (!user_page(current->directory, page, flags))
            return false;
    return true;
}

int user_string(char *to, uint32_t address, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        if (!user_range(address + i, 1, 0))
            return ERROR_ADDRESS;
        to[i] = *(const char *)(address + i);
        if (to[i] == '\0')
            return 0;
    }
    return ERROR_TOO_LONG;
}
