/*
 * record.h - the record of a run that --record writes and grader/commands/timeline/ reads. The file
 * is mapped into memory: what is in it stays, however the VMM ends. All numbers are little-endian.
 */
#pragma once

#include "debug/meter.h"

#define RECORD_CAPACITY  32768 /* events; the newest are kept */
#define RECORD_TEXT_MAX  20    /* bytes of text in an event; a longer text has several events */
#define RECORD_LINE_MAX  80    /* bytes of a printed line that are kept */
#define RECORD_NO_VCPU   0xff  /* the devices, or a thread that runs no vCPU */
#define RECORD_CONTINUES 0x80  /* in `detail` of EVENT_PRINTED: the text goes on */

enum event_kind {
    EVENT_STARTED = 1, /* the vCPU's thread is about to enter the guest for the first time */
    EVENT_ENTERED,     /* KVM_RUN is called */
    EVENT_EXITED,      /* number: reason; detail: direction, 1 is out; a: port or address; b: RIP */
    EVENT_INTERRUPTED, /* KVM_RUN returned EINTR */
    EVENT_WOKEN,       /* the handler of KVM_EXIT_HLT has returned */
    EVENT_RAISED,      /* number: vector; source: the vCPU whose thread did it */
    EVENT_MERGED,      /* number: vector; source */
    EVENT_INJECTED,    /* number: vector; a: nanoseconds since it was raised, 0: not known */
    EVENT_KICKED,      /* number: signal; source */
    EVENT_PRINTED,     /* detail: bytes; from `number` on: a part of a line */
    EVENT_CRASHED,     /* the guest has */
    EVENT_ENDED,       /* number: status */
    EVENT_TICK,        /* the timer was read; number: its expirations */
    EVENT_INPUT,       /* standard input was read; number: bytes, 0: its end */
};

struct event {
    uint64_t time_ns; /* since record.start_ns */
    uint8_t kind;     /* EVENT_... */
    uint8_t vcpu;     /* whose event it is, or RECORD_NO_VCPU */
    uint8_t source;   /* which vCPU's thread caused it, or RECORD_NO_VCPU */
    uint8_t detail;
    uint32_t number;
    uint64_t a, b;
};

/* The file: this, then RECORD_CAPACITY events. Event number i is at i % RECORD_CAPACITY. */
struct record {
    char magic[8];
    uint32_t bytes; /* of this structure */
    uint32_t event_bytes;
    uint32_t capacity;
    uint32_t lab;
    uint32_t guest_count;
    int32_t status; /* the VMM's exit status; -1: it has not ended by itself */
    uint64_t start_ns;
    uint64_t count;  /* events so far; the oldest may be half overwritten by the next one */
    uint64_t end_ns; /* since start_ns; of the latest event */
    char todo[8];    /* the exercise that is not written and ended the VMM */
    char guests[VCPUS_MAX][64];         /* the ends of their paths */
    char reasons[EXIT_REASONS_MAX][32]; /* names of exits */
    struct totals totals;
};

/* Creates the file; from then on events are recorded, and `totals` is in it. 0 or STATUS_USAGE. */
int record_open(const char *path);

/* What the file says about the whole run. Without a record these do nothing. */
void record_start(const struct vmm *vmm, uint64_t time_ns);
void record_finish(int status);
void record_todo(const char *exercise);

/* Appends an event; its time is a time of the same clock as record_start's. From any thread. */
void record_event(struct event event);

/* Appends a printed line. */
void record_line(uint64_t time_ns, uint8_t vcpu, const char *text, size_t bytes);
