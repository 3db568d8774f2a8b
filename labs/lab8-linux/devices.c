/*
 * devices.c - lab 8: a bus, and on it the devices of a small PC: a serial port, the interrupt
 * controllers, a timer. The sections of lab8.h and pc.h that these need are in the same order.
 */
#include <errno.h>
#include <string.h>

#include "lab8.h"

/* ------------------------------------------------------------------ the bus */

/* Exercise 8.1: a range may end with the last address, so its end is its last byte. */
int bus_add(struct bus *bus, const struct bus_range *range)
{
    TODO("8.1");
}

/* Exercise 8.1: the range that contains the whole access; NULL: a hole. */
static const struct bus_range *bus_find(const struct bus *bus, enum bus_space space,
                                        uint64_t address, unsigned size)
{
    TODO("8.1");
}

/* Exercise 8.1 */
uint64_t bus_read(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size)
{
    TODO("8.1");
}

/* Exercise 8.1 */
void bus_write(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value)
{
    TODO("8.1");
}

/* ------------------------------------------------------------------ the serial port */

/* Exercise 8.2 */
static bool has_room(const struct uart *uart)
{
    TODO("8.2");
}

/* Exercise 8.2 */
void uart_receive(struct uart *uart)
{
    TODO("8.2");
}

/* Exercise 8.2: a byte for THR, which is empty again at once. */
static void uart_send(struct uart *uart, uint8_t byte)
{
    TODO("8.2");
}

/* Exercise 8.2: bits 7 to 4 of MSR. */
static uint8_t modem_inputs(const struct uart *uart)
{
    TODO("8.2");
}

/* Exercise 8.2: the first cause that is pending and enabled, as in IIR. */
static uint8_t uart_cause(const struct uart *uart)
{
    TODO("8.2");
}

/* Exercise 8.2 */
bool uart_interrupt(const struct uart *uart)
{
    TODO("8.2");
}

/* Exercise 8.2: a read of IIR, LSR or MSR ends what it reports. */
uint64_t uart_read(void *device, uint64_t port, unsigned size)
{
    struct uart *uart = device;
    const unsigned number = (unsigned)(port - UART_PORT);
    uint8_t value = uart->registers[number];

    TODO("8.2");
}

/* Exercise 8.2: whoever enables the THR-empty interrupt gets it at once, for THR is empty. */
void uart_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    struct uart *uart = device;
    const unsigned number = (unsigned)(port - UART_PORT);
    const uint8_t byte = (uint8_t)value, before = modem_inputs(uart);

    TODO("8.2");
}

/* ------------------------------------------------------------------ the interrupts */

/* Exercise 8.3: the lowest bit that is set: the first input of a set. */
static unsigned first_of(unsigned inputs)
{
    return inputs & -inputs;
}

/*
 * Exercise 8.3: the bit of the input that this chip asks for: the first one requested and not
 * masked, if it comes before those in service. 0: none.
 */
static uint8_t chip_request(const struct pic_chip *chip)
{
    TODO("8.3");
}

/* Exercise 8.3: the level of one input, by its bit. */
static void chip_set_line(struct pic_chip *chip, uint8_t input, bool level)
{
    TODO("8.3");
}

/* The slave's output is an input of the master: called after each change of the slave. */
static void pic_cascade(struct pic *pic)
{
    chip_set_line(&pic->master, 1 << PIC_CASCADE, chip_request(&pic->slave) != 0);
}

/* Exercise 8.3 */
void pic_set_line(struct pic *pic, unsigned irq, bool level)
{
    TODO("8.3");
}

/* Exercise 8.3 */
bool pic_asserted(const struct pic *pic)
{
    TODO("8.3");
}

/* Exercise 8.3: one chip's part: its request is in service; the vector. */
static uint8_t chip_acknowledge(struct pic_chip *chip)
{
    TODO("8.3");
}

/* Exercise 8.3: the slave's output falls, and rises again if the slave has another request. */
uint8_t pic_acknowledge(struct pic *pic)
{
    TODO("8.3");
}

/* Exercise 8.3: a write of the even port: ICW1, OCW2 or OCW3. */
static void chip_command(struct pic_chip *chip, uint8_t value)
{
    TODO("8.3");
}

/* Exercise 8.3: a write of the odd port. ICW3 says how the two are connected: as in every PC. */
static void chip_data(struct pic_chip *chip, uint8_t value)
{
    TODO("8.3");
}

/* Exercise 8.3 */
uint64_t pic_read(void *device, uint64_t port, unsigned size)
{
    const struct pic *pic = device;
    const struct pic_chip *chip = port < PIC_SLAVE ? &pic->master : &pic->slave;

    TODO("8.3");
}

void pic_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    struct pic *pic = device;

    (port & 1 ? chip_data : chip_command)(port < PIC_SLAVE ? &pic->master : &pic->slave,
                                          (uint8_t)value);
    pic_cascade(pic);
}

/* ------------------------------------------------------------------ the timer */

static bool is_counting(const struct pit *pit, unsigned number)
{
    return pit->counters[number].count != 0 && (number != 2 || pit->gate & GATE_OPEN);
}

/* Exercise 8.3: clock pulses since the counter's start; the product may have more than 64 bits. */
static uint64_t pulses(const struct pit *pit, const struct pit_counter *counter)
{
    TODO("8.3");
}

/* Exercise 8.3: what a counter reads as. In mode 3 it counts by two, twice in each period. */
static uint16_t counter_value(const struct pit *pit, unsigned number)
{
    TODO("8.3");
}

/* Exercise 8.3: the level of a counter's output. */
static bool counter_output(const struct pit *pit, unsigned number)
{
    TODO("8.3");
}

/* Exercise 8.3: sets pit->next. In mode 4 the output is low for one pulse before it rises. */
static void pit_schedule(struct pit *pit)
{
    TODO("8.3");
}

/* Exercise 8.3 */
bool pit_expired(struct pit *pit)
{
    TODO("8.3");
}

/* Exercise 8.3: one byte of a counter; a latched value stays until all of it is read. */
static uint8_t counter_read(struct pit *pit, unsigned number)
{
    TODO("8.3");
}

/* Exercise 8.3: one byte of a count; with the last one the counter starts. 0 means 0x10000. */
static void counter_write(struct pit *pit, struct pit_counter *counter, uint8_t byte)
{
    TODO("8.3");
}

/* Exercise 8.3: the control word latches a counter's value, or sets its mode and stops it. */
static void control_write(struct pit *pit, uint8_t value)
{
    TODO("8.3");
}

/* Exercise 8.3: the control register can't be read. */
uint64_t pit_read(void *device, uint64_t port, unsigned size)
{
    struct pit *pit = device;

    TODO("8.3");
}

/* Exercise 8.3 */
void pit_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    struct pit *pit = device;

    TODO("8.3");
}
