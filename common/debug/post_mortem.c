/* post_mortem.c - the report on a crashed guest. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/core.h"
#include "debug/debug.h"
#include "given.h"

#define CODE_BYTES 16
#define CAUSE_MAX  1024 /* bytes of a cause's text; longer ones are cut */

#define COMMAND_MAX 4096     /* bytes of the command line */
#define FROM        "-from-" /* in the name of the VMM's folder: common/vmm.mk */
#define BUILD       "build/vmm/"
#define RECORD      "--record="
#define GDB         "--gdb="

static bool in_real_mode(const struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    return cpu_mode(sregs) == MODE_REAL;
}

/* An interrupt was injected, but the guest's IDT does not include it. */
static bool interrupted_without_handler(const struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    const size_t gate_bytes = cpu_mode(sregs) == MODE_LONG ? 16 : 8;

    return vcpu->interrupts > 0 &&
           (in_real_mode(vcpu, sregs) || sregs->idt.limit < TIMER_VECTOR * gate_bytes);
}

static bool in_ring_3(const struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    return !in_real_mode(vcpu, sregs) && sregs->ss.dpl == 3;
}

/* The usual causes of a crash, most specific first; the first match is printed. */
static const struct {
    uint32_t reason;
    bool (*fits)(const struct vcpu *vcpu, const struct kvm_sregs *sregs); /* NULL: always */
    const char *text;
} causes[] = {
    {KVM_EXIT_SHUTDOWN, interrupted_without_handler,
     "an interrupt came and the guest has no handler for it: no IDT was loaded (lidt), its limit "
     "is too small, or its entry is invalid"},
    {KVM_EXIT_SHUTDOWN, in_real_mode,
     "an exception and no handler for it: an invalid instruction, a jump into data, or an access "
     "past the end of a segment"},
    {KVM_EXIT_SHUTDOWN, in_ring_3,
     "an interrupt, exception or system call in ring 3, and no way into the kernel (a triple "
     "fault): the stack in the TSS (esp0, ss0), the IDT, or what CR3 maps"},
    {KVM_EXIT_SHUTDOWN, NULL,
     "an exception, and its handler could not be reached (a triple fault): a page that is not "
     "mapped, a bad descriptor or IDT, or no memory at the stack"},
    {KVM_EXIT_FAIL_ENTRY, NULL,
     "a start state that the processor rejects: a wrong type, limit, S or P in a segment register, "
     "or a TR that is not a busy TSS"},
    {KVM_EXIT_INTERNAL_ERROR, NULL,
     "KVM can't emulate an instruction: execution ran into data or out of RAM, or a "
     "register of the start state is wrong"},
    {KVM_EXIT_MMIO, NULL,
     "an address outside of RAM: a wrong segment or pointer, or too little --mem"},
};

static void print_causes(const struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++) {
        if (causes[i].reason != vcpu->exit.reason ||
            (causes[i].fits && !causes[i].fits(vcpu, sregs)))
            continue;
        fprintf(stderr, "  usual cause: %s\n", causes[i].text);
        break;
    }
}

static bool is_guest(const struct vmm *vmm, const char *word)
{
    for (int i = 0; i < vmm->guest_count; i++)
        if (strcmp(word, vmm->guests[i].path) == 0)
            return true;
    return false;
}

/* The words of the VMM's command line, each with its zero. */
struct command {
    char words[COMMAND_MAX + 1];
    const char *end;
    int root_bytes; /* of words: the kit's folder, whose VMMs are in build/ */
};

/* A path counts from the kit's folder, whose name may have spaces that GUESTS can't have. */
static void print_word(const struct command *command, const char *word)
{
    for (; *word; word++) {
        if (command->root_bytes > 0 &&
            strncmp(word, command->words, (size_t)command->root_bytes) == 0)
            word += command->root_bytes;
        fputc(*word, stderr);
    }
}

/* The words that are guests, or those that are not, as a variable of make; not what make timeline
 * and make debug add. */
static void print_words(const struct vmm *vmm, const struct command *command, const char *name,
                        bool guests)
{
    const char *word = command->words + strlen(command->words) + 1;
    bool first = true;

    for (; word < command->end; word += strlen(word) + 1) {
        if (is_guest(vmm, word) != guests || strncmp(word, RECORD, strlen(RECORD)) == 0 ||
            strncmp(word, GDB, strlen(GDB)) == 0)
            continue;
        if (first)
            fprintf(stderr, " %s=\"", name);
        else
            fputc(' ', stderr);
        print_word(command, word);
        first = false;
    }
    if (!first)
        fputc('"', stderr);
}

