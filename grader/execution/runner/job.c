#define _GNU_SOURCE
#include "job.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The runner can't continue without memory for a job's own text. */
static void *must(void *memory)
{
    if (!memory) {
        perror("runner: memory");
        exit(1);
    }
    return memory;
}

static char *take(struct record *record)
{
    char *data = record->data;
    record->data = NULL;
    return data;
}

static bool list_add(struct list *list, char *item)
{
    list->items = must(realloc(list->items, (list->count + 2) * sizeof *list->items));
    list->items[list->count++] = item;
    list->items[list->count] = NULL;
    return true;
}

static struct step *step_new(struct job *job)
{
    job->steps = must(realloc(job->steps, (job->step_count + 1) * sizeof *job->steps));
    struct step *step = &job->steps[job->step_count++];
    *step = (struct step){.stream = 1};
    return step;
}

/* "after1" and "after2" start a step; its action follows. An action alone is a step that does not
 * wait. */
static bool add_after(struct job *job, struct record *record)
{
    struct step *step = step_new(job);
    step->stream = record->key[5] - '0';
    step->after = *record;
    record->data = NULL;
    return true;
}

static bool add_action(struct job *job, struct record *record, enum action action)
{
    struct step *last = job->step_count ? &job->steps[job->step_count - 1] : NULL;
    struct step *step = last && last->after.data && !last->data.data ? last : step_new(job);
    step->action = action;
    step->data = *record;
    record->data = NULL;
    return true;
}

static bool set_terminal(struct job *job, const char *text)
{
    char fds[4] = "";
    if (sscanf(text, "%hu %hu %3s", &job->rows, &job->columns, fds) != 3)
        return false;
    for (int fd = 0; fd < 3; fd++)
        job->terminal[fd] = strchr(fds, '0' + fd);
    return true;
}

bool job_add(struct job *job, struct record *record)
{
    static const char *const actions[] = {"send", "close", "signal", "resize"};
    for (int i = 0; i < 4; i++)
        if (record_is(record, actions[i]))
            return add_action(job, record, (enum action)i);
    if (record_is(record, "after1") || record_is(record, "after2"))
        return add_after(job, record);
    if (record_is(record, "shut")) /* of a run that has just ended */
        return true;
    if (record_is(record, "program"))
        return (job->program = take(record));
    if (record_is(record, "arg"))
        return list_add(&job->arguments, take(record));
    if (record_is(record, "env"))
        return list_add(&job->environment, take(record));
    if (record_is(record, "output"))
        return list_add(&job->outputs, take(record));
    if (record_is(record, "cwd"))
        return (job->directory = take(record));
    if (record_is(record, "hold"))
        return job->hold_input = true;
    if (record_is(record, "no-kvm-devices"))
        return job->no_kvm_devices = true;
    if (record_is(record, "live"))
        return job->live = true;
    if (record_is(record, "port"))
        return (job->port = open(record->data, O_RDWR | O_CLOEXEC)) > 0;
    if (record_is(record, "terminal"))
        return set_terminal(job, record->data);
    if (record_is(record, "stdin")) {
        job->input_length = record->length;
        return (job->input = take(record));
    }
    struct limits *limits = &job->limits;
    return record_is(record, "limits") &&
           sscanf(record->data, "%lf %lf %lf %lf %lf %lf %zu %zu %zu %zu", &limits->wall,
                  &limits->no_output, &limits->after_steps, &limits->deadlock, &limits->spin,
                  &limits->processor, &limits->output, &limits->memory, &limits->processes,
                  &limits->file) == 10;
}

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
}

void job_free(struct job *job)
{
    list_free(&job->arguments);
    list_free(&job->environment);
    list_free(&job->outputs);
    for (size_t i = 0; i < job->step_count; i++) {
        record_free(&job->steps[i].after);
        record_free(&job->steps[i].data);
    }
    if (job->port > 0)
        close(job->port);
    free(job->steps);
    free(job->program);
    free(job->directory);
    free(job->input);
    *job = (struct job){0};
}
