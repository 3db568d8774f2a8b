/*
 * A program that does what the runner's tests ask of it, well or badly: program ACTION [ARGUMENT].
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void forever(void)
{
    for (;;)
        pause();
}

static void copy(void)
{
    static char buffer[65536];
    ssize_t got;
    while ((got = read(0, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)got) != got)
            exit(1);
}

static void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        exit(1);
}

static void handler(int number)
{
    char text[32];
    if (number == SIGWINCH) {
        struct winsize size;
        ioctl(0, TIOCGWINSZ, &size);
        snprintf(text, sizeof text, "size %u %u\n", size.ws_row, size.ws_col);
        say(text);
        return;
    }
    snprintf(text, sizeof text, "signal %d\n", number);
    say(text);
    _exit(40 + number);
}

static void lines_answer(void)
{
    char line[256];
    say("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        printf("got %s", line);
        fflush(stdout);
    }
    say("end of input\n");
}

static void disk_fill(void)
{
    static char block[1 << 20];
    int files = 0;
    signal(SIGXFSZ, SIG_IGN);
    for (; files < 100; files++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", files);
        int fd = open(name, O_WRONLY | O_CREAT, 0600);
        if (fd < 0)
            break;
        while (write(fd, block, sizeof block) > 0)
            continue;
        close(fd);
    }
}

static void memory_fill(void)
{
    for (;;) {
        size_t size = 8 << 20;
        char *block = malloc(size);
        if (!block)
            forever();
        memset(block, 1, size);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

/* Many processes with all of the first one's memory: only together are they too large. */
static void herd(void)
{
    enum { CHILDREN = 60, BYTES = 20 << 20, PAGE_BYTES = 4096 };
    char *block = malloc(BYTES);
    for (int i = 0; block && i < BYTES; i += PAGE_BYTES)
        ((volatile char *)block)[i] = 1;
    for (int i = 0; i < CHILDREN; i++)
        if (fork() == 0)
            forever();
    forever();
}

/* Whether the kernel itself bounds the number of our processes; it does not bound root's. */
static void fork_at_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NPROC, &limit);
    say(limit.rlim_cur == RLIM_INFINITY ? "no limit\n" : "a limit\n");
    setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0});
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    say(child < 0 && errno == EAGAIN ? "none beyond it\n" : "one beyond it\n");
}

/* Children that escape the process group and hold stdout and stderr open. */
static void leave_daemons(void)
{
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            setsid();
            if (fork() == 0)
                forever();
            _exit(0);
        }
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
}

static void attack_parent(void)
{
    pid_t parent = getppid();
    kill(parent, SIGKILL);
    kill(parent, SIGSTOP);
    long traced = ptrace(PTRACE_ATTACH, parent, 0, 0);
    int descriptor = open("/dev/vport0p1", O_RDWR);
    printf("traced %d, channel %d, still here\n", traced == 0, descriptor >= 0);
}

/* Keep something in the user's keyring, by the system call of each ABI. */
static void keep_a_key(void)
{
    enum { USER_KEYRING = -4, ADD_KEY_I386 = 286, X32 = 0x40000000 };
    long key = syscall(SYS_add_key, "user", "kept", "x", 1, USER_KEYRING);
    printf("%s\n", key < 0 ? strerror(errno) : "kept");
    key = syscall(SYS_add_key | X32, "user", "kept", "x", 1, USER_KEYRING);
    printf("%s\n", key < 0 ? strerror(errno) : "kept");
#ifdef __x86_64__
    long answer;
    __asm__ volatile("int $0x80"
                     : "=a"(answer)
                     : "a"(ADD_KEY_I386), "b"(0), "c"(0), "d"(0)
                     : "memory");
    printf("%s\n", strerror((int)-answer));
#endif
}

/* Take memory of the kernel that stays when this process ends. */
static void take_ipc(void)
{
    long taken[] = {
        syscall(SYS_semget, IPC_PRIVATE, 1, 0600),
        syscall(SYS_msgget, IPC_PRIVATE, 0600),
        syscall(SYS_shmget, IPC_PRIVATE, 4096, 0600),
        syscall(SYS_mq_open, "/queue", O_CREAT | O_RDWR, 0600, NULL),
    };
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        printf("%s\n", taken[i] < 0 ? "refused" : "taken");
}

static void connect_somewhere(void)
{
    int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    printf("%s\n", descriptor < 0 ? strerror(errno) : "a socket");
    long ring = syscall(SYS_io_uring_setup, 1, NULL);
    printf("%s\n", ring < 0 ? strerror(errno) : "a ring");
}

/* First those by which KVM emulates devices, two of debuggers, two that KVM does not know yet, and
 * one that it knows by another size; then those of a VMM, one of which, KVM_GET_TSC_KHZ, has
 * KVM_ENABLE_CAP's number; then another device's. */
