/*
 * vm.c - lab 1's module function by function: what it asks of KVM and what it makes of the answers.
 */
#define _GNU_SOURCE /* strcasestr */
#include "../../unit.h"
#include "debug/entry_state.h"
#include "lab1.h"

/* What the scripted KVM_RUN does on its first turn; HLT comes after it. */
static PRIVATE struct kvm_run first_exit;
static PRIVATE int run_fault_error;

MODULE(int, kvm_open, (struct vm * vm), (vm), see_vm(vm))
MODULE(int, vm_create, (struct vm * vm, size_t ram_bytes), (vm, ram_bytes), see_vm(vm))
MODULE(int, vcpu_create, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu), SEE(vcpu->run))
MODULE_VOID(real_mode_state, (uint32_t base, struct kvm_sregs *sregs, struct kvm_regs *regs),
            (base, sregs, regs), SEE(*sregs), SEE(*regs))
MODULE(int, vcpu_set_real_mode, (struct vcpu * vcpu, uint32_t base), (vcpu, base), see_vcpu(vcpu))
MODULE(int, vcpu_run, (struct vcpu * vcpu), (vcpu), see_vcpu(vcpu), GIVE(first_exit),
       GIVE(run_fault_error))
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

THERE_VOID(descriptor_close, (int fd), (fd))
{
    syscall(SYS_close, fd);
}

THERE_VOID(descriptor_move, (int from, int to), (from, to))
{
    syscall(SYS_dup2, from, to);
    syscall(SYS_close, from);
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
    ck_assert_msg(error == 0 || strstr(said, strerror(error)),
                  "%s, and the message does not contain the reason (%s): strerror(errno)", what,
                  strerror(error));
}

/* ------------------------------------------------------------------ 1.1 kvm_open */

START_TEST(opens)
{
    struct vm vm;
    struct vcpu vcpu;

    start_empty(&vm, &vcpu);
    ck_assert_msg(kvm_open(&vm) == 0, "kvm_open does not return 0 with a healthy /dev/kvm");
    ck_assert_msg(vm.kvm_fd >= 0, "kvm_open leaves vm->kvm_fd without a descriptor");
    ck_assert_msg(kernel(vm.kvm_fd, KVM_GET_API_VERSION, NULL) == KVM_API_VERSION,
                  "vm->kvm_fd is not a descriptor of /dev/kvm");
    ck_assert_msg(opened_writable, "/dev/kvm must be opened with O_RDWR");
    ck_assert_msg(call_find(KVM_GET_API_VERSION), "KVM_GET_API_VERSION was not asked");

    descriptor_close(0);
    start_empty(&vm, &vcpu);
    ck_assert_msg(kvm_open(&vm) == 0 && vm.kvm_fd == 0,
                  "open answered 0, and kvm_open takes it for a failure: 0 is a valid descriptor");
}
END_TEST

/*
 * Between the calls that fail come others that must work, so that a module that counts its calls
 * does not know which this is.
 */
static bool one_works(size_t i)
{
    falsified = (struct falsified){0};
    return i == 0 || unit_random() % 2;
}

static void check_opens(struct vm *vm, struct vcpu *vcpu)
{
    start_empty(vm, vcpu);
    check_works("kvm_open", kvm_open(vm));
    ck_assert_msg(vm->kvm_fd >= 0 &&
                      kernel(vm->kvm_fd, KVM_GET_API_VERSION, NULL) == KVM_API_VERSION,
                  "kvm_open returned 0, and vm->kvm_fd is not a descriptor of /dev/kvm");
    falsified_calls = 0;
}

START_TEST(version)
{
    struct vm vm;
    struct vcpu vcpu;
    const int versions[] = {11, 13, 0, -1, (int)(unit_random() % 1000) + 14};

    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        if (one_works(i))
            check_opens(&vm, &vcpu);
        start_empty(&vm, &vcpu);
        falsified = (struct falsified){
            .request = KVM_GET_API_VERSION, .answered = true, .answer = versions[i]};
        char what[64];
        snprintf(what, sizeof what, "KVM_GET_API_VERSION answered %d", versions[i]);
        listen_start();
        int status = kvm_open(&vm);
        listen_end();
        check_no_kvm("kvm_open", what, 0, status);
        check_met("kvm_open", what);
    }
}
END_TEST

