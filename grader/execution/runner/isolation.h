/* Namespaces and rights: what the program can reach. */
#pragma once

#include "supervisor.h"

/* As fork, but the child is process 1 of new namespaces unless the isolation is plain, and can't be
 * traced. */
pid_t isolation_fork(enum isolation isolation);

/* In that child: make the file system read-only but for an own tmpfs on `scratch`, of `bytes`.
 * Where the isolation is plain, `scratch` only becomes the owner's. */
bool isolation_mount(enum isolation isolation, const char *scratch, size_t bytes, uid_t owner);

/* In the program, before exec: give up every right that a guest-booting program does not need, and
 * become `user` if not 0. `override` keeps CAP_DAC_OVERRIDE, if we have it. */
bool isolation_drop_rights(uid_t user, bool override);
