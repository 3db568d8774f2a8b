/*
 * vm.c - lab 1's module function by function: what it asks of KVM and what it makes of the answers.
 */
#define _GNU_SOURCE /* strcasestr */
#include "../../unit.h"
#include "debug/entry_state.h"
#include "lab1.h"

#define APIC_PAGE      0xfee00000u
#define NO_MEMORY_PAGE 0xfffff000u /* the skeleton's NO_IDT_BASE */

/* The skeleton's IDENTITY_MAP_ADDRESS and TSS_ADDRESS: there is memory. */
#define INTEL_PAGES     0xfffbc000u
#define INTEL_PAGES_END 0xfffc0000u

/* What the scripted KVM_RUN does on its first turn; HLT comes after it. */
static PRIVATE struct kvm_run first_exit;
static PRIVATE int run_fault_error;
/* What else it leaves in kvm_run: the registers' state as KVM says it at each exit. */
static PRIVATE uint8_t run_if_flag, run_ready;

MODULE(int, kvm_open, (struct vm * vm), (vm), see_vm(vm))
MODULE(int, vm_create, (struct vm * vm, size_t ram_bytes), (vm, ram_bytes), see_vm(vm))
MODULE(int, vcpu_create, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu), SEE(vcpu->run))
MODULE_VOID(real_mode_state, (uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs),
            (base, sregs, regs), SEE(*sregs), SEE(*regs))
MODULE(int, vcpu_set_real_mode, (struct vcpu * vcpu, uint32_t base), (vcpu, base), see_vcpu(vcpu))
MODULE(int, vcpu_run, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu), GIVE(first_exit),
       GIVE(run_fault_error), GIVE(run_if_flag), GIVE(run_ready))
MODULE_VOID(vcpu_destroy, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu), SEE(vcpu->run))
MODULE_VOID(vm_destroy, (struct vm * vm), (vm), see_vm(vm))

/* A descriptor that is still open answers F_GETFD. */
THERE(bool, is_open, (int fd), (fd))
{
    return syscall(SYS_fcntl, fd, F_GETFD) >= 0;
}

THERE(bool, is_mapped, (void *address), (address))
{
    return syscall(SYS_msync, address, PAGE_BYTES, MS_ASYNC) == 0;
}

/* What is now there: nothing. */
THERE(int, descriptor_close, (int fd), (fd))
{
    syscall(SYS_close, fd);
    return -1;
}

/* Zeros, and none of its pages is taken. */
THERE(void *, memory_new, (size_t bytes), (bytes))
{
    return (void *)syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1L, 0L);
}

/* Mapped bytes, without those of heap and stack; how many of the mappings are a kvm_run. */
struct mappings {
    size_t bytes;
    unsigned kvm_runs;
};

THERE(struct mappings, mappings_read, (void), ())
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    struct mappings found = {0, 0};

    ck_assert_msg(maps, "the grader can't read /proc/self/maps");
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (!strstr(line, "[heap]") && !strstr(line, "[stack]") &&
            sscanf(line, "%lx-%lx", &start, &end) == 2)
            found.bytes += end - start;
        found.kvm_runs += strstr(line, "kvm-vcpu") ? 1 : 0;
    }
    fclose(maps);
    return found;
}

/* What is now there: nothing. */
THERE(void *, memory_drop, (void *address, size_t bytes), (address, bytes))
{
    if (address)
        syscall(SYS_munmap, address, bytes);
    return NULL;
}

THERE_VOID(descriptor_move, (int from, int to), (from, to))
{
    syscall(SYS_dup2, from, to);
    syscall(SYS_close, from);
}

THERE(int, descriptors_open, (void), ())
{
    int count = 0;

    for (int fd = 0; fd < FD_MAX; fd++)
        count += is_open(fd);
    return count;
}

/* What a function leaves alone: it may be anything. */
static void vary(struct vcpu *vcpu)
{
    vmm.guest_count = vmm.vm_count = 1 + (int)(unit_random() % VCPUS_MAX);
    vmm.options.ram_bytes = (1 + unit_random() % 4096) * (size_t)PAGE_BYTES;
    vcpu->id = (int)(unit_random() % VCPUS_MAX);
    vcpu->index = (int)(unit_random() % VCPUS_MAX);
    vcpu->status = (int)(unit_random() % 256);
}

/*
 * A function that met `what` must return STATUS_NO_KVM, and have said why between listen_*: of a
 * call that failed with `error`, unless 0, in strerror's words.
 */
static void check_no_kvm(const char *function, const char *what, int error, int status)
{
    ck_assert_msg(status == STATUS_NO_KVM, "%s, and %s returned %d instead of STATUS_NO_KVM (%d)",
                  what, function, status, STATUS_NO_KVM);
    ck_assert_msg(said[0] != '\0', "%s, and %s said nothing about it: fail() says it", what,
                  function);
    if (error != 0)
        check_reason(what, error);
    char bare[128];
    snprintf(bare, sizeof bare, "vmm: %s\n", strerror(error));
    ck_assert_msg(error == 0 || strcmp(said, bare) != 0,
                  "%s, and the message has only the reason: name the call that failed, too", what);
}

/* A call that did not fail left errno as it was: a wrong result is itself the reason. */
static void check_not_stale(const char *what, const struct falsified *device)
{
    ck_assert_msg(!device->stale || said_number((uint64_t)device->answer) ||
                      !strstr(said, strerror(device->stale)),
                  "%s, and the message has \"%s\" as the reason, which an earlier call had left in "
                  "errno: a call that does not fail sets no errno, and its result is the reason",
                  what, strerror(device->stale));
}

/* ------------------------------------------------------------------ 1.1 kvm_open */

START_TEST(opens)
{
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    vary(&vcpu);
    const int before = descriptors_open();
    ck_assert_msg(kvm_open(&vm) == 0, "kvm_open does not return 0 with a healthy /dev/kvm");
    ck_assert_msg(vm.kvm_fd >= 0, "kvm_open leaves vm->kvm_fd without a descriptor");
    ck_assert_msg(kernel(vm.kvm_fd, KVM_GET_API_VERSION, NULL) == KVM_API_VERSION,
                  "vm->kvm_fd is not a descriptor of /dev/kvm");
    ck_assert_msg(opened_writable, "/dev/kvm must be opened with O_RDWR, and without O_CREAT");
    ck_assert_msg(call_find(KVM_GET_API_VERSION), "KVM_GET_API_VERSION was not asked");
    ck_assert_msg(descriptors_open() - before == 1,
                  "kvm_open leaves %d descriptors open: only vm->kvm_fd is closed later",
                  descriptors_open() - before);

    descriptor_close(0);
    start_empty(&vm, &vcpu);
    ck_assert_msg(kvm_open(&vm) == 0 && vm.kvm_fd == 0,
                  "open answered 0, and kvm_open takes it for a failure: 0 is a valid descriptor");
}
END_TEST

/* What kvm_open returns with this /dev/kvm; if 0, it has opened it. */
static int open_status(struct falsified device)
{
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    vary(&vcpu);
    falsified = device;
    const int status = kvm_open(&vm);
    ck_assert_msg(status != 0 || (vm.kvm_fd >= 0 &&
                                  kernel(vm.kvm_fd, KVM_GET_API_VERSION, NULL) == KVM_API_VERSION),
                  "kvm_open returned 0, and vm->kvm_fd is not a descriptor of /dev/kvm");
    descriptor_close(vm.kvm_fd);
    falsified_calls = 0;
    return status;
}

static void check_opens(void)
{
    check_works("kvm_open", open_status((struct falsified){0}));
}

/*
 * Between the calls that fail come others that must work, so that a module that counts its calls
 * does not know which this is.
 */
static bool one_works(void)
{
    falsified = (struct falsified){0};
    return unit_random() % 2;
}

/* kvm_open must fail on such a /dev/kvm, with `error` as the reason, unless 0. */
static void check_refused(struct falsified device, int error, const char *what)
{
    struct vm vm;
    struct vcpu vcpu;

    if (one_works())
        check_opens();
    start_empty(&vm, &vcpu);
    vary(&vcpu);
    falsified = device;
    const int before = descriptors_open();
    listen_start();
    int status = kvm_open(&vm);
    listen_end();
    falsified = (struct falsified){0};
    check_no_kvm("kvm_open", what, error, status);
    check_call_named(what, device.open_error ? OF_OPEN : device.request);
    check_not_stale(what, &device);
    ck_assert_msg(descriptors_open() - before == (vm.kvm_fd >= 0),
                  "%s, and vm->kvm_fd is %d: a descriptor that stays open must be there for "
                  "vm_destroy to close, and one that was closed must not",
                  what, vm.kvm_fd);
    check_met("kvm_open", what);
    descriptor_close(vm.kvm_fd);
}

START_TEST(version)
{
    const int versions[] = {11, 13, 0, -1, (int)(unit_random() % 1000) + 14};

    check_opens();
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        char what[64];
        snprintf(what, sizeof what, "KVM_GET_API_VERSION answered %d", versions[i]);
        check_refused((struct falsified){.request = KVM_GET_API_VERSION,
                                         .answered = true,
                                         .answer = versions[i],
                                         .stale = versions[i] < 0 ? 0 : unit_error()},
                      0, what);
    }
}
END_TEST

START_TEST(capabilities)
{
    static const struct {
        unsigned long number;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
        {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    };

    check_opens();
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        struct falsified device = {.request = KVM_CHECK_EXTENSION,
                                   .argument = needed[i].number,
                                   .answered = true,
                                   .stale = unit_error()};
        char what[128];
        snprintf(what, sizeof what, "KVM_CHECK_EXTENSION answered 0 for %s", needed[i].name);
        check_refused(device, 0, what);
        ck_assert_msg(strstr(said, needed[i].name), "%s, and the message does not name it", what);
        for (size_t j = 0; j < sizeof needed / sizeof needed[0]; j++)
            ck_assert_msg(i == j || !strstr(said, needed[j].name),
                          "%s, and the message also names %s, which is there", what,
                          needed[j].name);

        device.answer = -1;
        device.stale = 0;
        snprintf(what, sizeof what, "KVM_CHECK_EXTENSION failed (-1) for %s", needed[i].name);
        check_refused(device, 0, what);

        device.answer = 2;
        ck_assert_msg(open_status(device) == 0,
                      "KVM_CHECK_EXTENSION answered 2 for %s, and kvm_open refuses it: any number "
                      "over 0 says that it is there",
                      needed[i].name);
    }
    ck_assert_msg(open_status((struct falsified){.request = KVM_CHECK_EXTENSION,
                                                 .argument = KVM_CAP_SYNC_REGS,
                                                 .answered = true}) == 0,
                  "KVM_CHECK_EXTENSION answered 0 for KVM_CAP_SYNC_REGS, and kvm_open refuses it: "
                  "that one is not in the table of what is needed");
}
END_TEST

START_TEST(no_device)
{
    check_opens();
    check_refused((struct falsified){.open_error = ENODEV}, ENODEV, "open of /dev/kvm failed");
    for (int i = 0; i < UNIT_ERRORS; i++)
        check_refused((struct falsified){.open_error = unit_errors[i]}, unit_errors[i],
                      "open of /dev/kvm failed");
}
END_TEST