THERE(int, descriptors_open, (void), ())
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += is_open(fd);
    return count;
}

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
    struct vm vm;
    struct vcpu vcpu;

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (one_works(i))
            check_opens(&vm, &vcpu);
        start_empty(&vm, &vcpu);
        falsified = (struct falsified){
            .request = KVM_CHECK_EXTENSION, .argument = needed[i].number, .answered = true};
        char what[96];
        snprintf(what, sizeof what, "KVM_CHECK_EXTENSION answered 0 for %s", needed[i].name);
        const int before = descriptors_open();
        listen_start();
        int status = kvm_open(&vm);
        listen_end();
        check_no_kvm("kvm_open", what, 0, status);
        ck_assert_msg(strstr(said, needed[i].name), "%s, and the message does not name it", what);
        ck_assert_msg(descriptors_open() - before == (vm.kvm_fd >= 0),
                      "%s, and vm->kvm_fd is %d: a descriptor that stays open must be there for "
                      "vm_destroy to close, and one that was closed must not",
                      what, vm.kvm_fd);
        check_met("kvm_open", what);

        start_empty(&vm, &vcpu);
        falsified.answer = -1;
        snprintf(what, sizeof what, "KVM_CHECK_EXTENSION failed (-1) for %s", needed[i].name);
        listen_start();
        status = kvm_open(&vm);
        listen_end();
        check_no_kvm("kvm_open", what, 0, status);
        check_met("kvm_open", what);

        start_empty(&vm, &vcpu);
        falsified.answer = 2;
        snprintf(what, sizeof what, "KVM_CHECK_EXTENSION answered 2 for %s", needed[i].name);
        ck_assert_msg(kvm_open(&vm) == 0,
                      "KVM_CHECK_EXTENSION answered 2 for %s, and kvm_open refuses it: any number "
                      "over 0 says that it is there",
                      needed[i].name);
        check_met("kvm_open", what);
    }
}
END_TEST

START_TEST(no_device)
{
    static const int errors[] = {ENOENT, EACCES, ENODEV};
    struct vm vm;
    struct vcpu vcpu;

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (one_works(i))
            check_opens(&vm, &vcpu);
        start_empty(&vm, &vcpu);
        falsified = (struct falsified){.open_error = errors[i]};
        listen_start();
        int status = kvm_open(&vm);
        listen_end();
        ck_assert_msg(status == STATUS_NO_KVM,
                      "open of /dev/kvm failed (%s), and kvm_open returned %d instead of "
                      "STATUS_NO_KVM (%d)",
                      strerror(errors[i]), status, STATUS_NO_KVM);
        ck_assert_msg(strstr(said, strerror(errors[i])),
                      "open of /dev/kvm failed, and the message does not contain the reason (%s)",
                      strerror(errors[i]));
        check_met("kvm_open", "open of /dev/kvm failed");
    }
}
END_TEST

/* ------------------------------------------------------------------ 1.2 vm_create */

/* An open /dev/kvm, without the module. */
static void start_open(struct vm *vm, struct vcpu *vcpu)
{
    start_empty(vm, vcpu);
    vm->kvm_fd = kvm_device();
}

/* What this byte of RAM was before it was written. */
THERE(uint8_t, ram_take, (struct vm * vm, size_t at), (vm, at), GIVE(*vm))
{
    const uint8_t before = vm->ram[at];

    vm->ram[at] = 1;
    return before;
}

START_TEST(maps_ram)
{
    struct vm vm;
    struct vcpu vcpu;
    const size_t bytes = (256 + unit_random() % 1024) * (size_t)PAGE_BYTES;

    start_open(&vm, &vcpu);
    ck_assert_msg(vm_create(&vm, bytes) == 0, "vm_create does not return 0 for %zu bytes of RAM",
                  bytes);
    ck_assert_msg(vm.fd >= 0, "vm_create leaves vm->fd without a descriptor");
    ck_assert_msg(vm.ram, "vm_create leaves vm->ram NULL");
    ck_assert_msg(vm.ram_bytes == bytes, "vm->ram_bytes is %zu, and %zu were asked for",
                  vm.ram_bytes, bytes);
    const struct call *call = call_find(KVM_SET_USER_MEMORY_REGION);
    ck_assert_msg(call, "KVM_SET_USER_MEMORY_REGION was not called");
    ck_assert_msg(call->region.guest_phys_addr == 0,
                  "RAM is at guest-physical address 0x%llx instead of 0",
                  call->region.guest_phys_addr);
    ck_assert_msg(call->region.flags == 0 && call->region.slot == 0,
                  "the memory region has slot 0x%x and flags 0x%x instead of 0 and 0: is every "
                  "field of the structure set?",
                  call->region.slot, call->region.flags);
    ck_assert_msg(call->region.memory_size == bytes,
                  "the memory region has %llu bytes instead of %zu", call->region.memory_size,
                  bytes);
    ck_assert_msg(call->region.userspace_addr == (uintptr_t)vm.ram,
                  "the memory region is not the memory at vm->ram");
    ck_assert_msg(ram_take(&vm, 0) == 0 && ram_take(&vm, bytes - 1) == 0,
                  "fresh RAM is not all zero");

    const uint8_t *const first = vm.ram;
    start_open(&vm, &vcpu);
    ck_assert_msg(vm_create(&vm, HIGHER_HALF) == 0,
                  "vm_create does not return 0 for a second VM, with 2 GB of RAM (--mem=2G): is a "
                  "size kept in an int?");
    call = call_find(KVM_SET_USER_MEMORY_REGION);
    ck_assert_msg(vm.ram_bytes == HIGHER_HALF && call->region.memory_size == HIGHER_HALF,
                  "2 GB of RAM were asked for (--mem=2G); vm->ram_bytes is 0x%zx, and the memory "
                  "region has 0x%llx bytes",
                  vm.ram_bytes, call->region.memory_size);
    ck_assert_msg(vm.ram && vm.ram != first && ram_take(&vm, 0) == 0,
                  "a second VM has the RAM of the first: with --isolate each has its own");

    start_open(&vm, &vcpu);
    descriptor_close(0);
    ck_assert_msg(
        vm_create(&vm, bytes) == 0,
        "KVM_CREATE_VM answered 0, and vm_create takes it for a failure: 0 is a valid descriptor");
}
END_TEST

