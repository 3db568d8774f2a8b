#define _GNU_SOURCE
#include "isolation.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __aarch64__
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#endif
#define X32_CALLS 0x40000000 /* system call numbers of the x32 ABI begin here */

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442 /* Linux 5.12; the same number on every architecture */
#endif

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return done;
}

/* The same user inside as outside (user_namespaces(7)): files keep their owners, /dev/kvm its
 * group. */
static bool map_user(uid_t user, gid_t group)
{
    char map[64];
    snprintf(map, sizeof map, "%u %u 1", user, user);
    if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", map))
        return false;
    snprintf(map, sizeof map, "%u %u 1", group, group);
    return write_text("/proc/self/gid_map", map);
}

pid_t isolation_fork(enum isolation isolation)
{
    unsigned long flags = SIGCHLD;
    uid_t user = geteuid();
    gid_t group = getegid();
    if (isolation != ISOLATION_PLAIN)
        flags |= CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC;
    if (isolation == ISOLATION_USER_NAMESPACES)
        flags |= CLONE_NEWUSER;
    pid_t child = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 1, 0, 0,
          0); /* else /proc/self belongs to root and we can't write the map */
    if (isolation == ISOLATION_USER_NAMESPACES && !map_user(user, group))
        _exit(1);
    prctl(PR_SET_DUMPABLE, 0, 0, 0,
          0); /* no process of the same user may trace us or open our descriptors */
    return 0;
}

static bool mount_tmpfs(const char *path, size_t bytes, uid_t owner, const char *mode)
{
    char options[128];
    snprintf(options, sizeof options, "size=%zu,nr_inodes=4096,mode=%s,uid=%u", bytes, mode, owner);
    return mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0;
}

static bool attributes_change(const char *path, unsigned flags, struct mount_attr attributes)
{
    return syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &attributes, sizeof attributes) == 0;
}

/* Make the file system read-only, and, as that applies only to files, all devices but these
 * unusable. One that could not be used before stays so. */
static bool mount_readonly(void)
{
    static const char *const devices[] = {"/dev/null",    "/dev/zero", "/dev/full", "/dev/random",
                                          "/dev/urandom", "/dev/tty",  "/dev/kvm"};
    enum { COUNT = sizeof devices / sizeof *devices };
    bool there[COUNT];
    for (int i = 0; i < COUNT; i++)
        there[i] = mount(devices[i], devices[i], NULL, MS_BIND, NULL) == 0;
    if (!attributes_change("/", AT_RECURSIVE,
                           (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV}))
        return false;
    for (int i = 0; i < COUNT; i++)
        if (there[i])
            attributes_change(devices[i], 0, (struct mount_attr){.attr_clr = MOUNT_ATTR_NODEV});
    return true;
}

/* Terminals of the run's own. The machine's /dev/ptmx can't stay: where it is a mount of its own,
 * the kernel does not find /dev/pts beside it. */
static bool mount_terminals(void)
{
    return mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
                 "newinstance,ptmxmode=0666,mode=0600") == 0 &&
           mount("/dev/pts/ptmx", "/dev/ptmx", NULL, MS_BIND, NULL) == 0;
}

bool isolation_mount(enum isolation isolation, const char *scratch, size_t bytes, uid_t owner)
{
    if (isolation == ISOLATION_PLAIN)
        return chown(scratch, owner, (gid_t)-1) == 0;
    return mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount_readonly() &&
           mount_terminals() &&
           mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0 &&
           (access("/dev/shm", F_OK) != 0 || mount_tmpfs("/dev/shm", bytes, owner, "1777")) &&
           mount_tmpfs(scratch, bytes, owner, "0700");
}

bool isolation_limit(__rlimit_resource_t resource, rlim_t value)
{
    return setrlimit(resource, &(struct rlimit){value, value}) == 0;
}

/* The only capability that a learner's program keeps if the grader is root: in a container the
 * learner's files often belong to another user. */