/* ------------------------------------------------------------------ 1.2 vm_create */

/* An open /dev/kvm, without the module. */
static void start_open(struct vm *vm, struct vcpu *vcpu)
{
    start_empty(vm, vcpu);
    vary(vcpu);
    vm->kvm_fd = kvm_device();
    call_count = 0;
}

/* What this byte of RAM was before it was written. */
THERE(uint8_t, ram_take, (struct vm * vm, size_t at), (vm, at), GIVE(*vm))
{
    const uint8_t before = vm->ram[at];

    vm->ram[at] = 1;
    return before;
}

/* All of RAM, or the first MB and what is there at `step`s, is zero. */
THERE(bool, ram_zero, (struct vm * vm, size_t step), (vm, step), GIVE(*vm))
{
    for (size_t at = 0; at < vm->ram_bytes; at += at < 1 << 20 ? 1 : step)
        if (vm->ram[at] != 0)
            return false;
    return true;
}

/* A VM with this much RAM, as vm_create must make each. */
static void check_ram(struct vm *vm, size_t bytes)
{
    struct vcpu vcpu;
    unsigned regions = 0;

    start_open(vm, &vcpu);
    const int before = descriptors_open();
    ck_assert_msg(vm_create(vm, bytes) == 0, "vm_create does not return 0 for %zu bytes of RAM%s",
                  bytes, bytes < HIGHER_HALF ? "" : ": is a size kept in an int?");
    ck_assert_msg(vm->fd >= 0, "vm_create leaves vm->fd without a descriptor");
    ck_assert_msg(descriptors_open() - before == 1,
                  "vm_create leaves %d descriptors open: only vm->fd is closed later",
                  descriptors_open() - before);
    ck_assert_msg(vm->ram, "vm_create leaves vm->ram NULL");
    ck_assert_msg(vm->ram_bytes == bytes, "vm->ram_bytes is %zu, and %zu were asked for",
                  vm->ram_bytes, bytes);
    for (size_t i = 0; i < call_count; i++)
        regions += calls[i].request == KVM_SET_USER_MEMORY_REGION;
    ck_assert_msg(regions != 0, "KVM_SET_USER_MEMORY_REGION was not called");
    ck_assert_msg(regions == 1,
                  "KVM_SET_USER_MEMORY_REGION was called %u times: all RAM is one region", regions);
    const struct call *call = call_find(KVM_SET_USER_MEMORY_REGION);
    ck_assert_msg(call->region.guest_phys_addr == 0,
                  "RAM is at guest-physical address 0x%llx instead of 0",
                  call->region.guest_phys_addr);
    ck_assert_msg(call->region.flags == 0 && call->region.slot == 0,
                  "the memory region has slot 0x%x and flags 0x%x instead of 0 and 0: is every "
                  "field of the structure set?",
                  call->region.slot, call->region.flags);
    ck_assert_msg(call->region.memory_size == bytes,
                  "the memory region has %llu bytes instead of %zu%s", call->region.memory_size,
                  bytes, bytes < HIGHER_HALF ? "" : ": is a size kept in an int?");
    ck_assert_msg(call->region.userspace_addr == (uintptr_t)vm->ram,
                  "the memory region is not the memory at vm->ram");
}

START_TEST(maps_ram)
{
    struct vm vm, second;
    struct vcpu vcpu;
    const size_t bytes = (256 + unit_random() % 1024) * (size_t)PAGE_BYTES;

    check_ram(&vm, bytes);
    ck_assert_msg(ram_zero(&vm, 1) && ram_take(&vm, 0) == 0 && ram_take(&vm, bytes - 1) == 0,
                  "fresh RAM is not all zero");

    check_ram(&second, HIGHER_HALF); /* --mem=2G */
    ck_assert_msg(second.ram != vm.ram && ram_take(&second, 0) == 0,
                  "a second VM has the RAM of the first: with --isolate each has its own");
    check_ram(&vm, (4096 + unit_random() % 0x10000) * (size_t)PAGE_BYTES);
    ck_assert_msg(ram_zero(&vm, vm.ram_bytes / 256 + 1), "fresh RAM is not all zero");

    start_open(&vm, &vcpu);
    descriptor_close(0);
    ck_assert_msg(
        vm_create(&vm, bytes) == 0,
        "KVM_CREATE_VM answered 0, and vm_create takes it for a failure: 0 is a valid descriptor");
}
END_TEST

/* A page at which the guest must find no memory, as it has a use for the address. */
static void check_page_free(uint64_t page, uint64_t at, const char *what, const char *use)
{
    ck_assert_msg(at + PAGE_BYTES <= page || at >= page + PAGE_BYTES,
                  "%s has a page at 0x%llx: that address is %s", what, (unsigned long long)at, use);
}

static void check_addresses(int vm_count)
{
    struct vm vm;
    struct vcpu vcpu;

    start_open(&vm, &vcpu);
    vmm.vm_count = vm_count;
    const bool created = vm_create(&vm, 1 << 20) == 0;
    const struct call *tss = call_find(KVM_SET_TSS_ADDR);
    const struct call *identity = call_find(KVM_SET_IDENTITY_MAP_ADDR);
    ck_assert_msg(created || (tss && identity),
                  "vm_create failed at something else, before it set both addresses");
    ck_assert_msg(tss, "KVM_SET_TSS_ADDR was not called: Intel needs it before the first vCPU");
    ck_assert_msg(tss->result == 0, "KVM_SET_TSS_ADDR failed");
    ck_assert_msg(tss->argument % PAGE_BYTES == 0 && tss->argument >= HIGHER_HALF &&
                      tss->argument + 3 * PAGE_BYTES <= 1ul << 32,
                  "the TSS's three pages at 0x%lx are not between the end of RAM (2 GB) and 4 GB",
                  tss->argument);
    ck_assert_msg(identity, "KVM_SET_IDENTITY_MAP_ADDR was not called");
    ck_assert_msg(identity->result == 0, "KVM_SET_IDENTITY_MAP_ADDR failed");
    ck_assert_msg(identity->address % PAGE_BYTES == 0 && identity->address >= HIGHER_HALF &&
                      identity->address + PAGE_BYTES <= 1ul << 32,
                  "the identity map's page at 0x%llx is not between the end of RAM (2 GB) and 4 GB",
                  (unsigned long long)identity->address);
    for (uint64_t at = tss->argument; at < tss->argument + 3 * PAGE_BYTES; at += PAGE_BYTES) {
        check_page_free(APIC_PAGE, at, "the TSS", "the local APIC's");
        check_page_free(NO_MEMORY_PAGE, at, "the TSS", "NO_IDT_BASE, where no memory may be");
        check_page_free(identity->address, at, "the TSS", "the identity map's");
    }
    check_page_free(APIC_PAGE, identity->address, "the identity map", "the local APIC's");
    check_page_free(NO_MEMORY_PAGE, identity->address, "the identity map",
                    "NO_IDT_BASE, where no memory may be");
}

START_TEST(addresses)
{
    for (int count = 1; count <= VCPUS_MAX; count++)
        check_addresses(count);
}
END_TEST

/* What a creation that failed half-way leaves is in `vm`, where vm_destroy finds it; or is gone. */
static void check_vm_kept(const struct vm *vm, size_t bytes, const char *what)
{
    const struct call *create = call_find(KVM_CREATE_VM);
    const struct call *region = call_find(KVM_SET_USER_MEMORY_REGION);

    ck_assert_msg(vm->ram != MAP_FAILED,
                  "mmap failed: it returned MAP_FAILED, not NULL, and vm->ram is set to that");
    if (create && create->result >= 0) {
        const int fd = (int)create->result;
        ck_assert_msg(is_open(fd) == (vm->fd == fd),
                      "%s, and vm->fd is %d: the VM's descriptor, %d, must be there as soon as you "
                      "have it, for vm_destroy to close",
                      what, vm->fd, fd);
    }
    if (region && region->region.userspace_addr) {
        void *ram = (void *)(uintptr_t)region->region.userspace_addr;
        ck_assert_msg(is_mapped(ram) == (vm->ram == ram),
                      "%s, and vm->ram is %p: the RAM, at %p, must be there as soon as you have "
                      "it, for vm_destroy to unmap",
                      what, (void *)vm->ram, ram);
    }
    ck_assert_msg(!vm->ram || vm->ram_bytes == bytes,
                  "%s, and vm->ram_bytes is %zu: vm_destroy can't unmap the RAM's %zu bytes", what,
                  vm->ram_bytes, bytes);
}

/* Closes and unmaps what is left of a VM, without the module. */
static void vm_drop(struct vm *vm)
{
    descriptor_close(vm->kvm_fd);
    descriptor_close(vm->fd);
    memory_drop(vm->ram, vm->ram_bytes);
}

static void check_creates_vm(void)
{
    struct vm vm;
    struct vcpu vcpu;

    start_open(&vm, &vcpu);
    check_works("vm_create", vm_create(&vm, 1 << 20));
    const struct call *create = call_find(KVM_CREATE_VM);
    const struct call *region = call_find(KVM_SET_USER_MEMORY_REGION);
    ck_assert_msg(create && create->result == vm.fd && is_open(vm.fd),
                  "vm_create returned 0, and vm->fd is not a descriptor of a VM");
    ck_assert_msg(region && vm.ram, "vm_create returned 0, and the VM has no RAM at vm->ram");
    falsified_calls = 0;
    vm_drop(&vm);
}

/* A device where this call fails. */
static struct falsified failing(unsigned long request, int error)
{
    if (request == OF_MMAP)
        return (struct falsified){.mmap_error = error};
    return (struct falsified){.request = request, .error = error};
}