START_TEST(addresses)
{
    struct vm vm;
    struct vcpu vcpu;

    start_open(&vm, &vcpu);
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
    ck_assert_msg(identity->address + PAGE_BYTES <= tss->argument ||
                      identity->address >= tss->argument + 3 * PAGE_BYTES,
                  "the identity map's page lies inside the TSS's three pages");
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

static void check_creates_vm(struct vm *vm, struct vcpu *vcpu, size_t bytes)
{
    start_open(vm, vcpu);
    call_count = 0;
    check_works("vm_create", vm_create(vm, bytes));
    const struct call *create = call_find(KVM_CREATE_VM);
    const struct call *region = call_find(KVM_SET_USER_MEMORY_REGION);
    ck_assert_msg(create && create->result == vm->fd && is_open(vm->fd),
                  "vm_create returned 0, and vm->fd is not a descriptor of a VM");
    ck_assert_msg(region && vm->ram, "vm_create returned 0, and the VM has no RAM at vm->ram");
    falsified_calls = 0;
}

START_TEST(vm_failures)
{
    const size_t bytes = 1 << 20;

    static const struct {
        struct falsified what;
        const char *name;
    } failures[] = {
        {{.request = KVM_CREATE_VM, .error = ENOMEM}, "KVM_CREATE_VM failed"},
        {{.request = KVM_SET_TSS_ADDR, .error = EINVAL}, "KVM_SET_TSS_ADDR failed"},
        {{.request = KVM_SET_IDENTITY_MAP_ADDR, .error = EINVAL},
         "KVM_SET_IDENTITY_MAP_ADDR failed"},
        {{.request = KVM_SET_USER_MEMORY_REGION, .error = EINVAL},
         "KVM_SET_USER_MEMORY_REGION failed"},
        {{.mmap_error = ENOMEM}, "mmap of the guest's RAM failed"},
    };
    struct vm vm;
    struct vcpu vcpu;

    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        if (one_works(i))
            check_creates_vm(&vm, &vcpu, bytes);
        start_open(&vm, &vcpu);
        call_count = 0;
        falsified = failures[i].what;
        listen_start();
        int status = vm_create(&vm, bytes);
        listen_end();
        const struct falsified *what = &failures[i].what;
        const int error = what->error ? what->error : what->mmap_error;
        check_vm_kept(&vm, bytes, failures[i].name);
        check_no_kvm("vm_create", failures[i].name, error, status);
        check_met("vm_create", failures[i].name);
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

START_TEST(creates_vcpu)
{
    struct vm vm;
    struct vcpu vcpu;

    start_vm(&vm, &vcpu);
    vcpu.index = 1 + (int)(unit_random() % 3);
    ck_assert_msg(vcpu_create(&vcpu) == 0, "vcpu_create does not return 0");
    ck_assert_msg(vcpu.fd >= 0, "vcpu_create leaves vcpu->fd without a descriptor");
    const struct call *call = call_find(KVM_CREATE_VCPU);
    ck_assert_msg(call && call->argument == (unsigned long)vcpu.index,
                  "the vCPU was not created with the number vcpu->index");
    size_t bytes = (size_t)kernel(vm.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    ck_assert_msg(vcpu.run, "vcpu_create leaves vcpu->run NULL: kvm_run is not mapped");
    ck_assert_msg(vcpu.run_bytes == bytes,
                  "vcpu->run_bytes is %zu, and KVM_GET_VCPU_MMAP_SIZE answers %zu", vcpu.run_bytes,
                  bytes);
    ck_assert_msg(run_at_once(&vcpu) == EINTR,
                  "vcpu->run is not what KVM reads: the mapping must be MAP_SHARED, of vcpu->fd, "
                  "at offset 0");

    const struct kvm_run *const first = vcpu.run;
    vcpu_init(&vcpu, 0, 0, &vm, &guest);
    ck_assert_msg(vcpu_create(&vcpu) == 0, "vcpu_create does not return 0 for a VM's second vCPU");
    ck_assert_msg(vcpu.run && vcpu.run != first && run_at_once(&vcpu) == EINTR,
                  "a second vCPU has the kvm_run of the first");

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

/* Entries of the CPUID that this KVM supports. */
static uint32_t cpuid_supported(const struct vm *vm)
{
    static union {
        struct kvm_cpuid2 table;
        uint8_t bytes[sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)];
    } all;

    all.table.nent = 256;
    ck_assert_msg(kernel(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, &all) == 0,
                  "the grader itself can't read this KVM's CPUID");
    return all.table.nent;
}

/* As many entries as a server's processor has, and some more. (Linux has room for 256.) */
enum { CPUID_OF_LARGE_PROCESSORS = 128 };

START_TEST(cpuid)
{
    struct vm vm;
    struct vcpu vcpu;

    start_vm(&vm, &vcpu);
    const uint32_t supported = cpuid_supported(&vm);
    cpuid_wanted = CPUID_OF_LARGE_PROCESSORS;
    const int status = vcpu_create(&vcpu);
    ck_assert_msg(
        !cpuid_too_small,
        "the table for KVM_GET_SUPPORTED_CPUID has no room for nent entries: KVM writes past its "
        "end");
    const struct call *asked = call_find(KVM_GET_SUPPORTED_CPUID);
    ck_assert_msg(!asked || asked->result == 0,
                  "KVM_GET_SUPPORTED_CPUID fails with E2BIG, as it does on a processor with more "
                  "entries than the table has room for: give it %d or more",
                  CPUID_OF_LARGE_PROCESSORS);
    ck_assert_msg(status == 0, "vcpu_create does not return 0");
    const struct call *call = call_find(KVM_SET_CPUID2);
    ck_assert_msg(call, "KVM_SET_CPUID2 was not called: the guest's CPUID answers zeros");
    ck_assert_msg(call->result == 0, "KVM_SET_CPUID2 failed");
    ck_assert_msg(call->entries >= supported,
                  "KVM_SET_CPUID2 was called with %u entries, and KVM supports %u", call->entries,
                  supported);
}
END_TEST

THERE(size_t, heap_used, (void), ())
{
    return mallinfo2().uordblks;
}

/* Memory that was freed counts as used while malloc keeps it at hand: that grows at first only. */
START_TEST(cpuid_freed)
{
    enum { WARM_UP = 8, ROUNDS = 3 };
    static const unsigned long failing[] = {0, KVM_SET_CPUID2, KVM_GET_SUPPORTED_CPUID};
    struct vm vm;
    struct vcpu vcpu;
    size_t before = 0, table = 0;

    for (int round = 0; round < WARM_UP + ROUNDS; round++) {
        start_vm(&vm, &vcpu);
        if (round == WARM_UP)
            before = heap_used();
        for (int i = 0; i < 3; i++) {
            vcpu_init(&vcpu, 0, i, &vm, &guest);
            falsified = (struct falsified){.request = failing[i], .error = ENOMEM};
            listen_start();
            vcpu_create(&vcpu);
            listen_end();
            const struct call *call = call_find(KVM_SET_CPUID2);
            table = call ? call->entries * sizeof(struct kvm_cpuid_entry2) : 0;
        }
    }
    size_t kept = heap_used() - before;
    ck_assert_msg(kept < ROUNDS * table,
                  "after %d vCPUs more, some of which failed, %zu bytes more are allocated: the "
                  "CPUID table is not freed on every way out",
                  ROUNDS * 3, kept);
}
END_TEST

THERE(unsigned, kvm_runs_mapped, (void), ())
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned count = 0;

    ck_assert_msg(maps, "the grader can't read /proc/self/maps");
    while (fgets(line, sizeof line, maps))
        count += strstr(line, "kvm-vcpu") ? 1 : 0;
    fclose(maps);
    return count;
}

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
    ck_assert_msg(kvm_runs_mapped() - mapped == (vcpu->run ? 1 : 0),
                  "%s, and vcpu->run is %p: kvm_run must be there as soon as you have it, for "
                  "vcpu_destroy to unmap",
                  what, (void *)vcpu->run);
    ck_assert_msg(!vcpu->run || vcpu->run_bytes > 0,
                  "%s, and vcpu->run_bytes is 0: vcpu_destroy can't unmap kvm_run", what);
}

static void check_creates_vcpu(struct vm *vm, struct vcpu *vcpu)
{
    start_vm(vm, vcpu);
    call_count = 0;
    const unsigned mapped = kvm_runs_mapped();
    check_works("vcpu_create", vcpu_create(vcpu));
    const struct call *create = call_find(KVM_CREATE_VCPU);
    ck_assert_msg(create && create->result == vcpu->fd && is_open(vcpu->fd),
                  "vcpu_create returned 0, and vcpu->fd is not a descriptor of a vCPU");
    ck_assert_msg(vcpu->run && kvm_runs_mapped() - mapped == 1,
                  "vcpu_create returned 0, and no kvm_run is mapped at vcpu->run");
    falsified_calls = 0;
}

START_TEST(vcpu_failures)
{
    static const struct {
        struct falsified what;
        const char *name;
    } failures[] = {
        {{.request = KVM_CREATE_VCPU, .error = EEXIST}, "KVM_CREATE_VCPU failed"},
        {{.request = KVM_GET_VCPU_MMAP_SIZE, .error = EINVAL}, "KVM_GET_VCPU_MMAP_SIZE failed"},
        {{.mmap_error = ENOMEM}, "mmap of kvm_run failed"},
        {{.request = KVM_GET_SUPPORTED_CPUID, .error = ENOMEM}, "KVM_GET_SUPPORTED_CPUID failed"},
        {{.request = KVM_SET_CPUID2, .error = EINVAL}, "KVM_SET_CPUID2 failed"},
    };
    struct vm vm;
    struct vcpu vcpu;

    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        if (one_works(i))
            check_creates_vcpu(&vm, &vcpu);
        start_vm(&vm, &vcpu);
        call_count = 0;
        falsified = failures[i].what;
        const unsigned mapped = kvm_runs_mapped();
        listen_start();
        int status = vcpu_create(&vcpu);
        listen_end();
        const struct falsified *what = &failures[i].what;
        int error = what->error ? what->error : what->mmap_error;
        if (what->request == KVM_GET_VCPU_MMAP_SIZE)
            error = 0; /* -1 may also be reported as too few bytes */
        check_vcpu_kept(&vcpu, mapped, failures[i].name);
        check_no_kvm("vcpu_create", failures[i].name, error, status);
        check_met("vcpu_create", failures[i].name);
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
    for (int i = 0; i < 2; i++) {
        const struct kvm_segment *segment = i == 0 ? &sregs->tr : &sregs->ldt;
        ck_assert_msg(
            !segment->base && !segment->selector && segment->limit == 0xffff,
            "%s has base 0x%llx, selector 0x%x, limit 0x%x instead of 0, 0, 0xffff: it is not "
            "one of the guest's six segments",
            i == 0 ? "TR" : "LDT", segment->base, segment->selector, segment->limit);
    }
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
    ck_assert_msg(regs->rsp <= 0x10000 && ((regs->rsp - 2) & 0xffff) >= 0xff00,
                  "RSP is 0x%llx: the stack must start at the end of the segment's 64 KB",
                  regs->rsp);
    check_general_zero(regs);
    ck_assert_msg(sregs->idt.limit == 0 && sregs->idt.base >= HIGHER_HALF,
                  "IDT has base 0x%llx, limit 0x%x: an exception would run what lies there. The "
                  "limit must be 0, and no memory at the base",
                  sregs->idt.base, sregs->idt.limit);
    const char *fault = entry_state_fault(sregs, regs);
    ck_assert_msg(!fault, "Intel's processors refuse the entry: %s", fault);
}

START_TEST(state)
{
    for (int i = 0; i < 8; i++) {
        uint32_t base = i ? unit_random() & 0xffff0 : 0;
        struct kvm_sregs reset = entry_reset_state();
        reset.apic_base = 0xfee00900;
        struct kvm_sregs sregs = reset;
        struct kvm_regs regs;
        memset(&regs, 0xa5, sizeof regs); /* uninitialised: all must be set */
        real_mode_state(base, &sregs, &regs);
        check_state(base, &reset, &sregs, &regs);
        struct kvm_sregs others = sregs;                          /* all but what the table names */
        memcpy(&others, &reset, offsetof(struct kvm_sregs, gdt)); /* the segments */
        others.idt = reset.idt;
        ck_assert_msg(memcmp(&others, &reset, sizeof others) == 0,
                      "something that section 1.4's table does not name has changed: GDT, CR2 to "
                      "CR8, EFER and the rest must stay as they are after reset");
    }
}
END_TEST

static struct vm other_vm;
static struct vcpu other;

/* The other vCPU's thread. */
static void other_starts(void)
{
    vcpu_set_real_mode(&other, 0x70000);
}

START_TEST(state_set)
{
    struct vm vm;
    struct vcpu vcpu;
    struct kvm_sregs reset, sregs;
    struct kvm_regs regs;
    const uint32_t base = (1 + unit_random() % 15) << 16;

    start_created(&vm, &vcpu);
    kernel(vcpu.fd, KVM_GET_SREGS, &reset);
    ck_assert_msg(vcpu_set_real_mode(&vcpu, base) == 0, "vcpu_set_real_mode does not return 0");
    kernel(vcpu.fd, KVM_GET_SREGS, &sregs);
    kernel(vcpu.fd, KVM_GET_REGS, &regs);
    check_state(base, &reset, &sregs, &regs);

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
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        falsified.request = failures[i].request;
        falsified.error = EFAULT; /* EINVAL is also KVM's answer to registers never read */
        listen_start();
        int status = vcpu_set_real_mode(&vcpu, base);
        listen_end();
        check_no_kvm("vcpu_set_real_mode", failures[i].what, EFAULT, status);
        check_met("vcpu_set_real_mode", failures[i].what);
    }
}
END_TEST

