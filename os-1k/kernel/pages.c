/* pages.c - free pages of memory. */

#include "kernel.h"

static void *returned;                  /* a freed page; it holds the address of the next one */
static uint8_t *untouched, *memory_end; /* never used yet, so that a start needs no loop */
uint32_t free_pages;

void pages_start(void *start, void *end)
{
    returned = NULL;
    untouched = start;
    memory_end = end;
    free_pages = (uint32_t)(memory_end - untouched) / PAGE_BYTES;
}

void *page_allocate(void)
{
    void *page = returned;

    if (page) {
        returned = *(void **)page;
    } else if (untouched < memory_end) {
        page = untouched;
        untouched += PAGE_BYTES;
    } else {
        return NULL;
    }
    free_pages--;
    return memset(page, 0, PAGE_BYTES);
}

void page_free(void *page)
{
    if (!page)
        return;
    *(void **)page = returned;
    returned = page;
    free_pages++;
}