START_TEST(vm_failures)
{
    static const struct {
        unsigned long request;
        const char *name;
    } failures[] = {
        {KVM_CREATE_VM, "KVM_CREATE_VM failed"},
        {KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR failed"},
        {KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR failed"},
        {KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION failed"},
        {OF_MMAP, "mmap of the guest's RAM failed"},
    };
    enum { FAILURES = sizeof failures / sizeof failures[0] };
    struct vm vm;
    struct vcpu vcpu;
    int order[FAILURES * UNIT_ERRORS];

    shuffle(order, FAILURES * UNIT_ERRORS);
    check_creates_vm();
    for (int i = 0; i < FAILURES * UNIT_ERRORS; i++) {
        const unsigned long request = failures[order[i] / UNIT_ERRORS].request;
        const char *what = failures[order[i] / UNIT_ERRORS].name;
        const int error = unit_errors[order[i] % UNIT_ERRORS];
        const size_t bytes = (1 + unit_random() % 1024) * (size_t)PAGE_BYTES;
        if (one_works() && i % 8 == 0)
            check_creates_vm();
        start_open(&vm, &vcpu);
        falsified = failing(request, error);
        const int before = descriptors_open();
        listen_start();
        int status = vm_create(&vm, bytes);
        listen_end();
        falsified = (struct falsified){0};
        check_vm_kept(&vm, bytes, what);
        check_no_kvm("vm_create", what, error, status);
        check_call_named(what, request);
        ck_assert_msg(descriptors_open() - before == (vm.fd >= 0),
                      "%s, and vm_create leaves %d descriptors open: vm_destroy closes only vm->fd",
                      what, descriptors_open() - before);
        check_met("vm_create", what);
        vm_drop(&vm);
    }
}
END_TEST

/* ------------------------------------------------------------------ 1.3 vcpu_create */

/* The errno of a KVM_RUN that is not to enter the guest. */
THERE(int, run_at_once, (struct vcpu * vcpu), (vcpu), GIVE(*vcpu))
{
    vcpu->run->immediate_exit = 1;
    return kernel(vcpu->fd, KVM_RUN, NULL) < 0 ? errno : 0;
}

/* A vCPU with this number, whose kvm_run has a size that this KVM says. */
static void check_creates(struct vm *vm, struct vcpu *vcpu, int index)
{
    const size_t bytes = (1 + unit_random() % 8) * (size_t)PAGE_BYTES;

    vcpu_init(vcpu, 0, 0, vm, &guest);
    vary(vcpu);
    vcpu->index = index;
    falsified = (struct falsified){
        .request = KVM_GET_VCPU_MMAP_SIZE, .answered = true, .answer = (int)bytes};
    call_count = 0;
    const int before = descriptors_open();
    ck_assert_msg(vcpu_create(vcpu) == 0, "vcpu_create does not return 0");
    falsified = (struct falsified){0};
    ck_assert_msg(vcpu->fd >= 0, "vcpu_create leaves vcpu->fd without a descriptor");
    ck_assert_msg(descriptors_open() - before == 1,
                  "vcpu_create leaves %d descriptors open: only vcpu->fd is closed later",
                  descriptors_open() - before);
    const struct call *size = call_find(KVM_GET_VCPU_MMAP_SIZE);
    ck_assert_msg(size && size->fd == vm->kvm_fd,
                  "KVM_GET_VCPU_MMAP_SIZE was not asked of /dev/kvm (vm->kvm_fd), which alone "
                  "answers it");
    const struct call *call = call_find(KVM_CREATE_VCPU);
    ck_assert_msg(call && call->argument == (unsigned long)index,
                  "the vCPU was not created with the number vcpu->index");
    ck_assert_msg(vcpu->run, "vcpu_create leaves vcpu->run NULL: kvm_run is not mapped");
    ck_assert_msg(vcpu->run_bytes == bytes,
                  "vcpu->run_bytes is %zu, and KVM_GET_VCPU_MMAP_SIZE answers %zu", vcpu->run_bytes,
                  bytes);
    ck_assert_msg(run_at_once(vcpu) == EINTR,
                  "vcpu->run is not what KVM reads: the mapping must be MAP_SHARED, of vcpu->fd, "
                  "at offset 0");
}

START_TEST(creates_vcpu)
{
    struct vm vm;
    struct vcpu vcpu;
    int order[VCPUS_MAX];

    start_vm(&vm, &vcpu);
    shuffle(order, VCPUS_MAX);
    check_creates(&vm, &vcpu, order[0]);
    check_creates(&vm, &vcpu, order[1]);

    start_vm(&vm, &vcpu);
    descriptor_close(0);
    ck_assert_msg(vcpu_create(&vcpu) == 0, "KVM_CREATE_VCPU answered 0, and vcpu_create takes it "
                                           "for a failure: 0 is a valid descriptor");
}
END_TEST

THERE(uint64_t, registers_asked, (const struct vcpu *vcpu), (vcpu), GIVE(*vcpu))
{
    return vcpu->run->kvm_valid_regs;
}

/*
 * Whatever KVM offers to hand over with each exit: asked for may be part of it, and no more. -1 is
 * what the wrong descriptor answers.
 */
START_TEST(synced)
{
    static const int offers[] = {-1, 0, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS,
                                 KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS};
    struct vm vm;
    struct vcpu vcpu;

    for (size_t i = 0; i < sizeof offers / sizeof offers[0]; i++) {
        start_vm(&vm, &vcpu);
        vary(&vcpu);
        falsified = (struct falsified){.request = KVM_CHECK_EXTENSION,
                                       .argument = KVM_CAP_SYNC_REGS,
                                       .answered = true,
                                       .answer = offers[i]};
        ck_assert_msg(vcpu_create(&vcpu) == 0, "vcpu_create does not return 0");
        const uint64_t offered = offers[i] < 0 ? 0 : (uint64_t)offers[i];
        const uint64_t asked = registers_asked(&vcpu);
        ck_assert_msg((asked & ~offered) == 0,
                      "KVM_CAP_SYNC_REGS answered %d, and kvm_valid_regs is 0x%llx: KVM_RUN fails "
                      "where registers are asked for that KVM can't hand over",
                      offers[i], (unsigned long long)asked);
    }
}
END_TEST

/* As many entries as a server's processor has, and some more. (Linux has room for 256.) */
enum { CPUID_OF_LARGE_PROCESSORS = 128 };

/* The entry without an APIC id: a VMM may put the vCPU's own number there. */
static struct kvm_cpuid_entry2 cpuid_without_apic(struct kvm_cpuid_entry2 entry)
{
    if (entry.function == 1)
        entry.ebx &= 0xffffff;
    else if (entry.function == 0xb || entry.function == 0x1f)
        entry.edx = 0;
    else if (entry.function == 0x8000001e)
        entry.eax = 0;
    return entry;
}

static bool cpuid_is_set(const struct kvm_cpuid_entry2 *supported)
{
    const struct kvm_cpuid_entry2 entry = cpuid_without_apic(*supported);

    for (uint32_t i = 0; i < cpuid_set.count; i++) {
        const struct kvm_cpuid_entry2 set = cpuid_without_apic(cpuid_set.entries[i]);
        if (set.function == entry.function && set.index == entry.index &&
            set.flags == entry.flags && set.eax == entry.eax && set.ebx == entry.ebx &&
            set.ecx == entry.ecx && set.edx == entry.edx)
            return true;
    }
    return false;
}

/* The module has given the vCPU what KVM supports, which was asked for this vCPU. */
static void check_cpuid_set(const char *what)
{
    for (uint32_t i = 0; i < cpuid_supported.count; i++)
        ck_assert_msg(cpuid_is_set(&cpuid_supported.entries[i]),
                      "%sKVM_SET_CPUID2 was called without the entry for leaf 0x%x, index %u, as "
                      "KVM_GET_SUPPORTED_CPUID gave it: pass on what KVM supports, unchanged",
                      what, cpuid_supported.entries[i].function, cpuid_supported.entries[i].index);
}

static struct vm other_vm;
static struct vcpu other;

/* The other vCPU's thread. */
BOTH static void other_is_created(void)
{
    vcpu_create(&other);
}

START_TEST(cpuid)
{
    struct vm vm;
    struct vcpu vcpu;

    start_vm(&vm, &vcpu);
    for (int index = VCPUS_MAX - 1; index >= 0; index--) {
        vcpu_init(&vcpu, 0, 0, &vm, &guest);
        vary(&vcpu);
        vcpu.index = index;
        cpuid_wanted = CPUID_OF_LARGE_PROCESSORS;
        cpuid_varied = index % 2;
        cpuid_supported.count = 0;
        call_count = 0;
        const int status = vcpu_create(&vcpu);
        ck_assert_msg(
            !cpuid_too_small,
            "the table for KVM_GET_SUPPORTED_CPUID has no room for nent entries: KVM writes past "
            "its end");
        const struct call *asked = call_find(KVM_GET_SUPPORTED_CPUID);
        ck_assert_msg(!asked || asked->result == 0,
                      "KVM_GET_SUPPORTED_CPUID fails with E2BIG, as it does on a processor with "
                      "more entries than the table has room for: give it %d or more",
                      CPUID_OF_LARGE_PROCESSORS);
        ck_assert_msg(status == 0, "vcpu_create does not return 0");
        const struct call *call = call_find(KVM_SET_CPUID2);
        ck_assert_msg(call,
                      "KVM_SET_CPUID2 was not called for vCPU %d: the guest's CPUID answers zeros",
                      index);
        ck_assert_msg(call->result == 0, "KVM_SET_CPUID2 failed");
        ck_assert_msg(cpuid_supported.count > 0, "KVM_GET_SUPPORTED_CPUID was not called");
        ck_assert_msg(cpuid_set.count >= cpuid_supported.count,
                      "KVM_SET_CPUID2 was called with %u entries, and KVM supports %u",
                      cpuid_set.count, cpuid_supported.count);
        check_cpuid_set("");
    }

    cpuid_varied = true;
    static const unsigned long moments[] = {AFTER(KVM_CREATE_VCPU), AFTER(KVM_GET_SUPPORTED_CPUID)};
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        start_vm(&other_vm, &other);
        start_vm(&vm, &vcpu);
        meanwhile = other_is_created;
        meanwhile_at = moments[i];
        ck_assert_msg(vcpu_create(&vcpu) == 0, "vcpu_create does not return 0");
        check_cpuid_set("while vcpu_create was at work, another vCPU's thread called it, and ");
    }
}
END_TEST

THERE(size_t, heap_used, (void), ())
{
    return mallinfo2().uordblks;
}

static int create_failing(struct vcpu *vcpu, struct falsified device)
{
    falsified = device;
    listen_start();
    const int status = vcpu_create(vcpu);
    listen_end();
    falsified = (struct falsified){0};
    return status;
}

/* The calls of vcpu_create that can fail. */
static const struct {
    unsigned long request;
    const char *name;
} vcpu_calls[] = {
    {KVM_CREATE_VCPU, "KVM_CREATE_VCPU failed"},
    {KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE failed"},
    {OF_MMAP, "mmap of kvm_run failed"},
    {KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID failed"},
    {KVM_SET_CPUID2, "KVM_SET_CPUID2 failed"},
};

enum { VCPU_CALLS = sizeof vcpu_calls / sizeof vcpu_calls[0] };

/* Closes and unmaps what is left of a vCPU, without the module. */
static void vcpu_drop(struct vcpu *vcpu)
{
    descriptor_close(vcpu->fd);
    memory_drop(vcpu->run, vcpu->run_bytes);
}

/* Memory that was freed counts as used while malloc keeps it at hand: that grows at first only. */
START_TEST(cpuid_freed)
{
    enum { WARM_UP = 8, ROUNDS = 3 };
    struct vm vm;
    struct vcpu vcpu;

    cpuid_wanted = CPUID_OF_LARGE_PROCESSORS; /* a table that grows does so */
    for (int i = 0; i <= VCPU_CALLS; i++) {
        size_t before = 0;
        for (int round = 0; round < WARM_UP + ROUNDS; round++) {
            if (round % VCPUS_MAX == 0)
                start_vm(&vm, &vcpu);
            if (round == WARM_UP)
                before = heap_used();
            vcpu_init(&vcpu, 0, round % VCPUS_MAX, &vm, &guest);
            create_failing(&vcpu, i < VCPU_CALLS ? failing(vcpu_calls[i].request, EIO)
                                                 : (struct falsified){0});
            vcpu_drop(&vcpu);
        }
        const size_t kept = heap_used() - before;
        ck_assert_msg(kept < ROUNDS * sizeof(struct kvm_cpuid2),
                      "after %d vCPUs more (%s) %zu bytes more are allocated: the CPUID table is "
                      "not freed on every way out",
                      ROUNDS, i < VCPU_CALLS ? vcpu_calls[i].name : "all was well", kept);
    }
}
END_TEST

/* As check_vm_kept; `mapped` of kvm_run were there before. */
static void check_vcpu_kept(const struct vcpu *vcpu, unsigned mapped, const char *what)
{
    const struct call *create = call_find(KVM_CREATE_VCPU);

    if (create && create->result >= 0) {
        const int fd = (int)create->result;
        ck_assert_msg(is_open(fd) == (vcpu->fd == fd),
                      "%s, and vcpu->fd is %d: the vCPU's descriptor, %d, must be there as soon as "
                      "you have it, for vcpu_destroy to close",
                      what, vcpu->fd, fd);
    }
    ck_assert_msg(vcpu->run != MAP_FAILED,
                  "mmap failed: it returned MAP_FAILED, not NULL, and vcpu->run is set to "
                  "that");
    ck_assert_msg(mappings_read().kvm_runs - mapped == (vcpu->run ? 1 : 0),
                  "%s, and vcpu->run is %p: kvm_run must be there as soon as you have it, for "
                  "vcpu_destroy to unmap",
                  what, (void *)vcpu->run);
    ck_assert_msg(!vcpu->run || vcpu->run_bytes > 0,
                  "%s, and vcpu->run_bytes is 0: vcpu_destroy can't unmap kvm_run", what);
}

static void check_creates_vcpu(struct vm *vm)
{
    struct vcpu vcpu;

    start_vm(vm, &vcpu);
    vary(&vcpu);
    call_count = 0;
    const unsigned mapped = mappings_read().kvm_runs;
    check_works("vcpu_create", vcpu_create(&vcpu));
    const struct call *create = call_find(KVM_CREATE_VCPU);
    ck_assert_msg(create && create->result == vcpu.fd && is_open(vcpu.fd),
                  "vcpu_create returned 0, and vcpu->fd is not a descriptor of a vCPU");
    ck_assert_msg(vcpu.run && mappings_read().kvm_runs - mapped == 1,
                  "vcpu_create returned 0, and no kvm_run is mapped at vcpu->run");
    vcpu_drop(&vcpu);
    falsified_calls = 0;
}

/* vcpu_create must fail on such a device, with `error` as the reason, unless 0. */
static void check_vcpu_failure(struct vm *vm, int index, struct falsified device, int error,
                               const char *what)
{
    struct vcpu vcpu;

    vcpu_init(&vcpu, 0, 0, vm, &guest);
    vary(&vcpu);
    vcpu.index = index;
    call_count = 0;
    const unsigned mapped = mappings_read().kvm_runs;
    const int before = descriptors_open();
    const int status = create_failing(&vcpu, device);
    check_vcpu_kept(&vcpu, mapped, what);
    check_no_kvm("vcpu_create", what, error, status);
    check_call_named(what, device.request);
    check_not_stale(what, &device);
    ck_assert_msg(descriptors_open() - before == (vcpu.fd >= 0),
                  "%s, and vcpu_create leaves %d descriptors open: vcpu_destroy closes only "
                  "vcpu->fd",
                  what, descriptors_open() - before);
    check_met("vcpu_create", what);
    vcpu_drop(&vcpu);
}

/* KVM_GET_VCPU_MMAP_SIZE failed: -1 may also be reported as too few bytes. */
static void check_size_failure(struct vm *vm, int index, int error)
{
    const char *what = "KVM_GET_VCPU_MMAP_SIZE failed";

    check_vcpu_failure(vm, index, failing(KVM_GET_VCPU_MMAP_SIZE, error), 0, what);
    ck_assert_msg(strstr(said, strerror(error)) || strstr(said, "-1"),
                  "%s, and the message contains neither the reason (%s) nor the result, -1: check "
                  "that result as a signed number, before mmap takes it for a size",
                  what, strerror(error));
}

/* So many bytes are fewer than struct kvm_run has. */
static void check_small_run(struct vm *vm, int index, int bytes)
{
    const struct falsified device = {.request = KVM_GET_VCPU_MMAP_SIZE,
                                     .answered = true,
                                     .answer = bytes,
                                     .stale = unit_error()};
    char what[128];

    snprintf(what, sizeof what,
             "KVM_GET_VCPU_MMAP_SIZE answered %d, less than struct kvm_run (%zu)", bytes,
             sizeof(struct kvm_run));
    check_vcpu_failure(vm, index, device, 0, what);
    ck_assert_msg(said_number((uint64_t)bytes), "%s, and the message lacks that number", what);
}

/* The CPUID table is the only memory that vcpu_create may ask for; it may do without. */
static void check_no_memory(void)
{
    struct vm vm;
    struct vcpu vcpu;

    start_vm(&vm, &vcpu);
    vary(&vcpu);
    call_count = 0;
    const unsigned mapped = mappings_read().kvm_runs;
    memory_refused = 0;
    no_memory = true;
    const int status = create_failing(&vcpu, (struct falsified){0});
    no_memory = false;
    check_vcpu_kept(&vcpu, mapped, "the host has no memory");
    check_memory_refused("vcpu_create", status);
    vcpu_drop(&vcpu);
    vm_drop(&vm);
}

START_TEST(vcpu_failures)
{
    const int small[] = {0, 1, (int)(2 + unit_random() % (sizeof(struct kvm_run) - 2)),
                         (int)sizeof(struct kvm_run) - 1};
    enum { ERRORS = VCPU_CALLS * UNIT_ERRORS, FAILURES = ERRORS + sizeof small / sizeof small[0] };
    struct vm vm;
    struct vcpu vcpu;
    int order[FAILURES];

    check_no_memory();
    shuffle(order, FAILURES);
    for (int i = 0; i < FAILURES; i++) {
        if (i % VCPUS_MAX == 0) {
            if (i > 0)
                vm_drop(&vm);
            if (i == 0 || unit_random() % 2) {
                check_creates_vcpu(&vm);
                vm_drop(&vm);
            }
            start_vm(&vm, &vcpu);
        }
        if (order[i] >= ERRORS) {
            check_small_run(&vm, i % VCPUS_MAX, small[order[i] - ERRORS]);
            continue;
        }
        const unsigned long request = vcpu_calls[order[i] / UNIT_ERRORS].request;
        const int error = unit_errors[order[i] % UNIT_ERRORS];
        if (request == KVM_GET_VCPU_MMAP_SIZE)
            check_size_failure(&vm, i % VCPUS_MAX, error);
        else
            check_vcpu_failure(&vm, i % VCPUS_MAX, failing(request, error), error,
                               vcpu_calls[order[i] / UNIT_ERRORS].name);
    }
}
END_TEST

/* ------------------------------------------------------------------ 1.4 real-mode state */

/* All but RSP, RIP and RFLAGS: in the order of struct kvm_regs. */
static void check_general_zero(const struct kvm_regs *regs)
{
    static const char *const names[] = {"RAX", "RBX", "RCX", "RDX", "RSI", "RDI", NULL,  "RBP",
                                        "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    uint64_t values[16];

    memcpy(values, regs, sizeof values);
    for (size_t i = 0; i < 16; i++)
        ck_assert_msg(!names[i] || values[i] == 0, "%s is 0x%llx instead of 0", names[i],
                      (unsigned long long)values[i]);
}

/* A type that processors give it at reset is as good as the table's. */
static void check_system_segment(const char *name, const struct kvm_segment *segment,
                                 const struct kvm_segment *reset, uint8_t type)
{
    ck_assert_msg(!segment->base && !segment->selector && segment->limit == 0xffff,
                  "%s has base 0x%llx, selector 0x%x, limit 0x%x instead of 0, 0, 0xffff: it is "
                  "not one of the guest's six segments",
                  name, segment->base, segment->selector, segment->limit);
    ck_assert_msg((segment->type == type || segment->type == reset->type) && segment->present &&
                      !segment->s,
                  "%s has type %u, present %u, s %u instead of %u, 1, 0", name, segment->type,
                  segment->present, segment->s, type);
    ck_assert_msg(!segment->dpl && !segment->db && !segment->g && !segment->l && !segment->unusable,
                  "%s has dpl %u, db %u, g %u, l %u, unusable %u: all must be 0", name,
                  segment->dpl, segment->db, segment->g, segment->l, segment->unusable);
}

static void check_state(uint32_t base, const struct kvm_sregs *reset, const struct kvm_sregs *sregs,
                        const struct kvm_regs *regs)
{
    const struct {
        const struct kvm_segment *segment;
        const char *name;
    } segments[] = {{&sregs->cs, "CS"}, {&sregs->ds, "DS"}, {&sregs->es, "ES"},
                    {&sregs->fs, "FS"}, {&sregs->gs, "GS"}, {&sregs->ss, "SS"}};

    for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++) {
        const struct kvm_segment *segment = segments[i].segment;
        ck_assert_msg(segment->base == base, "%s has base 0x%llx instead of 0x%x", segments[i].name,
                      segment->base, base);
        ck_assert_msg(segment->selector == base >> 4,
                      "%s has selector 0x%x instead of 0x%x: base is selector << 4 in real mode",
                      segments[i].name, segment->selector, base >> 4);
        ck_assert_msg(segment->type == (i == 0 ? 11 : 3),
                      "%s has type %u instead of %u: Intel's processors refuse the entry",
                      segments[i].name, segment->type, i == 0 ? 11 : 3);
        ck_assert_msg(segment->limit == 0xffff && segment->present && segment->s,
                      "%s is no longer a segment of 64 KB: limit 0x%x, present %u, s %u",
                      segments[i].name, segment->limit, segment->present, segment->s);
        ck_assert_msg(
            !segment->dpl && !segment->db && !segment->g && !segment->l && !segment->unusable,
            "%s is not of real mode: dpl %u, db %u, g %u, l %u, unusable %u, all must be 0",
            segments[i].name, segment->dpl, segment->db, segment->g, segment->l, segment->unusable);
    }
    check_system_segment("TR", &sregs->tr, &reset->tr, TYPE_TSS_BUSY);
    check_system_segment("LDT", &sregs->ldt, &reset->ldt, TYPE_LDT);
    ck_assert_msg(!(sregs->cr0 & 1), "CR0.PE is set: that is protected mode");
    ck_assert_msg(sregs->cr0 == reset->cr0 && sregs->apic_base == reset->apic_base,
                  "CR0 is 0x%llx and apic_base 0x%llx, after reset they were 0x%llx and 0x%llx: "
                  "what section 1.4's table does not name must stay",
                  sregs->cr0, sregs->apic_base, reset->cr0, reset->apic_base);
    ck_assert_msg(regs->rip == 0, "RIP is 0x%llx instead of 0", regs->rip);
    ck_assert_msg(regs->rflags & 2, "RFLAGS is 0x%llx: bit 1 is always 1", regs->rflags);
    ck_assert_msg(!(regs->rflags & 0x200), "RFLAGS.IF is set: the guest has no handlers yet");
    ck_assert_msg(!(regs->rflags & ~0x202ull), "RFLAGS is 0x%llx: flags are left set",
                  regs->rflags);
    ck_assert_msg(
        regs->rsp % 2 == 0 && (regs->rsp == 0 || (regs->rsp >= 0xff00 && regs->rsp <= 0x10000)),
        "RSP is 0x%llx: the stack must start at the end of the segment's 64 KB", regs->rsp);
    check_general_zero(regs);
    ck_assert_msg(sregs->idt.limit == 0 && sregs->idt.base >= HIGHER_HALF &&
                      (sregs->idt.base < INTEL_PAGES || sregs->idt.base >= INTEL_PAGES_END),
                  "IDT has base 0x%llx, limit 0x%x: an exception would run what lies there. The "
                  "limit must be 0, and no memory at the base",
                  sregs->idt.base, sregs->idt.limit);
    const char *fault = entry_state_fault(sregs, regs);
    ck_assert_msg(!fault, "Intel's processors refuse the entry: %s", fault);
}

/* All but what section 1.4's table names. */
static void check_others_kept(const struct kvm_sregs *reset, const struct kvm_sregs *sregs)
{
    struct kvm_sregs others = *sregs;

    memcpy(&others, reset, offsetof(struct kvm_sregs, gdt)); /* the segments */
    others.idt = reset->idt;
    ck_assert_msg(memcmp(&others, reset, sizeof others) == 0,
                  "something that section 1.4's table does not name has changed: GDT, CR2 to "
                  "CR8, EFER and the rest must stay as they are after reset");
}

START_TEST(state)
{
    for (int i = 0; i < 8; i++) {
        uint32_t base = i ? unit_random() & 0xffff0 : 0;
        /* What differs between processors, KVMs and vCPUs. */
        struct kvm_sregs reset = entry_reset_state();
        reset.cr0 = i % 2 ? RESET_CR0 : 0x10;
        reset.cr8 = unit_random() % 16;
        reset.apic_base = (unit_random() & 0xfffff000) | (i % 4 < 2 ? 0x900 : 0x800);
        struct kvm_sregs sregs = reset;
        struct kvm_regs regs;
        memset(&regs, 0xa5, sizeof regs); /* uninitialised: all must be set */
        real_mode_state(base, &sregs, &regs);
        check_state(base, &reset, &sregs, &regs);
        check_others_kept(&reset, &sregs);
    }
}
END_TEST

/* The other vCPU's thread. */
BOTH static void other_starts(void)
{
    vcpu_set_real_mode(&other, 0x70000);
}

/* A new vCPU with this number; its reset state is its own. */
static void check_state_set(struct vm *vm, int index)
{
    const uint32_t base = unit_random() & 0xffff0;
    struct vcpu vcpu;
    struct kvm_sregs reset, sregs;
    struct kvm_regs regs;

    vcpu_init(&vcpu, 0, index, vm, &guest);
    vcpu.fd = (int)kernel(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index);
    kernel(vcpu.fd, KVM_GET_SREGS, &reset);
    reset.cr8 = unit_random() % 16;
    ck_assert_msg(kernel(vcpu.fd, KVM_SET_SREGS, &reset) == 0,
                  "the grader's own vCPU could not be prepared: see make doctor");
    kernel(vcpu.fd, KVM_GET_SREGS, &reset);
    ck_assert_msg(vcpu_set_real_mode(&vcpu, base) == 0, "vcpu_set_real_mode does not return 0");
    kernel(vcpu.fd, KVM_GET_SREGS, &sregs);
    kernel(vcpu.fd, KVM_GET_REGS, &regs);
    check_state(base, &reset, &sregs, &regs);
    check_others_kept(&reset, &sregs);
}

/* vCPUs of two VMs, one after the other. */
static void check_states_set(void)
{
    enum { VMS = 2 };
    struct vm vms[VMS];
    struct vcpu vcpu;
    int order[VMS * VCPUS_MAX];

    for (int i = 0; i < VMS; i++)
        start_vm(&vms[i], &vcpu);
    shuffle(order, VMS * VCPUS_MAX);
    for (int i = 0; i < VMS * VCPUS_MAX; i++)
        check_state_set(&vms[order[i] / VCPUS_MAX], order[i] % VCPUS_MAX);
}

START_TEST(state_set)
{
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_sregs sregs;
    const uint32_t base = (1 + unit_random() % 15) << 16;

    check_states_set();
    start_created(&vm, &vcpu);
    static const unsigned long moments[] = {AFTER(KVM_GET_SREGS), KVM_SET_SREGS, KVM_SET_REGS};
    start_created(&other_vm, &other);
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        meanwhile = other_starts;
        meanwhile_at = moments[i];
        vcpu_set_real_mode(&vcpu, 0x30000);
        kernel(vcpu.fd, KVM_GET_SREGS, &sregs);
        ck_assert_msg(sregs.cs.base == 0x30000 && sregs.gs.base == 0x30000,
                      "while vcpu_set_real_mode(0x30000) was at work, another vCPU's thread called "
                      "vcpu_set_real_mode(0x70000), and CS's base is 0x%llx, GS's 0x%llx: what "
                      "belongs to a call must be in local variables, not in static ones",
                      sregs.cs.base, sregs.gs.base);
    }

    static const struct {
        unsigned long request;
        const char *what;
    } failures[] = {{KVM_GET_SREGS, "KVM_GET_SREGS failed"},
                    {KVM_SET_SREGS, "KVM_SET_SREGS failed"},
                    {KVM_SET_REGS, "KVM_SET_REGS failed"}};
    enum { FAILURES = sizeof failures / sizeof failures[0] };
    int order[FAILURES * UNIT_ERRORS];
    shuffle(order, FAILURES * UNIT_ERRORS);
    for (int i = 0; i < FAILURES * UNIT_ERRORS; i++) {
        const char *what = failures[order[i] / UNIT_ERRORS].what;
        const int error = unit_errors[order[i] % UNIT_ERRORS];
        if (one_works())
            check_works("vcpu_set_real_mode", vcpu_set_real_mode(&vcpu, base));
        falsified =
            (struct falsified){.request = failures[order[i] / UNIT_ERRORS].request, .error = error};
        listen_start();
        int status = vcpu_set_real_mode(&vcpu, base);
        listen_end();
        check_no_kvm("vcpu_set_real_mode", what, error, status);
        check_call_named(what, failures[order[i] / UNIT_ERRORS].request);
        check_met("vcpu_set_real_mode", what);
    }
}
END_TEST

/* ------------------------------------------------------------------ 1.5 vcpu_run */

#define TURNS_MAX 20

static int (*run_script)(struct kvm_run *run, unsigned turn);
static unsigned entries_used;   /* of entries_asked: at the latest KVM_RUN */
static bool run_unasked;        /* KVM_RUN came without a stage_before_entry of its own */
static struct kvm_run run_left; /* what KVM or the stage left in kvm_run last, and ... */
static bool run_written;        /* ... it was not there any more at the next one */

BOTH static int run_follow(struct kvm_run *run, unsigned turn)
{
    run_unasked |= entries_asked == entries_used;
    entries_used = entries_asked;
    run_written |= memcmp(run, &run_left, sizeof run_left) != 0;
    run->if_flag = run_if_flag;
    run->ready_for_interrupt_injection = run_ready;
    const int error = run_script(run, turn);
    run_left = *run;
    return error;
}

BOTH static int run_first_exit(struct kvm_run *run, unsigned turn)
{
    if (turn == 0) {
        run->exit_reason = first_exit.exit_reason;
        memcpy(run->padding, first_exit.padding, sizeof run->padding);
    } else {
        run->exit_reason = KVM_EXIT_HLT;
    }
    return 0;
}

/* vcpu_run on a KVM_RUN that follows the script; what was said is in `said`. */
static int run_scripted(struct vcpu *vcpu, int (*script)(struct kvm_run *run, unsigned turn))
{
    run_turns = 0;
    entries_asked = entries_used = 0;
    run_script = script;
    falsified.run = run_follow;
    falsified.kvm_run = vcpu->run;
    run_if_flag ^= 1;
    run_ready = unit_random() % 2;
    listen_start();
    int status = vcpu_run(vcpu);
    listen_end();
    return status;
}

BOTH static int run_hlt(struct kvm_run *run, unsigned turn)
{
    run->exit_reason = turn < TURNS_MAX ? KVM_EXIT_HLT : KVM_EXIT_SHUTDOWN;
    return 0;
}

/* A vCPU for vcpu_run, which has run one to its HLT: the same one each time, and as new. */
static void start_run(struct vm *vm, struct vcpu *vcpu)
{
    static PRIVATE struct vm made;
    static PRIVATE struct vcpu made_vcpu;

    if (!made.vmm)
        start_created(&made, &made_vcpu);
    *vm = made;
    for (int i = 0; i < 2; i++) {
        vcpu_init(vcpu, 0, 0, vm, &guest);
        vary(vcpu);
        vcpu->fd = made_vcpu.fd;
        vcpu->run = made_vcpu.run;
        vcpu->run_bytes = made_vcpu.run_bytes;
        if (i == 0)
            check_works("vcpu_run of a guest that executes HLT", run_scripted(vcpu, run_hlt));
    }
}

static uint64_t exits_counted(const struct vcpu *vcpu)
{
    uint64_t count = 0;

    for (size_t i = 0; i <= EXIT_REASONS_MAX; i++)
        count += vcpu->exits[i];
    return count;
}

/* The first exit must end the vCPU as crashed; `said` is then the module's own words alone. */
static void check_died(const char *name)
{
    struct vm vm;
    struct vcpu vcpu;

    start_run(&vm, &vcpu);
    int status = run_scripted(&vcpu, run_first_exit);
    ck_assert_msg(run_turns == 1, "%s was ignored: the vCPU was run again", name);
    ck_assert_msg(vcpu.status == STATUS_CRASHED,
                  "after %s vcpu->status is %d instead of STATUS_CRASHED (%d)", name, vcpu.status,
                  STATUS_CRASHED);
    ck_assert_msg(status == vcpu.status, "after %s vcpu_run returned %d, and vcpu->status is %d",
                  name, status, vcpu.status);
    uint32_t reason = first_exit.exit_reason;
    ck_assert_msg(vcpu.exits[reason < EXIT_REASONS_MAX ? reason : EXIT_REASONS_MAX] == 1,
                  "%s was not handed to exit_dispatch first", name);
    ck_assert_msg(strstr(said, "(guest) crashed: "),
                  "after %s there is no post-mortem: vcpu_crash prints it", name);
    char *kit = strstr(said, "\n  exit: "); /* vcpu_crash's lines, up to the registers */
    if (kit)
        *kit = '\0';
}

/* The other vCPU's thread. */
BOTH static void other_runs(void)
{
    vcpu_run(&other);
}

/* The other vCPU's KVM_RUN is at its HLT at once; *run is the first one's. */
BOTH static int run_beside(struct kvm_run *run, unsigned turn)
{
    if (run_fd == other.fd)
        run = other.run;
    run->exit_reason = turn < TURNS_MAX ? KVM_EXIT_HLT : KVM_EXIT_SHUTDOWN;
    return 0;
}

static int expected_fd;
static bool run_elsewhere;

BOTH static int run_there(struct kvm_run *run, unsigned turn)
{
    run_elsewhere |= run_fd != expected_fd;
    return run_hlt(run, turn);
}

START_TEST(hlt)
{
    struct vm vm;
    struct vcpu vcpu;

    for (int i = 0; i < 4; i++) {
        start_created(&vm, &vcpu);
        vary(&vcpu);
        vcpu.status = STATUS_CRASHED;
        expected_fd = vcpu.fd;
        int status = run_scripted(&vcpu, run_there);
        ck_assert_msg(!run_elsewhere, "KVM_RUN was called on a descriptor that is not vcpu->fd");
        ck_assert_msg(run_turns == 1, "after HLT the vCPU was run again");
        ck_assert_msg(status == 0 && vcpu.status == 0,
                      "after HLT vcpu_run returned %d, and vcpu->status is %d: both must be 0, and "
                      "vcpu_end sets the status",
                      status, vcpu.status);
        ck_assert_msg(vcpu.exits[KVM_EXIT_HLT] == 1,
                      "KVM_EXIT_HLT was not handed to exit_dispatch first");
    }

    start_created(&other_vm, &other);
    start_run(&vm, &vcpu);
    meanwhile = other_runs;
    meanwhile_at = KVM_RUN;
    run_scripted(&vcpu, run_beside);
    ck_assert_msg(vcpu.exits[KVM_EXIT_HLT] == 1 && other.exits[KVM_EXIT_HLT] == 1,
                  "while vcpu_run was at work, another vCPU's thread called vcpu_run, and the exit "
                  "of one was handled as the other's: what belongs to a call must be in local "
                  "variables, not in static ones");
}
END_TEST

static int signal_blocked; /* one that was, before or at an entry or at the end; 0: none */

BOTH static void signals_check(void)
{
    sigset_t blocked;

    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (int signal = 1; signal < NSIG; signal++)
        if (sigismember(&blocked, signal) == 1)
            signal_blocked = signal;
}

BOTH static void signals_check_entry(struct vcpu *vcpu)
{
    signals_check();
}

THERE_VOID(signals_check_end, (void), ())
{
    signals_check();
}

THERE_VOID(signals_allow, (void), ())
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Signals come before the first exit and again later; *run holds what it held before. */
BOTH static int run_interrupted(struct kvm_run *run, unsigned turn)
{
    signals_check();
    if (turn < 3) {
        run->exit_reason = first_exit.exit_reason; /* left from before */
        return EINTR;
    }
    run->exit_reason = KVM_EXIT_HLT;
    return 0;
}

START_TEST(interrupted)
{
    struct vm vm;
    struct vcpu vcpu;

    signals_allow();
    at_entry = signals_check_entry;
    for (uint32_t reason = 0; reason < EXIT_REASONS_MAX; reason++) {
        start_run(&vm, &vcpu);
        first_exit.exit_reason = reason;
        int status = run_scripted(&vcpu, run_interrupted);
        ck_assert_msg(exits_counted(&vcpu) <= 1 && vcpu.status != STATUS_CRASHED,
                      "KVM_RUN failed with EINTR, and the exit reason left from before (%s) was "
                      "acted on",
                      exit_name(reason));
        ck_assert_msg(status == 0 && run_turns == 4,
                      "KVM_RUN failed with EINTR (a signal came), and vcpu_run ended with %d "
                      "instead of running the vCPU again",
                      status);
    }
    at_entry = NULL;
    signals_check_end();
    ck_assert_msg(
        signal_blocked == 0,
        "vcpu_run blocks signals, such as \"%s\": one that is blocked can't stop the guest",
        strsignal(signal_blocked));

    start_run(&vm, &vcpu);
    first_exit = (struct kvm_run){.exit_reason = KVM_EXIT_INTR};
    int status = run_scripted(&vcpu, run_first_exit);
    ck_assert_msg(status == 0 && run_turns == 2,
                  "KVM_EXIT_INTR came (a signal), and vcpu_run ended with %d instead of running "
                  "the vCPU again",
                  status);
    ck_assert_msg(vcpu.exits[KVM_EXIT_INTR] == 1,
                  "KVM_EXIT_INTR was not handed to exit_dispatch first");
}
END_TEST

static bool run_after_end; /* the stage had ended the vCPU before */
static bool run_changed;   /* what the stage had put into kvm_run was not there at an entry */

/* What one turn of KVM_RUN meets. */
enum event { EVENT_EINTR, EVENT_INTR, EVENT_HANDLED, EVENTS };
static enum event events[TURNS_MAX];
static uint32_t handled_reason;

/* As later labs do, on the vCPU's first entry: it holds until the guest has been entered. */
static struct kvm_run asked_of_run;

BOTH static void ask_of_run(struct vcpu *vcpu)
{
    run_written |= memcmp(vcpu->run, &run_left, sizeof run_left) != 0;
    if (entries_asked == 0) {
        vcpu->run->immediate_exit = 1;
        vcpu->run->request_interrupt_window = 1;
        vcpu->run->cr8 = asked_of_run.cr8;
        vcpu->run->kvm_valid_regs = asked_of_run.kvm_valid_regs;
        vcpu->run->kvm_dirty_regs = asked_of_run.kvm_dirty_regs;
    }
    run_left = *vcpu->run;
}

/* Before vcpu_run: no byte of kvm_run is 0. */
THERE_VOID(run_fill, (struct vcpu * vcpu, uint8_t byte), (vcpu, byte), GIVE(*vcpu))
{
    memset(vcpu->run, byte, sizeof *vcpu->run);
    run_left = *vcpu->run;
    run_written = false;
}

/* And after it. */
THERE(bool, run_kept, (struct vcpu * vcpu), (vcpu), GIVE(*vcpu))
{
    return !run_written && memcmp(vcpu->run, &run_left, sizeof run_left) == 0;
}

BOTH static int run_events(struct kvm_run *run, unsigned turn)
{
    run_after_end |= entries_asked >= last_entry;
    run_changed |= !run->immediate_exit || !run->request_interrupt_window ||
                   run->cr8 != asked_of_run.cr8 ||
                   run->kvm_valid_regs != asked_of_run.kvm_valid_regs ||
                   run->kvm_dirty_regs != asked_of_run.kvm_dirty_regs;
    if (turn < TURNS_MAX && events[turn] == EVENT_EINTR)
        return EINTR;
    run->exit_reason = turn >= TURNS_MAX            ? KVM_EXIT_HLT
                       : events[turn] == EVENT_INTR ? KVM_EXIT_INTR
                                                    : handled_reason;
    return 0;
}

BOTH static enum step on_handled(struct vcpu *vcpu)
{
    return STEP_RUN;
}

/* A random exit reason with a handler for it. */
static uint32_t reason_handle(enum step (*handler)(struct vcpu *vcpu))
{
    struct stage changed = stage;
    const uint32_t reason = unit_random() % EXIT_REASONS_MAX;

    memset(changed.on_exit, 0, sizeof changed.on_exit);
    changed.on_exit[reason] = handler;
    stage_set(&changed);
    return reason;
}

START_TEST(before_entry)
{
    struct vm vm;
    struct vcpu vcpu;

    for (unsigned last = 1; last <= 12; last++) {
        start_run(&vm, &vcpu);
        for (int i = 0; i < TURNS_MAX; i++)
            events[i] = unit_random() % EVENTS;
        handled_reason = reason_handle(on_handled);
        asked_of_run.cr8 = unit_random() % 16;
        asked_of_run.kvm_valid_regs = unit_random() % 4;
        asked_of_run.kvm_dirty_regs = unit_random() % 4;
        last_entry = last;
        at_entry = ask_of_run;
        run_unasked = false;
        run_fill(&vcpu, (uint8_t)(1 + unit_random() % 255));
        int status = run_scripted(&vcpu, run_events);
        reason_handle(NULL);
        at_entry = NULL;
        last_entry = 0;
        ck_assert_msg(!run_unasked,
                      "KVM_RUN was called without stage_before_entry before it: later labs need it "
                      "before each, even after a signal or an exit that a handler answered");
        ck_assert_msg(!run_after_end,
                      "stage_before_entry answered STEP_END when it was asked for the %u. time, "
                      "and KVM_RUN was called all the same",
                      last);
        ck_assert_msg(!run_changed,
                      "stage_before_entry set fields of *vcpu->run, as in labs 3 and 4 "
                      "(immediate_exit, request_interrupt_window, cr8, kvm_valid_regs, "
                      "kvm_dirty_regs), and at a later KVM_RUN one was changed");
        ck_assert_msg(run_kept(&vcpu),
                      "vcpu_run wrote to *vcpu->run, such as to exit_reason: it must only read it. "
                      "KVM, the stage and its handlers write there");
        ck_assert_msg(vcpu.status == STATUS_GUEST_MAX,
                      "signals came (EINTR or KVM_EXIT_INTR), and exits that a handler answered, "
                      "and the vCPU ended with status %d instead of being run on until "
                      "stage_before_entry ends it",
                      vcpu.status);
        ck_assert_msg(status == STATUS_GUEST_MAX,
                      "after stage_before_entry ended the vCPU, vcpu_run returned %d, and "
                      "vcpu->status is %d",
                      status, vcpu.status);
    }
}
END_TEST

static int answers_given, end_status;

/* Runs on after the first exit, and ends the vCPU at the second. */
BOTH static enum step on_second(struct vcpu *vcpu)
{
    return ++answers_given == 1 ? STEP_RUN : vcpu_end(vcpu, end_status);
}

BOTH static int run_handled(struct kvm_run *run, unsigned turn)
{
    run->exit_reason = turn < TURNS_MAX ? handled_reason : KVM_EXIT_HLT;
    return 0;
}

START_TEST(handlers)
{
    struct vm vm;
    struct vcpu vcpu;

    for (int i = 0; i < 16; i++) {
        start_run(&vm, &vcpu);
        const uint32_t reason = reason_handle(on_second);
        const char *name = exit_name(reason);
        const int end = (int)(unit_random() % 256);
        handled_reason = reason;
        end_status = end;
        answers_given = 0;
        int status = run_scripted(&vcpu, run_handled);
        reason_handle(NULL);
        ck_assert_msg(answers_given != 0,
                      "%s was not handed to exit_dispatch, which calls the handlers of later labs",
                      name);
        ck_assert_msg(answers_given == 2 && run_turns >= 2,
                      "exit_dispatch answered STEP_RUN to %s, and the vCPU was not run again",
                      name);
        ck_assert_msg(run_turns == 2,
                      "exit_dispatch answered STEP_END to %s, and the vCPU was run again", name);
        ck_assert_msg(vcpu.status == end,
                      "exit_dispatch answered STEP_END with vcpu->status %d, and then it was %d",
                      end, vcpu.status);
        ck_assert_msg(status == end,
                      "after exit_dispatch answered STEP_END, vcpu_run returned %d, and "
                      "vcpu->status is %d",
                      status, end);
    }
}
END_TEST

BOTH static int run_fault(struct kvm_run *run, unsigned turn)
{
    if (turn > 0)
        run->exit_reason = KVM_EXIT_HLT;
    return turn == 0 ? run_fault_error : 0;
}

static void check_run_error(int error)
{
    struct vm vm;
    struct vcpu vcpu;
    const char *why = strerror(error);

    start_run(&vm, &vcpu);
    run_fault_error = error;
    int status = run_scripted(&vcpu, run_fault);
    ck_assert_msg(run_turns == 1, "KVM_RUN failed (%s), and the vCPU was run again", why);
    check_reason("KVM_RUN failed", error);
    ck_assert_msg(vcpu.status == STATUS_CRASHED,
                  "KVM_RUN failed, and vcpu->status is %d instead of STATUS_CRASHED (%d)",
                  vcpu.status, STATUS_CRASHED);
    ck_assert_msg(status == vcpu.status,
                  "after KVM_RUN failed, vcpu_run returned %d, and vcpu->status is %d", status,
                  vcpu.status);
    ck_assert_msg(strstr(said, "(guest) crashed: "),
                  "KVM_RUN failed, and there is no post-mortem: vcpu_crash prints it");
}

START_TEST(run_error)
{
    check_run_error(EAGAIN);
    for (int i = 0; i < UNIT_ERRORS; i++)
        check_run_error(unit_errors[i]);
}
END_TEST

#define PADDING_WORDS (sizeof first_exit.padding / sizeof(uint64_t))

/* A first exit: all after its reason is random, and its own fields are still to be set. */
static void exit_begin(uint32_t reason)
{
    first_exit = (struct kvm_run){.exit_reason = reason};
    for (size_t i = 0; i < PADDING_WORDS; i++) {
        const uint64_t word = 1ull << 63 | (uint64_t)unit_random() << 32 | unit_random();
        memcpy(first_exit.padding + i * sizeof word, &word, sizeof word);
    }
}

/* From this word on, kvm_run holds nothing that belongs to the first exit alone: none is named. */
static void check_no_other_fields(const char *name, size_t from)
{
    for (size_t i = from; i < PADDING_WORDS; i++) {
        uint64_t word;
        memcpy(&word, first_exit.padding + i * sizeof word, sizeof word);
        ck_assert_msg(!said_number(word),
                      "%s: your message has 0x%llx, which is in kvm_run but is not a field of this "
                      "exit: read only the part of the union that belongs to exit_reason",
                      name, (unsigned long long)word);
    }
}

/* The words of a direction; a message may have both, as in "read/write: 1". */
static bool says_read(const char *message)
{
    return strstr(message, "read") || strstr(message, "load");
}

static bool says_write(const char *message)
{
    return strstr(message, "writ") || strstr(message, "wrote") || strstr(message, "store");
}

static void check_port(uint16_t port, bool out)
{
    exit_begin(KVM_EXIT_IO);
    first_exit.io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    first_exit.io.size = 1;
    first_exit.io.count = 1;
    first_exit.io.port = port;
    first_exit.io.data_offset = PAGE_BYTES;
    check_died("KVM_EXIT_IO");
    ck_assert_msg(said_number(port), "KVM_EXIT_IO: your message lacks the port, 0x%x", port);
    check_no_other_fields("KVM_EXIT_IO", 2);
}

static void check_mmio(uint64_t address)
{
    static PRIVATE char of_read[sizeof said];

    for (int turn = 0; turn < 3; turn++) {
        const bool is_write = turn == 2;
        exit_begin(KVM_EXIT_MMIO);
        first_exit.mmio.phys_addr = address;
        first_exit.mmio.len = 2;
        first_exit.mmio.is_write = (uint8_t)is_write;
        check_died("KVM_EXIT_MMIO");
        ck_assert_msg(said_number(address), "KVM_EXIT_MMIO: your message lacks the address, 0x%llx",
                      (unsigned long long)address);
        check_no_other_fields("KVM_EXIT_MMIO", 2);
        ck_assert_msg(turn != 1 ||
                          strcmp(strstr(of_read, "crashed: "), strstr(said, "crashed: ")) == 0,
                      "KVM_EXIT_MMIO: your message is not the same for two reads of one address");
        if (!is_write)
            memcpy(of_read, said, sizeof said);
    }
    ck_assert_msg(strcmp(strstr(of_read, "crashed: "), strstr(said, "crashed: ")) != 0,
                  "KVM_EXIT_MMIO: your message is the same for a read and for a write");
    ck_assert_msg(
        !(says_write(of_read) && !says_read(of_read) && says_read(said) && !says_write(said)),
        "KVM_EXIT_MMIO: the message reports a write when the guest read, and a read when it "
        "wrote");
}

START_TEST(accesses)
{
    /* Of devices that a PC has: lab 1 has none. */
    static const uint16_t ports[] = {0x20, 0x60, 0x80, 0xe9, 0x3f8, 0xcf8};

    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++)
        check_port(ports[i], unit_random() % 2);
    for (int i = 0; i < 4; i++)
        check_port((uint16_t)unit_random(), i % 2);

    check_mmio(APIC_PAGE + unit_random() % PAGE_BYTES);
    check_mmio(0xa0000 + unit_random() % 0x60000);
    check_mmio(1ull << 63 | (uint64_t)unit_random() << 32 | unit_random());
}
END_TEST

static void check_fail_entry(uint64_t reason)
{
    exit_begin(KVM_EXIT_FAIL_ENTRY);
    first_exit.fail_entry.hardware_entry_failure_reason = reason;
    check_died("KVM_EXIT_FAIL_ENTRY");
    ck_assert_msg(said_hexadecimal(reason),
                  "KVM_EXIT_FAIL_ENTRY: the message lacks the hardware's reason, 0x%llx: all 64 "
                  "bits of it, in hexadecimal",
                  (unsigned long long)reason);
    check_no_other_fields("KVM_EXIT_FAIL_ENTRY", 1);
}

START_TEST(fail_entry)
{
    check_fail_entry(0x80000021); /* Intel's: invalid guest state */
    check_fail_entry(UINT64_MAX); /* AMD's */
    check_fail_entry(16 + unit_random() % 48);
    check_fail_entry((uint64_t)(0x80000000u | unit_random()) << 32 | unit_random());
}
END_TEST

/* An internal error with so many of these words of data, one of the first may be 0. */
static void check_internal_error(uint32_t suberror, uint32_t ndata, const uint64_t data[16],
                                 bool zero)
{
    const uint32_t words = ndata < 16 ? ndata : 16;
    const uint64_t behind = 0xabcdef0000000000ull | unit_random();

    exit_begin(KVM_EXIT_INTERNAL_ERROR);
    first_exit.internal.suberror = suberror;
    first_exit.internal.ndata = ndata;
    memcpy(first_exit.internal.data, data, sizeof first_exit.internal.data);
    if (zero && words > 0)
        first_exit.internal.data[unit_random() % words] = 0;
    memcpy(first_exit.padding + sizeof first_exit.internal, &behind, sizeof behind);
    check_died("KVM_EXIT_INTERNAL_ERROR");
    ck_assert_msg(said_number(suberror),
                  "KVM_EXIT_INTERNAL_ERROR: the message lacks the suberror, %u", suberror);
    for (uint32_t i = 0; i < words; i++)
        ck_assert_msg(said_number(first_exit.internal.data[i]),
                      "KVM_EXIT_INTERNAL_ERROR: ndata is %u, and the message lacks data[%u], "
                      "0x%llx: is your text cut off? A word has up to 16 digits",
                      ndata, i, first_exit.internal.data[i]);
    for (uint32_t i = words; i < 16; i++)
        ck_assert_msg(!said_number(first_exit.internal.data[i]),
                      "KVM_EXIT_INTERNAL_ERROR: the message has more than ndata (%u) words of data",
                      ndata);
    ck_assert_msg(!said_number(behind),
                  "KVM_EXIT_INTERNAL_ERROR: ndata is %u, and the message has the word after the 16 "
                  "words of data",
                  ndata);
}

START_TEST(internal_error)
{
    /* Fewer words follow more: what the message before had must not come again. */
    const uint32_t counts[] = {
        16, 0, 1, 2 + unit_random() % 13, 15, 0, 17, 18, 1000, INT32_MAX, 1u << 31u, UINT32_MAX};
    uint64_t data[16];

    for (uint32_t i = 0; i < 16; i++)
        data[i] = 1ull << 63 | (uint64_t)unit_random() << 24 | 0xcdef00u | i;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check_internal_error(1 + (uint32_t)i % 4, counts[i], data, false); /* as KVM has them */
        check_internal_error(10 + unit_random(), counts[i], data, true);
    }
}
END_TEST

static bool says_reason(uint32_t reason)
{
    const char *name = exit_name(reason);

    return strcasestr(said, strncmp(name, "KVM_EXIT_", 9) == 0 ? name + 9 : name) ? true : false;
}

static unsigned reasons_said(void)
{
    unsigned count = 0;

    for (uint32_t reason = 0; reason < EXIT_REASONS_MAX; reason++)
        count += says_reason(reason);
    return count;
}

START_TEST(other_reasons)
{
    /* Tested for themselves. */
    static const uint32_t others[] = {KVM_EXIT_HLT,  KVM_EXIT_INTR,       KVM_EXIT_IO,
                                      KVM_EXIT_MMIO, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR};
    const uint32_t unknown[] = {EXIT_REASONS_MAX, EXIT_REASONS_MAX + unit_random() % 1000,
                                0x100 + KVM_EXIT_HLT, 0x10000 + KVM_EXIT_INTR, UINT32_MAX};

    for (uint32_t reason = 0; reason < EXIT_REASONS_MAX; reason++) {
        bool tested = false;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            tested |= reason == others[i];
        if (tested)
            continue;
        const char *name = exit_name(reason);
        exit_begin(reason);
        for (int i = 0; i < (reason == KVM_EXIT_SHUTDOWN ? 8 : 1); i++) /* of any vCPU */
            check_died(name);
        ck_assert_msg(reason == KVM_EXIT_SHUTDOWN || says_reason(reason),
                      "%s: your message does not name the exit reason: exit_name", name);
        ck_assert_msg(reasons_said() <= EXIT_REASONS_MAX / 2,
                      "%s: your message names %u reasons: which of them was it?", name,
                      reasons_said());
        if (reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_UNKNOWN)
            check_no_other_fields(name, reason == KVM_EXIT_UNKNOWN);
    }
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        const char *name = exit_name(unknown[i]);
        exit_begin(unknown[i]);
        check_died(name);
        ck_assert_msg(said_number(unknown[i]),
                      "the message about an exit reason without a name must give its number, %u",
                      unknown[i]);
        check_no_other_fields(name, 0);
    }
}
END_TEST

