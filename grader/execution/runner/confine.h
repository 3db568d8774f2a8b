/* A command with fewer rights: QEMU, which may have faults that what runs in a lab VM finds. */
#pragma once

/*
 * Executes the command with limits, without the user's keys and without system calls that QEMU does
 * not need. It does not change the user. If the first word is "files", the command follows, and
 * sees no files but those of /usr, where the kernel has Landlock; what Landlock does not cover is
 * the owner, mode and times of files, and signals. Returns if that fails, after saying why.
 */
void confine(char **command);
