/* main.c - the program: reads the command line and the guests, and has the stage run them. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/core.h"
#include "debug/debug.h"
#include "given.h"

/* 32-bit tables have no room for a virtual address above 4 GB, and no bit for n. */
static bool needs_long_mode(const struct page_mapping *page)
{
    return page->virt > UINT32_MAX || (page->flags & PAGE_NX) != 0;
}

/*
 * Guests that share a VM share its RAM: a 32-bit ELF kernel takes all of it, and layouts don't mix.
 * Linux has the only set of devices. Only these kernels can use an archive, and only the other
 * guests with paging have pages to map.
 */
static int check_guest_mix(const struct vmm *vmm)
{
    bool elf = false, with_linux = false, paging = false, only_long_mode = true;

    for (int i = 0; i < vmm->guest_count; i++) {
        elf = elf || vmm->guests[i].kind == GUEST_ELF;
        with_linux = with_linux || vmm->guests[i].kind == GUEST_LINUX;
        paging =
            paging || (vmm->guests[i].kind != GUEST_REAL && vmm->guests[i].kind != GUEST_LINUX);
        only_long_mode = only_long_mode && vmm->guests[i].kind == GUEST_ELF64;
    }
    if (with_linux && vmm->guest_count > 1)
        return fail(STATUS_USAGE, "a Linux kernel must be the only guest");
    if (vmm->options.cmdline && !with_linux)
        return fail(STATUS_USAGE, "--cmdline is for a Linux kernel, but no guest is one");
    if (vmm->options.initrd && !elf && !with_linux)
        return fail(STATUS_USAGE,
                    "--initrd=%s is for a 32-bit ELF kernel or Linux, but no guest is one",
                    vmm->options.initrd);
    if (vmm->options.mapping_count && !paging)
        return fail(STATUS_USAGE,
                    "--map and --unmap are for guests with paging: an ELF kernel, or a flat image "
                    "with --mode=paging");
    for (size_t i = 0; i < vmm->options.mapping_count && !only_long_mode; i++) {
        if (needs_long_mode(&vmm->options.mappings[i]))
            return fail(STATUS_USAGE,
                        "--map and --unmap: an address above 4 GB and the flag n are for 64-bit "
                        "guests");
    }
    for (int i = 1; i < vmm->guest_count && !vmm->options.isolate; i++) {
        if (vmm->guests[i].kind == GUEST_ELF || vmm->guests[i].kind != vmm->guests[0].kind)
            return fail(STATUS_USAGE,
                        "%s and %s can't share one VM's memory: give each its own with --isolate",
                        vmm->guests[0].path, vmm->guests[i].path);
    }
    return 0;
}

/* Reads the guests' files. RAM is what the guests need by default, unless --mem gives it. */
static int guests_read(struct vmm *vmm)
{
    struct options *options = &vmm->options;
    const size_t max = options->ram_given ? options->ram_bytes : RAM_DEFAULT_LINUX;
    int status = 0;

    for (int i = 0; status == 0 && i < vmm->guest_count; i++) {
        status = guest_read(&vmm->guests[i], options->flat, max);
        if (!options->ram_given && vmm->guests[i].kind == GUEST_LINUX)
            options->ram_bytes = RAM_DEFAULT_LINUX;
    }
    return status;
}

/*
 * KVM would get the number of a closed descriptor 0 to 2, and input and output would go there.
 * Opened like this, input is at its end and output is an error.
 */
static void standard_files_open(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    static struct vmm vmm;

    standard_files_open();
    int status = options_parse(&vmm, argc, argv);

    where_start();
    if (status == 0)
        status = guests_read(&vmm);
    if (status == 0)
        status = check_guest_mix(&vmm);
    if (status == 0) {
        if (!vmm.options.trace) /* its lines are about what has just been printed */
            output_start();
        OBSERVE(start, &vmm);
        status = stage.run(&vmm);
        output_flush();
        OBSERVE(finish, status);
        stats_print(&vmm);
    }
    for (int i = 0; i < vmm.guest_count; i++)
        free(vmm.guests[i].image);
    return status;
}