/* ------------------------------------------------------------------ 1.6 tear down */

/* What a vCPU has after its guest's work: nothing of it is 0. */
static void vcpu_fill(struct vcpu *vcpu)
{
    for (size_t i = 0; i <= EXIT_REASONS_MAX; i++)
        vcpu->exits[i] = 1 + unit_random();
    vcpu->interrupts = 1 + unit_random();
    vcpu->pending = 1u << unit_random() % 32;
    vcpu->getchar_called = true;
    vcpu->state = VCPU_ENDED;
    vcpu->line_bytes = 1 + unit_random() % CONSOLE_LINE_MAX;
    memset(vcpu->line, 'a' + (int)(unit_random() % 26), vcpu->line_bytes);
    vcpu->exit = (struct exit_record){.reason = 1 + unit_random() % 8, .rip = 1 + unit_random()};
    vcpu->exit_before = vcpu->exit;
    memset(&vcpu->known_regs, 1 + (int)(unit_random() % 255), sizeof vcpu->known_regs);
    memset(&vcpu->known_sregs, 1 + (int)(unit_random() % 255), sizeof vcpu->known_sregs);
}

/* A VM and its vCPU to destroy, with RAM of any size, which is not what --mem says. */
static void start_destroy(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    vary(vcpu);
    memory_drop(vm->ram, vm->ram_bytes);
    vm->ram_bytes = (2 + unit_random() % 2048) * (size_t)PAGE_BYTES;
    vm->ram = memory_new(vm->ram_bytes);
    vcpu_fill(vcpu);
}