/* ------------------------------------------------------------------ 1.5 vcpu_run */

#define TURNS_MAX 20

static int run_first_exit(struct kvm_run *run, unsigned turn)
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
    falsified.run = script;
    listen_start();
    int status = vcpu_run(vcpu);
    listen_end();
    return status;
}

static int run_hlt(struct kvm_run *run, unsigned turn)
{
    run->exit_reason = turn < TURNS_MAX ? KVM_EXIT_HLT : KVM_EXIT_SHUTDOWN;
    return 0;
}

/* A vCPU for vcpu_run, which has run one to its HLT. */
static void start_run(struct vm *vm, struct vcpu *vcpu)
{
    start_created(vm, vcpu);
    run_turns = 0;
    check_works("vcpu_run of a guest that executes HLT", run_scripted(vcpu, run_hlt));
    start_created(vm, vcpu);
    run_turns = 0;
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

START_TEST(hlt)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    int status = run_scripted(&vcpu, run_hlt);
    ck_assert_msg(run_turns == 1, "after HLT the vCPU was run again");
    ck_assert_msg(status == 0, "after HLT vcpu_run returned %d instead of 0", status);
    ck_assert_msg(vcpu.exits[KVM_EXIT_HLT] == 1,
                  "KVM_EXIT_HLT was not handed to exit_dispatch first");
}
END_TEST

