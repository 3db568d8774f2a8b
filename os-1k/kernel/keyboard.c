/* keyboard.c - from the keyboard's interrupt to the program that reads; the line that it edits. */
#include "kernel.h"

static struct queue queue;
static bool input_ended;
static bool input_waits;             /* the queue was full: the VMM still holds a character */
static const struct process *editor; /* whose edited line is the console's last; NULL: none */

/* Takes one character; if there are more, the VMM interrupts again. */
void keyboard_interrupt(void)
{
    input_waits = queue.count == QUEUE_BYTES;
    int character = input_waits ? GETCHAR_NOTHING : console_getchar();
    if (character == GETCHAR_NOTHING)
        return;
    struct process *reader = process_foreground();
    if (character == INTERRUPT_KEY && reader->pid != SHELL_PID) {
        queue = (struct queue){0};
        console_print("^C\n");
        editor = NULL;
        process_end(reader, STATUS_INTERRUPTED);
        return;
    }
    if (character == GETCHAR_END)
        input_ended = true;
    else
        queue_put(&queue, (uint8_t)character);
    process_wake(&queue);
}

int32_t keyboard_read(uint8_t *buffer, uint32_t bytes, uint32_t flags)
{
    bool line = flags & READ_LINE;

    while (queue.count == 0 && !input_ended && (!line || editor == current))
        process_block(&queue);
    if (line && editor != current)
        return ERROR_OUTPUT;
    uint32_t count = 0;
    while (count < bytes && queue_take(&queue, &buffer[count]))
        count++;
    if (input_waits)
        keyboard_interrupt();
    return (int32_t)count;
}

void line_claim(uint32_t flags)
{
    if (editor && editor != current) {
        console_print("\r\033[K"); /* ECMA-48, 8.3.41 "EL - Erase in Line" */
        process_wake(&queue);
    }
    if ((flags & WRITE_MORE) == 0 || editor != current)
        editor = flags & WRITE_LINE ? current : NULL;
}