/* vcpu_destroy, which must leave all of the VM and, but for what is released, the vCPU. */
static void check_vcpu_destroyed(struct vm *vm, struct vcpu *vcpu)
{
    const struct vm vm_before = *vm;
    struct vcpu before;

    memcpy(&before, vcpu, sizeof before); /* with what is between the fields */
    vcpu_destroy(vcpu);
    ck_assert_msg(!before.run || !is_mapped(before.run), "vcpu_destroy leaves kvm_run mapped");
    ck_assert_msg(!before.run || !is_mapped((uint8_t *)before.run + before.run_bytes - PAGE_BYTES),
                  "vcpu_destroy leaves the end of kvm_run mapped: it has vcpu->run_bytes (%zu)",
                  before.run_bytes);
    ck_assert_msg(before.fd < 0 || !is_open(before.fd),
                  "vcpu_destroy leaves the vCPU's descriptor open");
    ck_assert_msg((!vm_before.ram || is_mapped(vm_before.ram)) &&
                      (vm_before.fd < 0 || is_open(vm_before.fd)) && is_open(vm_before.kvm_fd),
                  "vcpu_destroy releases something of the VM: that is for vm_destroy");
    before.fd = vcpu->fd;
    before.run = vcpu->run;
    before.run_bytes = vcpu->run_bytes;
    ck_assert_msg(memcmp(vcpu, &before, sizeof before) == 0,
                  "vcpu_destroy changes more than fd, run and run_bytes: the vCPU's status, and "
                  "its counts of exits and of interrupts, are still needed, for --stats");
}