/* Signals come before the first exit and again later; *run holds what it held before. */
static int run_interrupted(struct kvm_run *run, unsigned turn)
{
    if (turn == 0)
        run->exit_reason = KVM_EXIT_SHUTDOWN; /* left from before */
    if (turn < 3)
        return EINTR;
    run->exit_reason = KVM_EXIT_HLT;
    return 0;
}

START_TEST(interrupted)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    int status = run_scripted(&vcpu, run_interrupted);
    ck_assert_msg(vcpu.exits[KVM_EXIT_SHUTDOWN] == 0,
                  "KVM_RUN failed with EINTR, and the exit reason left from before was acted on");
    ck_assert_msg(status == 0 && run_turns == 4,
                  "KVM_RUN failed with EINTR (a signal came), and vcpu_run ended with %d instead "
                  "of running the vCPU again",
                  status);

    start_created(&vm, &vcpu);
    run_turns = 0;
    first_exit = (struct kvm_run){.exit_reason = KVM_EXIT_INTR};
    status = run_scripted(&vcpu, run_first_exit);
    ck_assert_msg(status == 0 && run_turns == 2,
                  "KVM_EXIT_INTR came (a signal), and vcpu_run ended with %d instead of running "
                  "the vCPU again",
                  status);
}
END_TEST

