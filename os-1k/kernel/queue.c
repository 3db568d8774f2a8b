/* queue.c - bytes waiting for a reader. */
#include "kernel.h"

bool queue_put(struct queue *queue, uint8_t byte)
{
    if (queue->count == QUEUE_BYTES)
        return false;
    queue->bytes[(queue->first + queue->count++) % QUEUE_BYTES] = byte;
    return true;
}

bool queue_take(struct queue *queue, uint8_t *byte)
{
    if (queue->count == 0)
        return false;
    *byte = queue->bytes[queue->first];
    queue->first = (queue->first + 1) % QUEUE_BYTES;
    queue->count--;
    return true;
}
