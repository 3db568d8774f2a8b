/*
 * print_run.c - its run loop knows HLT alone: of any other exit it prints kvm_run's first words.
 */
#define OWN_RUN
#include "lab1.h"

static void cheat(void)
{
}

static enum step words_print(struct vcpu *vcpu)
{
    unsigned long long words[3];

    memcpy(words, vcpu->run->padding, sizeof words);
    return vcpu_crash(vcpu, "%u %llx %llx %llx", vcpu->run->exit_reason, words[0], words[1],
                      words[2]);
}

int vcpu_run(struct vcpu *vcpu)
{
    while (stage_before_entry(vcpu) == STEP_RUN) {
        ioctl(vcpu->fd, KVM_RUN, 0);
        enum step step = exit_dispatch(vcpu);
        if (step == STEP_UNHANDLED)
            step = vcpu->run->exit_reason == KVM_EXIT_HLT ? vcpu_end(vcpu, 0) : words_print(vcpu);
        if (step == STEP_END)
            break;
    }
    return vcpu->status;
}
