#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "isolation.h"

/* QEMU takes 2.4 GB of addresses, of which 1 GB is the lab VM's RAM. */
#define ADDRESSES_MAX ((rlim_t)4 << 30)
#define FILE_MAX      ((rlim_t)4 << 20) /* bytes: the console's messages */

static bool allow_below(int rules, const char *path, __u64 access)
{
    struct landlock_path_beneath_attr below = {access, open(path, O_PATH | O_CLOEXEC)};

    if (below.parent_fd < 0)
        return errno == ENOENT;
    const long added =
        syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0L);
    close(below.parent_fd);
    return added == 0;
}

/* Only what root.sh makes visible: Documentation/userspace-api/landlock.rst. */
static bool hide_files(void)
{
    /* What Landlock's first version knows, and from the third one on truncate(2). */
    const __u64 first = LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1, truncate_file = 1ull << 14;
    const long version =
        syscall(SYS_landlock_create_ruleset, NULL, 0L, LANDLOCK_CREATE_RULESET_VERSION);
    static const char *const folders[] = {
        "/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives"};
    const struct landlock_ruleset_attr all = {version < 3 ? first : first | truncate_file};
    const int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0L);

    if (rules < 0)
        return errno == ENOSYS || errno == EOPNOTSUPP; /* this kernel has no Landlock */
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (!allow_below(rules, folders[i],
                         LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |
                             LANDLOCK_ACCESS_FS_READ_DIR))
            return false;
    return allow_below(rules, "/dev/null",
                       LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE) &&
           syscall(SYS_landlock_restrict_self, rules, 0L) == 0;
}

void confine(char **command)
{
    const bool files = command[0] && strcmp(command[0], "files") == 0;

    if (isolation_limit(RLIMIT_AS, ADDRESSES_MAX) && isolation_limit(RLIMIT_FSIZE, FILE_MAX) &&
        isolation_limit(RLIMIT_CORE, 0) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        (!files || hide_files())) {
        syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL); /* fails where there are none */
        if (isolation_forbid_calls(true, false))
            execvp(command[files], command + files);
    }
    fprintf(stderr, "confine %s: %s\n", command[files], strerror(errno));
}
