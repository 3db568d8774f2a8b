/* record.c - the record of a run that --record writes. */
#include "debug/record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "debug/debug.h"
#include "given.h"

static struct record *record; /* NULL: --record was not given */
static struct event *events;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int record_open(const char *path)
{
    const size_t bytes = sizeof *record + RECORD_CAPACITY * sizeof *events;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0)
        return fail(STATUS_USAGE, "--record=%s: %s", path, strerror(errno));
    /* With room for all of it the file can't become too large while the VMM writes to the memory.
     */
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    void *memory = MAP_FAILED;
    if (error == 0) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        error = errno;
    }
    close(fd);
    if (memory == MAP_FAILED)
        return fail(STATUS_USAGE, "--record=%s: %s", path, strerror(error));
    record = memory;
    events = (struct event *)(record + 1);
    *record = (struct record){
        .magic = {'M', 'K', 'V', 'M', 'R', 'E', 'C', 1}, /* last the format's version */
        .bytes = sizeof *record,
        .event_bytes = sizeof *events,
        .capacity = RECORD_CAPACITY,
        .lab = (uint32_t)stage.lab,
        .status = -1,
    };
    for (uint32_t i = 0; i < EXIT_REASONS_MAX; i++)
        snprintf(record->reasons[i], sizeof record->reasons[i], "%s", exit_name(i));
    totals = &record->totals;
    return 0;
}

void record_start(const struct vmm *vmm, uint64_t time_ns)
{
    if (!record)
        return;
    record->start_ns = time_ns;
    record->guest_count = (uint32_t)vmm->guest_count;
    for (int i = 0; i < vmm->guest_count; i++) {
        const char *path = vmm->guests[i].path;
        const size_t bytes = strlen(path), room = sizeof record->guests[i] - 1;
        snprintf(record->guests[i], room + 1, "%s", bytes > room ? path + bytes - room : path);
    }
}

void record_finish(int status)
{
    if (record)
        record->status = status;
}

void record_todo(const char *exercise)
{
    if (!record)
        return;
    snprintf(record->todo, sizeof record->todo, "%s", exercise);
    record->status = STATUS_TODO;
}

void record_event(struct event event)
{
    if (!record)
        return;
    pthread_mutex_lock(&lock);
    event.time_ns -= record->start_ns;
    events[record->count % RECORD_CAPACITY] = event;
    if (event.time_ns > record->end_ns)
        record->end_ns = event.time_ns;
    /* A reader of the file must not take an event for written before it is. */
    __atomic_store_n(&record->count, record->count + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}

void record_line(uint64_t time_ns, uint8_t vcpu, const char *text, size_t bytes)
{
    for (size_t done = 0; done < bytes; done += RECORD_TEXT_MAX) {
        const size_t left = bytes - done;
        const bool continues = left > RECORD_TEXT_MAX;
        const size_t part = continues ? RECORD_TEXT_MAX : left;
        struct event event = {.time_ns = time_ns, .kind = EVENT_PRINTED, .vcpu = vcpu};
        event.source = vcpu;
        event.detail = (uint8_t)(part | (continues ? RECORD_CONTINUES : 0));
        memcpy((char *)&event + offsetof(struct event, number), text + done, part);
        record_event(event);
    }
}
