#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 /* bytes per read, and the most that the host sends at once */ };

double clock_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void relay_send(struct relay *relay, const char *key, const void *data, size_t length)
{
    if (!relay->host_gone && !record_write(relay->channel, key, data, length))
        relay->host_gone = true;
}

static void input_append(struct relay *relay, const char *data, size_t length)
{
    char *grown = realloc(relay->input, relay->input_length + length + 1);
    if (!grown)
        return;
    memcpy(grown + relay->input_length, data, length);
    relay->input = grown;
    relay->input_length += length;
}

static void input_end(struct relay *relay)
{
    if (relay->endpoints.input == relay->endpoints.terminal && relay->endpoints.terminal >= 0)
        input_append(relay, (const char *)&relay->endpoints.initial.c_cc[VEOF], 1);
    else
        relay->input_ending = true;
}

bool relay_input_waits(const struct relay *relay)
{
    return relay->input_taken < relay->input_length;
}

void relay_input_flush(struct relay *relay)
{
    if (relay_input_waits(relay)) {
        ssize_t put = write(relay->endpoints.input, relay->input + relay->input_taken,
                            relay->input_length - relay->input_taken);
        if (put > 0) {
            relay->input_taken += (size_t)put;
        } else if (errno != EAGAIN &&
                   errno != EINTR) { /* the program closed its stdin, which is allowed */
            endpoints_close_input(&relay->endpoints);
            relay->input_taken = relay->input_length;
        }
        if (relay_input_waits(relay))
            return;
        relay->input_taken = relay->input_length = 0;
        if (relay->job->live)
            relay_send(relay, "taken", "", 0);
    }
    if (relay->input_ending)
        endpoints_close_input(&relay->endpoints);
}

static void act(struct relay *relay, enum action action, const struct record *data)
{
    unsigned short rows, columns;
    switch (action) {
    case ACTION_SEND:
        input_append(relay, data->data, data->length);
        break;
    case ACTION_CLOSE:
        input_end(relay);
        break;
    case ACTION_SIGNAL:
        record_write(relay->command, "signal", data->data, data->length);
        break;
    case ACTION_RESIZE:
        if (sscanf(data->data, "%hu %hu", &rows, &columns) == 2)
            endpoints_resize(&relay->endpoints, rows, columns);
        break;
    }
}

static bool marker_found(struct captured *captured, const struct record *marker)
{
    if (!marker->data)
        return true;
    char *start = captured->data ? captured->data + captured->searched : NULL;
    char *place =
        start ? memmem(start, captured->length - captured->searched, marker->data, marker->length)
              : NULL;
    if (place)
        captured->searched = (size_t)(place - captured->data) + marker->length;
    return place;
}

void relay_steps_take(struct relay *relay)
{
    const struct job *job = relay->job;
    while (relay->steps_done < job->step_count) {
        const struct step *step = &job->steps[relay->steps_done];
        if (!marker_found(&relay->captured[step->stream - 1], &step->after))
            return;
        act(relay, step->action, &step->data);
        relay->steps_done++;
        relay->progress = clock_now();
    }
    if (!job->hold_input && !job->live && !job->terminal[0])
        relay->input_ending = true;
}

void relay_host_obey(struct relay *relay)
{
    struct record record;
    if (!record_read(relay->channel, &record)) {
        relay->host_gone = true;
        return;
    }
    if (record_is(&record, "send"))
        act(relay, ACTION_SEND, &record);
    else if (record_is(&record, "close"))
        act(relay, ACTION_CLOSE, &record);
    else if (record_is(&record, "signal"))
        act(relay, ACTION_SIGNAL, &record);
    else if (record_is(&record, "resize"))
        act(relay, ACTION_RESIZE, &record);
    else if (record_is(&record,
                       "shut")) /* this stream has no reader any more: the program gets SIGPIPE */
        endpoints_close_output(&relay->endpoints, atoi(record.data) - 1);
    record_free(&record);
}

static void captured_append(struct relay *relay, int which, const char *data, size_t length)
{
    struct captured *captured = &relay->captured[which];
    char *grown = realloc(captured->data, captured->length + length);
    if (!grown)
        return;
    memcpy(grown + captured->length, data, length);
    captured->data = grown;
    captured->length += length;
}

void relay_output_take(struct relay *relay, int which)
{
    static char chunk[CHUNK];
    ssize_t got = read(relay->endpoints.output[which], chunk, sizeof chunk);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* EIO: the last process closed the terminal */
        endpoints_close_output(&relay->endpoints, which);
        return;
    }
    size_t length = (size_t)got, limit = relay->job->limits.output;
    if (limit && relay->output_bytes + length > limit) {
        length = limit - relay->output_bytes;
        relay->flooded = true;
    }
    relay->output_bytes += length;
    relay->progress = clock_now();
    relay_send(relay, which == 0 ? "stdout" : "stderr", chunk, length);
    if (relay->job->step_count)
        captured_append(relay, which, chunk, length);
}

void relay_begin(struct relay *relay, int command)
{
    relay->command = command;
    relay->progress = clock_now();
    if (relay->job->input)
        input_append(relay, relay->job->input, relay->job->input_length);
}

void relay_free(struct relay *relay)
{
    for (int which = 0; which < 2; which++)
        free(relay->captured[which].data);
    free(relay->input);
}
