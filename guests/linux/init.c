/*
 * init.c - process 1 of the kit's Linux guest: a shell on the serial port, and the way out. It
 * takes busybox's signals: SIGUSR2 from `poweroff`, SIGUSR1 from `halt`, SIGTERM from `reboot`.
 *
 * When the shell ends, its status becomes that of the VMM.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "../../common/contract/abi.h"

static const char console[] = "/dev/ttyS0";

static void check(int result, const char *what)
{
    if (result < 0)
        perror(what);
}

static void mount_at(const char *type, const char *path)
{
    mkdir(path, 0755);
    check(mount(type, path, type, 0, NULL), path);
}

/* A serial line has no size, so busybox would ask the terminal for it. */
static void console_open(void)
{
    const struct winsize size = {.ws_row = 24, .ws_col = 80};
    const int fd = open(console, O_RDWR);

    check(fd, console);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
    ioctl(0, TIOCSWINSZ, &size);
}

/* The shell has the serial port as its controlling terminal: so Ctrl-C reaches what it runs. */
static pid_t shell_start(const sigset_t *signals)
{
    const pid_t pid = fork();

    if (pid != 0)
        return pid;
    setsid();
    check(ioctl(0, TIOCSCTTY, 0), "TIOCSCTTY");
    sigprocmask(SIG_UNBLOCK, signals, NULL);
    char *environment[] = {"PATH=/bin", "HOME=/root", "TERM=vt100", NULL};
    execle("/bin/busybox", "sh", NULL, environment);
    perror("/bin/busybox");
    _exit(1);
}

/* HC_EXIT, from ring 3: the kernel allows this process the port. Does not return. */
static void leave(int status)
{
    sync();
    tcdrain(1);
    check(ioperm(HYPERCALL_PORT, 1, 1), "ioperm");
    __asm__ volatile("outb %b0, %w1" : : "a"(HC_EXIT), "d"(HYPERCALL_PORT), "b"(status));
}

int main(void)
{
    sigset_t signals;
    int status, number;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    mount_at("devtmpfs", "/dev");
    mount_at("proc", "/proc");
    mount_at("sysfs", "/sys");
    mount_at("tmpfs", "/tmp");
    console_open();
    const pid_t shell = shell_start(&signals);
    for (;;) {
        sigwait(&signals, &number);
        if (number == SIGTERM) {
            tcdrain(1);
            reboot(RB_AUTOBOOT);
        }
        if (number != SIGCHLD)
            leave(0);
        for (pid_t pid = 1; pid > 0;) {
            pid = waitpid(-1, &status, WNOHANG);
            if (pid == shell)
                leave(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        }
    }
}