static void ask_for_devices(void)
{
    static const unsigned long requests[] = {KVM_CREATE_IRQCHIP,
                                             _IO(KVMIO, 0x64) /* KVM_CREATE_PIT */,
                                             KVM_CREATE_PIT2,
                                             KVM_ENABLE_CAP,
                                             KVM_CREATE_DEVICE,
                                             KVM_XEN_HVM_CONFIG,
                                             KVM_IRQFD,
                                             KVM_TRANSLATE,
                                             KVM_SET_GUEST_DEBUG,
                                             _IO(KVMIO, 0xff),
                                             _IOW(KVMIO, 0xfe, long),
                                             _IOW(KVMIO, 0x80, long) /* nearly KVM_RUN */,
                                             KVM_CREATE_VM,
                                             KVM_RUN,
                                             KVM_SET_SREGS,
                                             KVM_GET_TSC_KHZ,
                                             KVM_SET_MSRS,
                                             0x5460};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        printf("%s\n", ioctl(STDIN_FILENO, requests[i], NULL) < 0 ? strerror(errno) : "done");
}

static void leave_user_namespace(void)
{
    say(unshare(CLONE_NEWUSER) == 0 ? "left\n" : strerror(errno));
}

int main(int argc, char **argv)
{
    const char *action = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(action, "exit"))
        return atoi(argument);
    if (!strcmp(action, "signal")) {
        signal(atoi(argument), SIG_DFL);
        raise(atoi(argument));
    } else if (!strcmp(action, "show")) {
        for (int i = 2; i < argc; i++)
            printf("[%s]", argv[i]);
        for (char **variable = environ; *variable; variable++)
            printf("{%s}", *variable);
    } else if (!strcmp(action, "both")) {
        say("out");
        fputs("err", stderr);
    } else if (!strcmp(action, "copy")) {
        copy();
    } else if (!strcmp(action, "lines")) {
        lines_answer();
    } else if (!strcmp(action, "signals")) {
        for (int number = 1; number < 32; number++)
            signal(number, handler);
        say("ready\n");
        forever();
    } else if (!strcmp(action, "stubborn")) {
        for (int number = 1; number < 32; number++)
            signal(number, SIG_IGN);
        forever();
    } else if (!strcmp(action, "naps")) {
        for (;;)
            nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    } else if (!strcmp(action, "print")) {
        for (;;)
            say("0123456789abcdefghijklmnopqrstuvwxyz\n");
    } else if (!strcmp(action, "memory-unnamed")) {
        prctl(PR_SET_NAME, "a\nb) R");
        memory_fill();
    } else if (!strcmp(action, "spin-in-child") && fork() > 0) {
        wait(NULL);
    } else if (!strncmp(action, "spin", 4)) {
        for (;;)
            __asm__ volatile("");
    } else if (!strcmp(action, "fork")) {
        for (;;)
            fork();
    } else if (!strcmp(action, "herd")) {
        herd();
    } else if (!strcmp(action, "fork-at-limit")) {
        fork_at_limit();
    } else if (!strcmp(action, "memory")) {
        memory_fill();
    } else if (!strcmp(action, "disk")) {
        disk_fill();
    } else if (!strcmp(action, "daemons")) {
        leave_daemons();
    } else if (!strcmp(action, "kill-all")) {
        kill(-1, SIGKILL);
        say("alive\n");
    } else if (!strcmp(action, "keep")) {
        keep_a_key();
    } else if (!strcmp(action, "ipc")) {
        take_ipc();
    } else if (!strcmp(action, "new-user-namespace")) {
        leave_user_namespace();
    } else if (!strcmp(action, "connect")) {
        connect_somewhere();
    } else if (!strcmp(action, "ask-for-devices")) {
        ask_for_devices();
    } else if (!strcmp(action, "attack")) {
        attack_parent();
    } else if (!strcmp(action, "write")) {
        FILE *file = fopen(argument, "w");
        if (!file || fputs("written", file) < 0 || fclose(file) != 0)
            printf("%s\n", strerror(errno));
    } else if (!strcmp(action, "link")) {
        return symlink(argument, "link") != 0;
    } else if (!strcmp(action, "read")) {
        int fd = open(argument, O_RDONLY);
        return fd < 0 ? errno : (dup2(fd, 0), copy(), 0);
    } else if (!strcmp(action, "access")) {
        say(access(argument, R_OK) == 0 ? "yes\n" : "no\n");
    } else if (!strcmp(action, "new-terminal")) {
        int fd = posix_openpt(O_RDWR | O_NOCTTY);
        if (fd < 0 || grantpt(fd) != 0 || unlockpt(fd) != 0 || open(ptsname(fd), O_RDWR) < 0)
            return errno;
    } else if (!strcmp(action, "terminal")) {
        struct termios settings;
        printf("%d%d%d\n", isatty(0), isatty(1), isatty(2));
        handler(SIGWINCH);
        tcgetattr(0, &settings);
        cfmakeraw(&settings);
        tcsetattr(0, TCSANOW, &settings);
    }
    return 0;
}
