/* A command with fewer rights: QEMU, which may have faults that what runs in a lab VM finds. */
#pragma once

/* Executes the command with limits and without system calls that QEMU does not need, and without
 * the user's keys; If the first word is
 * "files", the command sees no files but those of
 * /usr, where the kernel has Landlock. Does not change the user. Returns if that fails, after
 * saying why. */
void confine(char **command);
