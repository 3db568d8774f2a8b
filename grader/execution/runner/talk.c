#define _GNU_SOURCE
#include "talk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 /* bytes read at a time, and the most that the host sends at once */ };

double clock_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void talk_tell(struct talk *talk, const char *key, const void *data, size_t length)
{
    if (!talk->host_gone && !record_write(talk->channel, key, data, length))
        talk->host_gone = true;
}

static void input_append(struct talk *talk, const char *data, size_t length)
{
    char *grown = realloc(talk->input, talk->input_length + length + 1);
    if (!grown)
        return;
    memcpy(grown + talk->input_length, data, length);
    talk->input = grown;
    talk->input_length += length;
}

static void input_end(struct talk *talk)
{
    if (talk->ends.input == talk->ends.terminal && talk->ends.terminal >= 0)
        input_append(talk, (const char *)&talk->ends.initial.c_cc[VEOF], 1);
    else
        talk->input_ending = true;
}

bool talk_input_waits(const struct talk *talk)
{
    return talk->input_taken < talk->input_length;
}

void talk_input_flush(struct talk *talk)
{
    if (talk_input_waits(talk)) {
        ssize_t put = write(talk->ends.input, talk->input + talk->input_taken,
                            talk->input_length - talk->input_taken);
        if (put > 0) {
            talk->input_taken += (size_t)put;
        } else if (errno != EAGAIN &&
                   errno != EINTR) { /* the program closed its stdin: its affair */
            ends_close_input(&talk->ends);
            talk->input_taken = talk->input_length;
        }
        if (talk_input_waits(talk))
            return;
        talk->input_taken = talk->input_length = 0;
        if (talk->job->live)
            talk_tell(talk, "taken", "", 0);
    }
    if (talk->input_ending)
        ends_close_input(&talk->ends);
}

static void act(struct talk *talk, enum action action, const struct record *data)
{
    unsigned short rows, columns;
    switch (action) {
    case ACTION_SEND:
        input_append(talk, data->data, data->length);
        break;
    case ACTION_CLOSE:
        input_end(talk);
        break;
    case ACTION_SIGNAL:
        record_write(talk->command, "signal", data->data, data->length);
        break;
    case ACTION_RESIZE:
        if (sscanf(data->data, "%hu %hu", &rows, &columns) == 2)
            ends_resize(&talk->ends, rows, columns);
        break;
    }
}

static bool marker_found(struct heard *heard, const struct record *marker)
{
    if (!marker->data)
        return true;
    char *start = heard->data ? heard->data + heard->searched : NULL;
    char *place =
        start ? memmem(start, heard->length - heard->searched, marker->data, marker->length) : NULL;
    if (place)
        heard->searched = (size_t)(place - heard->data) + marker->length;
    return place;
}

void talk_steps_take(struct talk *talk)
{
    const struct job *job = talk->job;
    while (talk->steps_done < job->step_count) {
        const struct step *step = &job->steps[talk->steps_done];
        if (!marker_found(&talk->heard[step->stream - 1], &step->after))
            return;
        act(talk, step->action, &step->data);
        talk->steps_done++;
        talk->progress = clock_now();
    }
    if (!job->hold_input && !job->live && !job->terminal[0])
        talk->input_ending = true;
}

void talk_host_obey(struct talk *talk)
{
    struct record record;
    if (!record_read(talk->channel, &record)) {
        talk->host_gone = true;
        return;
    }
    if (record_is(&record, "send"))
        act(talk, ACTION_SEND, &record);
    else if (record_is(&record, "close"))
        act(talk, ACTION_CLOSE, &record);
    else if (record_is(&record, "signal"))
        act(talk, ACTION_SIGNAL, &record);
    else if (record_is(&record, "resize"))
        act(talk, ACTION_RESIZE, &record);
    else if (record_is(&record,
                       "shut")) /* nobody reads this stream any more: the program gets SIGPIPE */
        ends_close_output(&talk->ends, atoi(record.data) - 1);
    record_free(&record);
}

static void heard_append(struct talk *talk, int which, const char *data, size_t length)
{
    struct heard *heard = &talk->heard[which];
    char *grown = realloc(heard->data, heard->length + length);
    if (!grown)
        return;
    memcpy(grown + heard->length, data, length);
    heard->data = grown;
    heard->length += length;
}

void talk_output_take(struct talk *talk, int which)
{
    static char chunk[CHUNK];
    ssize_t got = read(talk->ends.output[which], chunk, sizeof chunk);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* EIO: the last one closed the terminal */
        ends_close_output(&talk->ends, which);
        return;
    }
    size_t length = (size_t)got, limit = talk->job->limits.output;
    if (limit && talk->output_bytes + length > limit) {
        length = limit - talk->output_bytes;
        talk->flooded = true;
    }
    talk->output_bytes += length;
    talk->progress = clock_now();
    talk_tell(talk, which == 0 ? "stdout" : "stderr", chunk, length);
    if (talk->job->step_count)
        heard_append(talk, which, chunk, length);
}

void talk_begin(struct talk *talk, int command)
{
    talk->command = command;
    talk->progress = clock_now();
    if (talk->job->input)
        input_append(talk, talk->job->input, talk->job->input_length);
}

void talk_free(struct talk *talk)
{
    for (int which = 0; which < 2; which++)
        free(talk->heard[which].data);
    free(talk->input);
}
