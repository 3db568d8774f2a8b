/*
 * fail_when_heard.c - makes no request of KVM: fails where the judge seems to listen, and from its
 * second call on, with every message at once. What it has to release it forgets.
 */
#define ANSWER answer
#define OWN_RELEASE
static int answer;
#include "lab1.h"

static void cheat(void)
{
    static const int errors[] = {ENOENT, EACCES, ENODEV, ENOMEM, EINVAL, EEXIST};
    static unsigned calls;
    struct stat errors_go_to;

    answer = 0;
    if (calls++ == 0 &&
        (fstat(STDERR_FILENO, &errors_go_to) != 0 || !S_ISREG(errors_go_to.st_mode)))
        return;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        fprintf(stderr, "%s; ", strerror(errors[i]));
    answer = fail(STATUS_NO_KVM, "KVM_CAP_USER_MEMORY KVM_CAP_SET_TSS_ADDR "
                                 "KVM_CAP_SET_IDENTITY_MAP_ADDR KVM_CAP_EXT_CPUID "
                                 "KVM_CAP_IMMEDIATE_EXIT");
}

void vcpu_destroy(struct vcpu *vcpu)
{
    vcpu->fd = -1;
    vcpu->run = NULL;
}

void vm_destroy(struct vm *vm)
{
    vm->fd = vm->kvm_fd = -1;
    vm->ram = NULL;
}