/* vm_destroy, of all but a vCPU. */
static void check_vm_destroyed(struct vm *vm)
{
    const struct vm before = *vm;

    vm_destroy(vm);
    ck_assert_msg(!before.ram || (!is_mapped(before.ram) &&
                                  !is_mapped(before.ram + before.ram_bytes - PAGE_BYTES)),
                  "vm_destroy leaves the guest's RAM mapped: it has vm->ram_bytes (%zu)",
                  before.ram_bytes);
    ck_assert_msg(before.fd < 0 || !is_open(before.fd),
                  "vm_destroy leaves the VM's descriptor open");
    ck_assert_msg(!is_open(before.kvm_fd), "vm_destroy leaves /dev/kvm open");
    ck_assert_msg(bad_closes == 0, "something was closed or unmapped that was not there");
}

/* From kvm_open to vm_destroy, as the VMM makes them; false if there was no VM to destroy. */
static bool create_and_destroy(void)
{
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    vary(&vcpu);
    const bool created = kvm_open(&vm) == 0 &&
                         vm_create(&vm, (1 + unit_random() % 2048) * (size_t)PAGE_BYTES) == 0 &&
                         vcpu_create(&vcpu) == 0;
    vcpu_destroy(&vcpu);
    vm_destroy(&vm);
    return created;
}