/* The command that explains the crash: with this VMM, whose folder says which modules it has. */
static void print_command(const struct vmm *vmm)
{
    struct command command = {.words = ""};
    const int fd = open("/proc/self/cmdline", O_RDONLY);
    const ssize_t bytes = fd < 0 ? 0 : read(fd, command.words, COMMAND_MAX);
    const char *from = strstr(command.words, FROM), *build = strstr(command.words, BUILD);

    close(fd);
    command.end = command.words + (bytes < 0 ? 0 : bytes);
    command.root_bytes = build ? (int)(build - command.words) : 0;
    fprintf(stderr, "  the chain of events: make explain LAB=%d", stage.lab);
    if (strstr(command.words, "-solution"))
        fputs(" SOLUTION=1", stderr);
    if (from)
        fprintf(stderr, " FROM=%.*s", (int)strcspn(from + strlen(FROM), "-/"), from + strlen(FROM));
    print_words(vmm, &command, "GUESTS", true);
    print_words(vmm, &command, "ARGS", false);
    fputc('\n', stderr);
}

/* The bytes at the instruction pointer, and with paging the page walk that leads to them. */
static void print_code(struct vcpu *vcpu, const struct kvm_sregs *sregs, uint64_t linear)
{
    const struct vm *vm = vcpu->vm;
    char code[CODE_BYTES * 3 + 1] = "";
    uint64_t phys;

    if (!registers_translate(vcpu, sregs, linear, &phys, stderr))
        return;
    for (size_t i = 0; i < CODE_BYTES && phys + i < vm->ram_bytes; i++)
        snprintf(code + 3 * i, sizeof code - 3 * i, " %02x", vm->ram[phys + i]);
    fprintf(stderr, "  code at 0x%" PRIx64 ":%s\n", linear, code[0] ? code : " outside of RAM");
}

static void print_exit(const char *title, const struct exit_record *exit)
{
    char text[EXIT_TEXT_MAX];

    if (exit->reason == EXIT_NONE)
        return;
    exit_describe(exit, text, sizeof text);
    fprintf(stderr, "  %s: %s\n", title, text);
}

void report_begin(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
    flockfile(stderr);
}

void report_end(const sigset_t *before)
{
    funlockfile(stderr);
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

enum step vcpu_crash(struct vcpu *vcpu, const char *format, ...)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    char cause[CAUSE_MAX];
    sigset_t signals;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(cause, sizeof cause, format, arguments);
    va_end(arguments);
    OBSERVE(crash, vcpu);
    output_flush();
    report_begin(&signals);
    fprintf(stderr, "vmm: vcpu%d (%s) crashed: %s\n", vcpu->id, vcpu->guest->path, cause);
    print_exit("exit", &vcpu->exit);
    print_exit("the exit before", &vcpu->exit_before);
    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0) {
        /* AMD processors reset themselves on shutdown: for the state see SDM vol. 3, 10.1. */
        if (vcpu->exit.reason == KVM_EXIT_SHUTDOWN && regs.rip == RESET_RIP &&
            sregs.cs.base == RESET_CS_BASE) {
            fprintf(stderr,
                    "  The processor has reset itself on shutdown, as AMD's do. What follows is "
                    "from %s.\n",
                    vcpu->exit_before.rip ? "the exit before" : "the start");
            regs = vcpu->known_regs;
            sregs = vcpu->known_sregs;
        }
        fprintf(stderr, "  mode: %s\n", cpu_mode_name(&sregs));
        print_code(vcpu, &sregs, instruction_address(&regs, &sregs));
        kernel_state_print(vcpu, &regs, &sregs);
        print_causes(vcpu, &sregs);
        if (vcpu->exit.reason == KVM_EXIT_SHUTDOWN || vcpu->exit.reason == KVM_EXIT_MMIO ||
            vcpu->exit.reason == KVM_EXIT_INTERNAL_ERROR)
            print_command(vcpu->vm->vmm);
        registers_print(vcpu->id, &regs, &sregs);
    }
    report_end(&signals);
    OBSERVE(crash_end, vcpu);
    return vcpu_end(vcpu, STATUS_CRASHED);
}
