/*
 * lab2.h - what hypercall.c of lab 2 provides: the guest's calls through I/O port HYPERCALL_PORT.
 */
#pragma once

#include "lab1.h"

/* A KVM_EXIT_IO in plain words (api.rst section 5, "struct kvm_run"). */
struct io_access {
    bool out; /* the guest writes */
    uint16_t port;
    uint8_t size;   /* bytes of one operand: 1, 2 or 4 */
    uint32_t count; /* operands, one after the other: more than 1 for `rep` */
    uint8_t *data;  /* size * count bytes, maybe over 64 KB, in the mapping of *run, unaligned */
};

/* 2.1 Decodes the KVM_EXIT_IO in `run`. */
struct io_access io_decode(struct kvm_run *run);

/* 2.1 Operand number `index` of the access, zero-extended. */
uint32_t io_operand(const struct io_access *io, uint32_t index);

/* 2.1 Its counterpart for `in`: stores the low io->size bytes of `value` as operand `index`. */
void io_answer(const struct io_access *io, uint32_t index, uint32_t value);

/* 2.2 The general registers at this exit. 0 or STATUS_CRASHED. */
int vcpu_registers(struct vcpu *vcpu, struct kvm_regs *regs);

/*
 * 2.2 - 2.5 The handler of KVM_EXIT_IO: serves each operand of the access as a call (abi.h), writes
 * a string's bytes to stage.console_write, and ends the guest at any other port or call. A WRITE of
 * no bytes is right at any address, even at one that vcpu_translate would not find.
 */
enum step hypercall_io(struct vcpu *vcpu);