static bool keep_only_override(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[2] = {0}, data[2] = {0};
    if (syscall(SYS_capget, &header, had) != 0)
        return false;
    uint32_t kept = had[0].permitted & 1U << CAP_DAC_OVERRIDE;
    data[0].permitted = data[0].effective = data[0].inheritable = kept;
    return syscall(SYS_capset, &header, data) == 0 &&
           (geteuid() == 0 || !kept ||
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0) == 0);
}

static bool become_user(uid_t user)
{
    return setgroups(0, NULL) == 0 && setresgid(user, user, user) == 0 &&
           setresuid(user, user, user) == 0;
}

/* A filter of system calls, whose last two instructions allow and deny. */
struct filter {
    struct sock_filter code[80];
    uint8_t count, deny; /* the instructions so far; the last one's place */
};

static void filter_add(struct filter *filter, uint16_t code, uint32_t value)
{
    filter->code[filter->count++] = (struct sock_filter)BPF_STMT(code, value);
}

static void filter_load(struct filter *filter, size_t offset)
{
    filter_add(filter, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
}

/* So many places forward if the test of what was loaded is true, and if it is not; 0: the next. */
static void filter_jump(struct filter *filter, uint16_t test, uint32_t value, uint8_t on_true,
                        uint8_t on_false)
{
    filter->code[filter->count++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, value, on_true, on_false);
}

static uint8_t filter_deny(const struct filter *filter)
{
    return (uint8_t)(filter->deny - filter->count - 1);
}

static uint8_t filter_allow(const struct filter *filter)
{
    return (uint8_t)(filter_deny(filter) - 1);
}

/* What a VMM of the labs may ask of KVM: versions and limits, a VM with memory and vCPUs, to run
 * them, the processor's state, and what only observes. Nothing by which KVM emulates a device or
 * walks page tables, and nothing of debuggers: a smaller part of KVM, and of the QEMU below it. */
static const uint32_t kvm_requests[] = {
    KVM_GET_API_VERSION,
    KVM_CHECK_EXTENSION,
    KVM_GET_VCPU_MMAP_SIZE,
    KVM_CREATE_VM,
    KVM_SET_USER_MEMORY_REGION,
    KVM_GET_DIRTY_LOG,
    KVM_IOEVENTFD,
    KVM_CREATE_VCPU,
    KVM_RUN,
    KVM_SET_SIGNAL_MASK,
    KVM_GET_STATS_FD,
    KVM_GET_MP_STATE,
    KVM_SET_MP_STATE,
#ifdef __x86_64__
    KVM_SET_TSS_ADDR,
    KVM_SET_IDENTITY_MAP_ADDR,
    KVM_GET_SUPPORTED_CPUID,
    KVM_GET_EMULATED_CPUID,
    KVM_SET_CPUID,
    KVM_SET_CPUID2,
    KVM_GET_CPUID2,
    KVM_GET_MSR_INDEX_LIST,
    KVM_GET_MSR_FEATURE_INDEX_LIST,
    KVM_GET_MSRS,
    KVM_SET_MSRS,
    KVM_GET_REGS,
    KVM_SET_REGS,
    KVM_GET_SREGS,
    KVM_SET_SREGS,
    KVM_GET_SREGS2,
    KVM_SET_SREGS2,
    KVM_GET_FPU,
    KVM_SET_FPU,
    KVM_GET_XSAVE,
    KVM_SET_XSAVE,
    KVM_GET_XCRS,
    KVM_SET_XCRS,
    KVM_GET_DEBUGREGS,
    KVM_GET_VCPU_EVENTS,
    KVM_GET_TSC_KHZ,
    KVM_SET_TSC_KHZ,
    KVM_INTERRUPT,
#endif
};
enum {
    KVM_REQUESTS = sizeof kvm_requests / sizeof *kvm_requests,
    KVM_REQUESTS_CODE = KVM_REQUESTS + 6,
};

/* An ioctl whose request is of KVM's type must be one of these. */
static void filter_kvm_requests(struct filter *filter)
{
    const size_t request = offsetof(struct seccomp_data, args[1]);

    filter_jump(filter, BPF_JEQ, SYS_ioctl, 0, filter_allow(filter));
    filter_load(filter, request);
    filter_add(filter, BPF_ALU | BPF_AND | BPF_K, _IOC(0, 0xff, 0, 0));
    filter_jump(filter, BPF_JEQ, _IOC(0, KVMIO, 0, 0), 0, filter_allow(filter));
    filter_load(filter, request);
    for (int i = 0; i < KVM_REQUESTS; i++)
        filter_jump(filter, BPF_JEQ, kvm_requests[i], filter_allow(filter), 0);
    filter_add(filter, BPF_JMP | BPF_JA, filter_deny(filter));
}

bool isolation_forbid_calls(bool sockets, bool kvm_devices)
{
    static const uint32_t calls[] = {/* what they make outlives its process */
                                     SYS_add_key, SYS_request_key, SYS_keyctl, SYS_semget,
                                     SYS_msgget, SYS_shmget, SYS_mq_open,
                                     /* large parts of the kernel, which no VMM needs */
                                     SYS_perf_event_open, SYS_userfaultfd, SYS_bpf,
                                     /* and with sockets: io_uring creates them as well */
                                     SYS_socket, SYS_io_uring_setup};
    enum { ALL = sizeof calls / sizeof *calls, WITHOUT_SOCKETS = ALL - 2 };
    const int count = sockets ? ALL : WITHOUT_SOCKETS;
    struct filter filter = {.deny = (uint8_t)(5 + count + (kvm_devices ? KVM_REQUESTS_CODE : 0))};

    filter_load(&filter, offsetof(struct seccomp_data, arch));
    filter_jump(&filter, BPF_JEQ, NATIVE_ARCH, 0, filter_deny(&filter));
    filter_load(&filter, offsetof(struct seccomp_data, nr));
    filter_jump(&filter, BPF_JGE, X32_CALLS, filter_deny(&filter), 0);
    for (int i = 0; i < count; i++)
        filter_jump(&filter, BPF_JEQ, calls[i], filter_deny(&filter), 0);
    if (kvm_devices)
        filter_kvm_requests(&filter);
    filter_add(&filter, BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter_add(&filter, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    struct sock_fprog program = {.len = filter.count, .filter = filter.code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                   &program) == 0;
}

bool isolation_drop_rights(uid_t user, bool override)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    for (int cap = 0; cap < 64; cap++)
        if (cap != CAP_DAC_OVERRIDE)
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    /* Capabilities survive the change of user, and access(2) respects them, as open(2) does. */
    if (user && override && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0)
        return false;
    if (user && !become_user(user))
        return false;
    if (override ? !keep_only_override() : syscall(SYS_capset, &header, none) != 0)
        return false;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Try a run's complete setup in a child. */
static bool isolation_try(enum isolation isolation)
{
    char scratch[] = "/tmp/mini-kvm-trial-XXXXXX";
    if (!mkdtemp(scratch))
        return false;
    pid_t child = isolation_fork(isolation);
    if (child == 0)
        _exit(isolation_mount(isolation, scratch, 1 << 20, geteuid()) ? 0 : 1);
    int status = 1;
    bool works = child > 0 && waitpid(child, &status, 0) == child && status == 0;
    rmdir(scratch);
    return works;
}

enum isolation isolation_detect(void)
{
    if (isolation_try(ISOLATION_NAMESPACES))
        return ISOLATION_NAMESPACES;
    return isolation_try(ISOLATION_USER_NAMESPACES) ? ISOLATION_USER_NAMESPACES : ISOLATION_PLAIN;
}

uid_t isolation_user(enum isolation isolation)
{
    enum { NO_PROGRAMS_USER = 65533 };
    if (geteuid() != 0 || isolation == ISOLATION_USER_NAMESPACES)
        return 0;
    pid_t child = fork();
    if (child == 0)
        _exit(isolation_drop_rights(NO_PROGRAMS_USER, true) &&
                      prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_DAC_OVERRIDE, 0, 0) == 1
                  ? 0
                  : 1);
    int status = 1;
    bool works = child > 0 && waitpid(child, &status, 0) == child && status == 0;
    return works ? NO_PROGRAMS_USER : 0;
}