/* Signals come, one as an error and two as exits, then HLT. */
static bool run_after_end; /* the stage had ended the vCPU before */
static bool run_changed;   /* what the stage had put into kvm_run was gone at the entry */

/* As labs 3 and 4 do. */
static void ask_of_run(struct vcpu *vcpu)
{
    vcpu->run->immediate_exit = 1;
    vcpu->run->request_interrupt_window = 1;
}

static int run_signals(struct kvm_run *run, unsigned turn)
{
    run_after_end |= entries_asked >= last_entry;
    run_changed |= !run->immediate_exit || !run->request_interrupt_window;
    if (turn == 0)
        return EINTR;
    run->exit_reason = turn < 3 ? KVM_EXIT_INTR : KVM_EXIT_HLT;
    return 0;
}

START_TEST(before_entry)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    run_scripted(&vcpu, run_interrupted);
    ck_assert_msg(entries_asked >= run_turns,
                  "KVM_RUN was called %u times, and stage_before_entry, which later labs need "
                  "before each of them, %u times",
                  run_turns, entries_asked);
    for (unsigned last = 1; last <= 4; last++) {
        start_created(&vm, &vcpu);
        run_turns = 0;
        entries_asked = 0;
        last_entry = last;
        at_entry = ask_of_run;
        int status = run_scripted(&vcpu, run_signals);
        ck_assert_msg(!run_after_end,
                      "stage_before_entry answered STEP_END when it was asked for the %u. time, "
                      "and KVM_RUN was called all the same",
                      last);
        ck_assert_msg(!run_changed,
                      "stage_before_entry set immediate_exit and request_interrupt_window in "
                      "*vcpu->run, as in labs 3 and 4, and at KVM_RUN one was 0 again");
        ck_assert_msg(vcpu.status == STATUS_GUEST_MAX,
                      "a signal came (EINTR or KVM_EXIT_INTR), and the vCPU ended with status %d "
                      "instead of being run on until stage_before_entry ends it",
                      vcpu.status);
        ck_assert_msg(status == STATUS_GUEST_MAX,
                      "after stage_before_entry ended the vCPU, vcpu_run returned %d, and "
                      "vcpu->status is %d",
                      status, vcpu.status);
    }
}
END_TEST

static int halt_answers;

/* Runs on after the first HLT, and ends the vCPU at the second. */
static enum step on_halt(struct vcpu *vcpu)
{
    return ++halt_answers == 1 ? STEP_RUN : vcpu_end(vcpu, 5);
}

static int run_halts(struct kvm_run *run, unsigned turn)
{
    run->exit_reason = turn < TURNS_MAX ? KVM_EXIT_HLT : KVM_EXIT_SHUTDOWN;
    return 0;
}

START_TEST(handlers)
{
    struct vm vm;
    struct vcpu vcpu;
    struct stage changed = stage;

    start_created(&vm, &vcpu);
    changed.on_exit[KVM_EXIT_HLT] = on_halt;
    stage_set(&changed);
    int status = run_scripted(&vcpu, run_halts);
    ck_assert_msg(halt_answers != 0, "KVM_EXIT_HLT was not handed to exit_dispatch, which calls "
                                     "the handlers of later labs");
    ck_assert_msg(halt_answers == 2,
                  "exit_dispatch answered STEP_RUN, and the vCPU was not run again");
    ck_assert_msg(run_turns == 2, "exit_dispatch answered STEP_END, and the vCPU was run again");
    ck_assert_msg(vcpu.status == 5,
                  "exit_dispatch answered STEP_END with vcpu->status 5, and then it was %d",
                  vcpu.status);
    ck_assert_msg(status == 5,
                  "after exit_dispatch answered STEP_END, vcpu_run returned %d, and vcpu->status "
                  "is 5",
                  status);
}
END_TEST

static int run_fault(struct kvm_run *run, unsigned turn)
{
    if (turn > 0)
        run->exit_reason = KVM_EXIT_HLT;
    return turn == 0 ? run_fault_error : 0;
}

