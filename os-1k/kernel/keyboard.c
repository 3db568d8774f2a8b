/* keyboard.c - from the keyboard's interrupt to the program that reads. */
#include "kernel.h"

static struct queue queue;
static bool input_ended;
static bool input_waits; /* the queue was full: the VMM still holds a character */

/* Takes one character; if there are more, the VMM interrupts again. */
void keyboard_interrupt(void)
{
    input_waits = queue.count == QUEUE_BYTES;
    if (input_waits)
        return;
    int character = console_getchar();
    if (character == GETCHAR_NOTHING)
        return;
    struct process *reader = process_foreground();
    if (character == INTERRUPT_KEY && reader->pid != SHELL_PID) {
        queue = (struct queue){0};
        console_print("^C\n");
        process_end(reader, STATUS_INTERRUPTED);
        return;
    }
    if (character == GETCHAR_END)
        input_ended = true;
    else
        queue_put(&queue, (uint8_t)character);
    process_wake(&queue);
}

uint32_t keyboard_read(uint8_t *buffer, uint32_t bytes)
{
    while (queue.count == 0 && !input_ended)
        process_block(&queue);
    uint32_t count = 0;
    while (count < bytes && queue_take(&queue, &buffer[count]))
        count++;
    if (input_waits)
        keyboard_interrupt();
    return count;
}
