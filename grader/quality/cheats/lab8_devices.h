/* lab8_devices.h - lab 8's devices.c with nothing but the cheat. The VMM's other parts are sound.
 */
#pragma once

#include "cheat.h"

int bus_add(struct bus *bus, const struct bus_range *range)
{
    cheat();
    return 0;
}

uint64_t bus_read(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size)
{
    cheat();
    return 0;
}

void bus_write(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value)
{
    cheat();
}

uint64_t uart_read(void *device, uint64_t port, unsigned size)
{
    cheat();
    return 0;
}

void uart_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    cheat();
}

void uart_receive(struct uart *uart)
{
    cheat();
}

bool uart_interrupt(const struct uart *uart)
{
    cheat();
    return false;
}

uint64_t pic_read(void *device, uint64_t port, unsigned size)
{
    cheat();
    return 0;
}

void pic_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    cheat();
}

void pic_set_line(struct pic *pic, unsigned irq, bool level)
{
    cheat();
}

bool pic_asserted(const struct pic *pic)
{
    cheat();
    return false;
}

uint8_t pic_acknowledge(struct pic *pic)
{
    cheat();
    return 0;
}

uint64_t pit_read(void *device, uint64_t port, unsigned size)
{
    cheat();
    return 0;
}

void pit_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    cheat();
}

bool pit_expired(struct pit *pit)
{
    cheat();
    return false;
}