START_TEST(run_error)
{
    static const int errors[] = {EFAULT, EAGAIN};
    struct vm vm;
    struct vcpu vcpu;

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        const char *why = strerror(errors[i]);
        start_run(&vm, &vcpu);
        run_fault_error = errors[i];
        int status = run_scripted(&vcpu, run_fault);
        ck_assert_msg(run_turns == 1, "KVM_RUN failed (%s), and the vCPU was run again", why);
        ck_assert_msg(strstr(said, why),
                      "KVM_RUN failed, and the message does not contain the reason (%s)", why);
        ck_assert_msg(vcpu.status == STATUS_CRASHED,
                      "KVM_RUN failed, and vcpu->status is %d instead of STATUS_CRASHED (%d)",
                      vcpu.status, STATUS_CRASHED);
        ck_assert_msg(status == vcpu.status,
                      "after KVM_RUN failed, vcpu_run returned %d, and vcpu->status is %d", status,
                      vcpu.status);
        ck_assert_msg(strstr(said, "(guest) crashed: "),
                      "KVM_RUN failed, and there is no post-mortem: vcpu_crash prints it");
    }
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
    return strstr(message, "read");
}

static bool says_write(const char *message)
{
    return strstr(message, "writ") || strstr(message, "wrote");
}

START_TEST(accesses)
{
    const uint16_t port = (uint16_t)(0x1000 + unit_random() % 0xe000);
    const uint64_t address = 0x10000000u + unit_random() % 0x10000000u;
    static char of_read[sizeof said];

    exit_begin(KVM_EXIT_IO);
    first_exit.io.direction = KVM_EXIT_IO_IN;
    first_exit.io.size = 1;
    first_exit.io.count = 1;
    first_exit.io.port = port;
    first_exit.io.data_offset = PAGE_BYTES;
    check_died("KVM_EXIT_IO");
    ck_assert_msg(said_number(port), "KVM_EXIT_IO: your message lacks the port, 0x%x", port);
    check_no_other_fields("KVM_EXIT_IO", 2);

    exit_begin(KVM_EXIT_MMIO);
    first_exit.mmio.phys_addr = address;
    first_exit.mmio.len = 2;
    first_exit.mmio.is_write = false;
    check_died("KVM_EXIT_MMIO");
    ck_assert_msg(said_number(address), "KVM_EXIT_MMIO: your message lacks the address, 0x%llx",
                  (unsigned long long)address);
    check_no_other_fields("KVM_EXIT_MMIO", 2);
    memcpy(of_read, said, sizeof said);
    first_exit.mmio.is_write = true;
    check_died("KVM_EXIT_MMIO");
    ck_assert_msg(strcmp(of_read, said) != 0,
                  "KVM_EXIT_MMIO: your message is the same for a read and for a write");
    ck_assert_msg(
        !(says_write(of_read) && !says_read(of_read) && says_read(said) && !says_write(said)),
        "KVM_EXIT_MMIO: the message reports a write when the guest read, and a read when it "
        "wrote");
}
END_TEST

START_TEST(fail_entry)
{
    const uint64_t reason = (uint64_t)(0x80000000u | unit_random()) << 32 | unit_random();

    exit_begin(KVM_EXIT_FAIL_ENTRY);
    first_exit.fail_entry.hardware_entry_failure_reason = reason;
    check_died("KVM_EXIT_FAIL_ENTRY");
    ck_assert_msg(said_hexadecimal(reason),
                  "KVM_EXIT_FAIL_ENTRY: the message lacks the hardware's reason, 0x%llx: all 64 "
                  "bits of it, in hexadecimal",
                  (unsigned long long)reason);
    check_no_other_fields("KVM_EXIT_FAIL_ENTRY", 1);
}
END_TEST

START_TEST(internal_error)
{
    const uint32_t suberror = 10000 + unit_random() % 10000;

    first_exit = (struct kvm_run){.exit_reason = KVM_EXIT_INTERNAL_ERROR};
    first_exit.internal.suberror = suberror;
    first_exit.internal.ndata = 3;
    for (int i = 0; i < 16; i++)
        first_exit.internal.data[i] = (0x10000000ull | unit_random()) << 8 | 0xab;
    check_died("KVM_EXIT_INTERNAL_ERROR");
    ck_assert_msg(said_number(suberror),
                  "KVM_EXIT_INTERNAL_ERROR: the message lacks the suberror, %u", suberror);
    for (int i = 0; i < 3; i++)
        ck_assert_msg(said_number(first_exit.internal.data[i]),
                      "KVM_EXIT_INTERNAL_ERROR: the message lacks data[%d], 0x%llx", i,
                      first_exit.internal.data[i]);
    ck_assert_msg(!said_number(first_exit.internal.data[3]),
                  "KVM_EXIT_INTERNAL_ERROR: the message has more than ndata (3) words of data");

    first_exit.internal.ndata = 0;
    check_died("KVM_EXIT_INTERNAL_ERROR");
    ck_assert_msg(!said_number(first_exit.internal.data[0]),
                  "KVM_EXIT_INTERNAL_ERROR: ndata is 0, and the message has data[0]");

    const uint64_t behind = 0xabcdef0000000000ull | unit_random();
    memcpy(first_exit.padding + sizeof first_exit.internal, &behind, sizeof behind);
    for (int i = 0; i < 16; i++)
        first_exit.internal.data[i] =
            1ull << 63 | (uint64_t)unit_random() << 24 | 0xcdef00u | (unsigned)i;
    for (uint32_t count = 16; count <= 17; count++) {
        first_exit.internal.ndata = count;
        check_died("KVM_EXIT_INTERNAL_ERROR");
        for (int i = 0; i < 16; i++)
            ck_assert_msg(said_number(first_exit.internal.data[i]),
                          "KVM_EXIT_INTERNAL_ERROR: ndata is %u, every word has 16 digits, and the "
                          "message lacks data[%d], 0x%llx: is your text cut off?",
                          count, i, first_exit.internal.data[i]);
        ck_assert_msg(!said_number(behind),
                      "KVM_EXIT_INTERNAL_ERROR: ndata is %u, and the message has the word after "
                      "the 16 words of data",
                      count);
    }
}
END_TEST