START_TEST(given_back)
{
    struct vm vm;
    struct vcpu vcpu;

    /* Another VM's vCPU, which is not destroyed. */
    struct vcpu *const running = &vmm.vcpus[unit_random() % VCPUS_MAX];
    for (int i = 0; i < VCPUS_MAX; i++)
        vcpu_init(&vmm.vcpus[i], i, i, &other_vm, &guest);
    start_created(&other_vm, running);
    for (int i = 0; i < 4; i++) {
        start_destroy(&vm, &vcpu);
        check_vcpu_destroyed(&vm, &vcpu);
        check_vm_destroyed(&vm);
    }
    ck_assert_msg(is_open(running->fd) && is_mapped(running->run) && is_open(other_vm.fd) &&
                      is_mapped(other_vm.ram),
                  "when one VM was destroyed, something of another VM was released");

    if (create_and_destroy()) { /* the first time, memory may be taken for good */
        const int descriptors = descriptors_open();
        const size_t mapped = mappings_read().bytes;
        create_and_destroy();
        ck_assert_msg(descriptors_open() == descriptors,
                      "%d descriptors more are open after kvm_open, vm_create, vcpu_create, "
                      "vcpu_destroy and vm_destroy than before",
                      descriptors_open() - descriptors);
        const size_t after = mappings_read().bytes;
        ck_assert_msg(after == mapped,
                      "%zu bytes %s are mapped after kvm_open, vm_create, vcpu_create, "
                      "vcpu_destroy and vm_destroy than before",
                      after > mapped ? after - mapped : mapped - after,
                      after > mapped ? "more" : "less");
    }

    int *const descriptors[] = {&vcpu.fd, &vm.fd, &vm.kvm_fd};
    for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++) {
        start_created(&vm, &vcpu);
        descriptor_move(*descriptors[i], 0);
        *descriptors[i] = 0;
        vcpu_destroy(&vcpu);
        vm_destroy(&vm);
        ck_assert_msg(!is_open(0),
                      "a descriptor was 0, and it stays open: 0 is a valid descriptor, "
                      "\"nothing there\" is -1");
    }
}
END_TEST

