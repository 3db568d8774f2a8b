/* Process 1 of the lab VM: sets up /dev/kvm and the channel to the host, then starts the runner.
 *
 * The runner is /runner; the modules are /modules/NN-name.ko, loaded in the order of their names.
 * Errors are printed on the console, which the host keeps for its error message. When the runner
 * ends, the VM ends (QEMU: -no-reboot). */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/reboot.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The first port of the first virtio-serial device; its node appears some time after the module is
 * loaded. */
static const char channel_path[] = "/dev/vport0p1";

enum { CHANNEL_WAIT_MS = 10000, CHANNEL_STEP_MS = 10 };

static void end(const char *what)
{
    if (what)
        fprintf(stderr, "lab VM: %s: %s\n", what, strerror(errno));
    reboot(LINUX_REBOOT_CMD_RESTART);
    _exit(1);
}

static void mount_at(const char *type, const char *path, const char *options)
{
    mkdir(path, 0755);
    if (mount(type, path, type, 0, options) != 0 && errno != EBUSY)
        end(path);
}

static void console_open(void)
{
    int console = open("/dev/console", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        if (console >= 0)
            dup2(console, fd);
    if (console > STDERR_FILENO)
        close(console);
}

/* At the end of each VM, KVM's TDP MMU waits for two ticks of the clock: rcu_barrier. */
static const char *parameters(const char *module)
{
    return strcmp(module + strcspn(module, "-"), "-kvm.ko") == 0 ? "tdp_mmu=0" : "";
}

static void modules_load(void)
{
    struct dirent **entries;
    int count = scandir("/modules", &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[300];
        if (entries[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/modules/%.200s", entries[i]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, parameters(entries[i]->d_name), 0) != 0)
            end(path);
        close(fd);
        unlink(path);
    }
}

static void setting_write(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) != (ssize_t)strlen(value))
        end(path);
    close(fd);
}

static void settings_write(void)
{
    /* As on a host with more memory than the learner's program requests. */
    setting_write("/proc/sys/vm/overcommit_memory", "1");
    /* QEMU translates code per address: with all programs at the same address, it translates them
     * only once. */
    setting_write("/proc/sys/kernel/randomize_va_space", "0");
    /* A user namespace would give a program capabilities in it, and with them more of the kernel to
     * attack. */
    setting_write("/proc/sys/user/max_user_namespaces", "0");
    if (chmod("/dev/kvm", 0666) != 0)
        end("/dev/kvm");
    chmod("/root",
          0755); /* the kernel creates it inaccessible; files of the host's root go there */
}

/* KVM patches about 180 places of its code when the first vCPU appears that has no interrupt
 * controller in the kernel, and again when the last one is gone (kvm_has_noapic_vcpu). In QEMU that
 * takes 20 ms for each VM, so one such vCPU exists as long as the lab VM. */
static void vcpu_keep(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
        end("/dev/kvm");
}

/* Lets the real-time clock interrupt 64 times per second. QEMU's VMRUN and VMEXIT change the vCPU's
 * interrupt_request (V_IRQ) without the lock under which a device sets its bit there, so they can
 * lose the bit. If that was the local APIC's timer, an idle kernel would sleep forever. Its
 * interrupt is still pending in the APIC, and the next one of any other device delivers it. A
 * kernel without this clock works as well, but may stop in that way. */
static void clock_start(void)
{
    int clock = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
    if (clock >= 0)
        ioctl(clock, RTC_UIE_ON, 0);
}

static int channel_open(void)
{
    for (int waited = 0; waited < CHANNEL_WAIT_MS; waited += CHANNEL_STEP_MS) {
        int fd = open(channel_path, O_RDWR);
        if (fd >= 0)
            return fd;
        nanosleep(&(struct timespec){.tv_nsec = CHANNEL_STEP_MS * 1000000}, NULL);
    }
    end(channel_path);
    return -1;
}

int main(void)
{
    mount_at("proc", "/proc", NULL);
    mount_at("sysfs", "/sys", NULL);
    mount_at("devtmpfs", "/dev", NULL);
    mount_at("devpts", "/dev/pts", "ptmxmode=666,mode=620");
    mount_at("tmpfs", "/dev/shm", "mode=1777");
    mount_at("tmpfs", "/tmp", "mode=1777");
    console_open();
    modules_load();
    settings_write();
    vcpu_keep();
    clock_start();
    setting_write("/proc/self/oom_score_adj",
                  "-1000"); /* also for the runner: programs are killed first */
    pid_t runner = fork();
    if (runner == 0) {
        int channel = channel_open();
        dup2(channel, 0);
        close(channel);
        /* 1000: any user but root, so that a run can reach neither the channel nor the kernel. */
        execl("/runner", "runner", "1000", (char *)NULL);
        end("/runner");
    }
    while (waitpid(-1, NULL, 0) != runner)
        continue;
    end(NULL);
}
