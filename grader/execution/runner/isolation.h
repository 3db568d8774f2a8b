/* Namespaces and capabilities: what the program can reach. */
#pragma once

#include "supervisor.h"

/* As fork, but the child is process 1 of new namespaces unless the isolation is plain, and can't be
 * traced. */
pid_t isolation_fork(enum isolation isolation);

/* In that child: make the file system read-only except for a new tmpfs of `bytes` on `scratch`.
 * With plain isolation, only change the owner of `scratch`. */
bool isolation_mount(enum isolation isolation, const char *scratch, size_t bytes, uid_t owner);

/* In the program, before exec: drop every capability that booting a guest does not need, and become
 * `user` if not 0. `override` keeps CAP_DAC_OVERRIDE, if we have it. */
bool isolation_drop_rights(uid_t user, bool override);