START_TEST(twice)
{
    struct vm vm;
    struct vcpu vcpu;

    start_destroy(&vm, &vcpu);
    const int vcpu_fd = vcpu.fd, vm_fd = vm.fd, kvm_fd = vm.kvm_fd;
    void *const run = vcpu.run, *const ram = vm.ram;
    vcpu_destroy(&vcpu);
    ck_assert_msg(vcpu.fd == -1,
                  "after vcpu_destroy vcpu->fd is %d instead of -1: a second call would close it "
                  "again",
                  vcpu.fd);
    ck_assert_msg(!vcpu.run, "after vcpu_destroy vcpu->run is not NULL: a second call would unmap "
                             "it again");
    ck_assert_msg(!is_open(vcpu_fd) && !is_mapped(run),
                  "vcpu_destroy sets vcpu->fd and vcpu->run, and does not release what they were");
    vm_destroy(&vm);
    ck_assert_msg(vm.fd == -1 && vm.kvm_fd == -1,
                  "after vm_destroy vm->fd is %d and vm->kvm_fd %d instead of -1: a second call "
                  "would close them again",
                  vm.fd, vm.kvm_fd);
    ck_assert_msg(!vm.ram, "after vm_destroy vm->ram is not NULL: a second call would unmap it "
                           "again");
    ck_assert_msg(!is_open(vm_fd) && !is_open(kvm_fd) && !is_mapped(ram),
                  "vm_destroy sets vm->fd, vm->kvm_fd and vm->ram, and does not release what they "
                  "were");
    vcpu_destroy(&vcpu);
    vm_destroy(&vm);
    ck_assert_msg(bad_closes == 0, "called a second time, something was closed or unmapped again");
}
END_TEST

/* How far a creation came that failed half-way. */
START_TEST(half_way)
{
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    vcpu_destroy(&vcpu);
    vm_destroy(&vm);
    ck_assert_msg(is_open(0) && is_open(1) && is_open(2),
                  "with nothing created, destroying closed descriptor 0, 1 or 2: what is not there "
                  "is -1");
    ck_assert_msg(bad_closes == 0,
                  "with nothing created, something was closed (fd -1) or unmapped (NULL)");

    start_open(&vm, &vcpu);
    int kvm_fd = vm.kvm_fd;
    vcpu_destroy(&vcpu);
    vm_destroy(&vm);
    ck_assert_msg(!is_open(kvm_fd), "with nothing but /dev/kvm open, vm_destroy leaves it open");
    ck_assert_msg(
        bad_closes == 0,
        "with nothing but /dev/kvm open, something was closed (fd -1) or unmapped (NULL)");

    /* What there is of a VM and of its vCPU: any of it, in whatever order they were created. */
    for (int parts = 0; parts < 16; parts++) {
        start_destroy(&vm, &vcpu);
        if (parts & 1)
            vm.ram = memory_drop(vm.ram, vm.ram_bytes);
        if (parts & 2)
            vm.fd = descriptor_close(vm.fd);
        if (parts & 4)
            vcpu.run = memory_drop(vcpu.run, vcpu.run_bytes);
        if (parts & 8)
            vcpu.fd = descriptor_close(vcpu.fd);
        check_vcpu_destroyed(&vm, &vcpu);
        check_vm_destroyed(&vm);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vm");

    vmm.guests[0] = guest; /* as main has read them */

    unit_add(suite, "opens", opens);
    unit_add(suite, "version", version);
    unit_add(suite, "capabilities", capabilities);
    unit_add(suite, "no_device", no_device);
    unit_add(suite, "maps_ram", maps_ram);
    unit_add(suite, "addresses", addresses);
    unit_add(suite, "vm_failures", vm_failures);
    unit_add(suite, "creates_vcpu", creates_vcpu);
    unit_add(suite, "synced", synced);
    unit_add(suite, "cpuid", cpuid);
    unit_add(suite, "cpuid_freed", cpuid_freed);
    unit_add(suite, "vcpu_failures", vcpu_failures);
    unit_add(suite, "state", state);
    unit_add(suite, "state_set", state_set);
    unit_add(suite, "hlt", hlt);
    unit_add(suite, "interrupted", interrupted);
    unit_add(suite, "before_entry", before_entry);
    unit_add(suite, "handlers", handlers);
    unit_add(suite, "run_error", run_error);
    unit_add(suite, "accesses", accesses);
    unit_add(suite, "fail_entry", fail_entry);
    unit_add(suite, "internal_error", internal_error);
    unit_add(suite, "other_reasons", other_reasons);
    unit_add(suite, "given_back", given_back);
    unit_add(suite, "twice", twice);
    unit_add(suite, "half_way", half_way);
    return unit_main(suite);
}