START_TEST(other_reasons)
{
    const struct {
        uint32_t reason;
        size_t words; /* of kvm_run that belong to the exit */
        bool named;
    } exits[] = {{KVM_EXIT_SHUTDOWN, 0, false},
                 {KVM_EXIT_UNKNOWN, 1, true},
                 {KVM_EXIT_DEBUG, sizeof first_exit.debug / sizeof(uint64_t), true},
                 {EXIT_REASONS_MAX + unit_random() % 1000, 0, false}};

    for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++) {
        const char *name = exit_name(exits[i].reason);
        exit_begin(exits[i].reason);
        check_died(name);
        ck_assert_msg(!exits[i].named || strcasestr(said, name + strlen("KVM_EXIT_")),
                      "%s: your message does not name the exit reason: exit_name", name);
        check_no_other_fields(name, exits[i].words);
    }
    ck_assert_msg(said_number(exits[3].reason),
                  "the message about an exit reason without a name must give its number");
}
END_TEST

/* ------------------------------------------------------------------ 1.6 tear down */

START_TEST(given_back)
{
    struct vm vm;
    struct vcpu vcpu;

    start_created(&vm, &vcpu);
    const struct vm vm_before = vm;
    void *run = vcpu.run, *ram = vm.ram;
    const int vcpu_fd = vcpu.fd;
    const size_t run_bytes = vcpu.run_bytes;
    vcpu_destroy(&vcpu);
    ck_assert_msg(!is_mapped(run), "vcpu_destroy leaves kvm_run mapped");
    ck_assert_msg(!is_mapped((uint8_t *)run + run_bytes - PAGE_BYTES),
                  "vcpu_destroy leaves the end of kvm_run mapped: it has vcpu->run_bytes (%zu)",
                  run_bytes);
    ck_assert_msg(!is_open(vcpu_fd), "vcpu_destroy leaves the vCPU's descriptor open");
    vm_destroy(&vm);
    ck_assert_msg(!is_mapped(ram) && !is_mapped((uint8_t *)ram + vm_before.ram_bytes - PAGE_BYTES),
                  "vm_destroy leaves the guest's RAM mapped");
    ck_assert_msg(!is_open(vm_before.fd), "vm_destroy leaves the VM's descriptor open");
    ck_assert_msg(!is_open(vm_before.kvm_fd), "vm_destroy leaves /dev/kvm open");
    ck_assert_msg(bad_closes == 0, "something was closed or unmapped that was not there");

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

    start_created(&vm, &vcpu);
    const int vcpu_fd = vcpu.fd, vm_fd = vm.fd, kvm_fd = vm.kvm_fd;
    void *const run = vcpu.run, *const ram = vm.ram;
    vcpu_destroy(&vcpu);
    ck_assert_msg(vcpu.fd == -1 && !vcpu.run,
                  "after vcpu_destroy vcpu->fd is %d instead of -1, or vcpu->run is not NULL: a "
                  "second call would release it again",
                  vcpu.fd);
    ck_assert_msg(!is_open(vcpu_fd) && !is_mapped(run),
                  "vcpu_destroy sets vcpu->fd and vcpu->run, and does not release what they were");
    vm_destroy(&vm);
    ck_assert_msg(
        vm.fd == -1 && vm.kvm_fd == -1 && !vm.ram,
        "after vm_destroy vm->fd is %d and vm->kvm_fd %d instead of -1, or vm->ram is not "
        "NULL: a second call would release it again",
        vm.fd, vm.kvm_fd);
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

    start_vm(&vm, &vcpu);
    vm.ram = NULL;
    int vm_fd = vm.fd;
    vm_destroy(&vm);
    ck_assert_msg(!is_open(vm_fd), "with RAM not mapped, the VM's descriptor stays open");
    ck_assert_msg(bad_closes == 0, "with RAM not mapped, NULL was unmapped");

    start_created(&vm, &vcpu);
    vcpu.run = NULL;
    int vcpu_fd = vcpu.fd;
    vcpu_destroy(&vcpu);
    vm_destroy(&vm);
    ck_assert_msg(!is_open(vcpu_fd), "with kvm_run not mapped, the vCPU's descriptor stays open");
    ck_assert_msg(bad_closes == 0, "with kvm_run not mapped, NULL was unmapped");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vm");

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
