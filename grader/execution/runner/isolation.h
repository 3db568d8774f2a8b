/* Namespaces and capabilities: what the program can reach. */
#pragma once

#include <sys/resource.h>

#include "supervisor.h"

/* As fork, but the child is process 1 of new namespaces unless the isolation is plain, and can't be
 * traced. */
pid_t isolation_fork(enum isolation isolation);

/* In that child: make the file system read-only except for a new tmpfs of `bytes` on `scratch`, and
 * devices unusable except for terminals, /dev/kvm and what every program may use.
 * With plain isolation, only change the owner of `scratch`. */
bool isolation_mount(enum isolation isolation, const char *scratch, size_t bytes, uid_t owner);

/* In the program, before exec: set a limit of setrlimit(2) for good; false, with errno, if that
 * fails. */
bool isolation_limit(__rlimit_resource_t resource, rlim_t value);

/* In the program, before exec: drop every capability that booting a guest does not need, and become
 * `user` if not 0. `override` keeps CAP_DAC_OVERRIDE, if we have it. */
bool isolation_drop_rights(uid_t user, bool override);

/* After that: system calls that reach the user's keyring fail with ENOSYS, because it outlives a
 * run and that user's next run could read it; so do those for System V IPC and message queues,
 * whose memory no process has mapped and no limit counts; those by which a program observes or
 * extends the kernel; and those of other ABIs. With `sockets` also those that create sockets: no
 * network, no service of this machine. With `kvm_devices` also all requests of KVM but those for a
 * VM's memory and its processors' state: KVM could emulate interrupt controllers and timers, which
 * the labs are about. Returns false, with errno, if the kernel has no seccomp filters. */
bool isolation_forbid_calls(bool sockets, bool kvm_devices);
