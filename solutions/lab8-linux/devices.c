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
    /* answer 8.1 */
    const uint64_t last = range->first + (range->bytes - 1);

    if (range->bytes == 0 || last < range->first || (range->space == BUS_PORT && last >= PORTS))
        return EINVAL;
    for (const struct bus_range *other = bus->ranges; other < bus->ranges + bus->count; other++) {
        if (other->space == range->space && other->first <= last &&
            range->first <= other->first + (other->bytes - 1))
            return EEXIST;
    }
    if (bus->count == BUS_RANGES_MAX)
        return ENOSPC;
    bus->ranges[bus->count++] = *range;
    return 0;
    /* end 8.1 */
}

/* Exercise 8.1: the range that contains the whole access; NULL: a hole. */
static const struct bus_range *bus_find(const struct bus *bus, enum bus_space space,
                                        uint64_t address, unsigned size)
{
    /* answer 8.1 */
    for (const struct bus_range *range = bus->ranges; range < bus->ranges + bus->count; range++) {
        const uint64_t offset = address - range->first;
        if (range->space == space && offset < range->bytes && size <= range->bytes - offset)
            return range;
    }
    return NULL;
    /* end 8.1 */
}

/* Exercise 8.1 */
uint64_t bus_read(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size)
{
    /* answer 8.1 */
    const struct bus_range *range = bus_find(bus, space, address, size);

    return range ? range->read(range->device, address, size) : UINT64_MAX >> (64 - 8 * size);
    /* end 8.1 */
}

/* Exercise 8.1 */
void bus_write(const struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
               uint64_t value)
{
    /* answer 8.1 */
    const struct bus_range *range = bus_find(bus, space, address, size);

    if (range)
        range->write(range->device, address, size, value);
    /* end 8.1 */
}

/* ------------------------------------------------------------------ the serial port */

/* Exercise 8.2 */
static bool has_room(const struct uart *uart)
{
    /* answer 8.2 */
    return uart->received.count < (uart->fifo_control & FCR_ENABLE ? UART_FIFO : 1);
    /* end 8.2 */
}

/* Exercise 8.2 */
void uart_receive(struct uart *uart)
{
    /* answer 8.2 */
    int byte;

    while ((uart->registers[UART_MCR] & (MCR_RTS | MCR_LOOPBACK)) == MCR_RTS && has_room(uart) &&
           (byte = uart->receive(uart->line)) >= 0)
        ring_put(&uart->received, (uint8_t)byte);
    /* end 8.2 */
}

/* Exercise 8.2: a byte for THR, which is empty again at once. */
static void uart_send(struct uart *uart, uint8_t byte)
{
    /* answer 8.2 */
    if (!(uart->registers[UART_MCR] & MCR_LOOPBACK))
        uart->transmit(uart->line, byte);
    else if (has_room(uart))
        ring_put(&uart->received, byte);
    else
        uart->overrun = true;
    uart->transmitter_news = true;
    /* end 8.2 */
}

/* Exercise 8.2: bits 7 to 4 of MSR. */
static uint8_t modem_inputs(const struct uart *uart)
{
    /* answer 8.2 */
    const uint8_t outputs = uart->registers[UART_MCR];

    if (!(outputs & MCR_LOOPBACK))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (outputs & MCR_OUT2 ? MSR_DCD : 0) | (outputs & MCR_OUT1 ? MSR_RI : 0) |
           (outputs & MCR_DTR ? MSR_DSR : 0) | (outputs & MCR_RTS ? MSR_CTS : 0);
    /* end 8.2 */
}

/* Exercise 8.2: the first cause that is pending and enabled, as in IIR. */
static uint8_t uart_cause(const struct uart *uart)
{
    /* answer 8.2 */
    const uint8_t enabled = uart->registers[UART_IER];

    if (enabled & IER_LINE && uart->overrun)
        return IIR_LINE;
    if (enabled & IER_RECEIVED && uart->received.count > 0)
        return IIR_RECEIVED;
    if (enabled & IER_TRANSMITTER && uart->transmitter_news)
        return IIR_TRANSMITTER;
    return enabled & IER_MODEM && uart->modem_news ? IIR_MODEM : IIR_NONE;
    /* end 8.2 */
}

/* Exercise 8.2 */
bool uart_interrupt(const struct uart *uart)
{
    /* answer 8.2 */
    return uart_cause(uart) != IIR_NONE;
    /* end 8.2 */
}

/* Exercise 8.2: a read of IIR, LSR or MSR ends what it reports. */
uint64_t uart_read(void *device, uint64_t port, unsigned size)
{
    struct uart *uart = device;
    const unsigned number = (unsigned)(port - UART_PORT);
    uint8_t value = uart->registers[number];

    /* answer 8.2 */
    if (number <= UART_IER && uart->registers[UART_LCR] & LCR_DLAB)
        return uart->divisor[number];
    switch (number) {
    case UART_RBR:
        value = uart->received.count > 0 ? (uint8_t)ring_get(&uart->received) : 0;
        uart_receive(uart);
        break;
    case UART_IIR:
        value = uart_cause(uart);
        if (value == IIR_TRANSMITTER)
            uart->transmitter_news = false;
        value |= uart->fifo_control & FCR_ENABLE ? IIR_FIFOS : 0;
        break;
    case UART_LSR:
        value = LSR_EMPTY | (uart->received.count > 0 ? LSR_RECEIVED : 0) |
                (uart->overrun ? LSR_OVERRUN : 0);
        uart->overrun = false;
        break;
    case UART_MSR:
        value = modem_inputs(uart) | uart->modem_news;
        uart->modem_news = 0;
        break;
    }
    return value;
    /* end 8.2 */
}

/* Exercise 8.2: whoever enables the THR-empty interrupt gets it at once, for THR is empty. */
void uart_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    struct uart *uart = device;
    const unsigned number = (unsigned)(port - UART_PORT);
    const uint8_t byte = (uint8_t)value, before = modem_inputs(uart);

    /* answer 8.2 */
    if (number <= UART_IER && uart->registers[UART_LCR] & LCR_DLAB) {
        uart->divisor[number] = byte;
    } else if (number == UART_RBR) {
        uart_send(uart, byte);
    } else if (number == UART_IIR) {
        if (byte & FCR_CLEAR || (byte ^ uart->fifo_control) & FCR_ENABLE)
            uart->received = (struct ring){0};
        uart->fifo_control = byte;
    } else {
        if (number == UART_IER && byte & ~uart->registers[UART_IER] & IER_TRANSMITTER)
            uart->transmitter_news = true;
        uart->registers[number] = number == UART_IER ? byte & IER_BITS : byte;
    }
    const uint8_t after = modem_inputs(uart), changed = before ^ after;
    uart->modem_news |= (uint8_t)(changed & ~(after & MSR_RI)) >> 4;
    uart_receive(uart);
    /* end 8.2 */
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
    /* answer 8.3 */
    const unsigned request = first_of(chip->requested & ~(unsigned)chip->masked);
    const unsigned served = first_of(chip->in_service);

    return chip->next_icw == 0 && (!served || request < served) ? (uint8_t)request : 0;
    /* end 8.3 */
}

/* Exercise 8.3: the level of one input, by its bit. */
static void chip_set_line(struct pic_chip *chip, uint8_t input, bool level)
{
    /* answer 8.3 */
    if (!level)
        chip->requested &= (uint8_t)~input;
    else if (!(chip->lines & input))
        chip->requested |= input;
    chip->lines = (uint8_t)(level ? chip->lines | input : chip->lines & ~input);
    /* end 8.3 */
}

/* The slave's output is an input of the master: called after each change of the slave. */
static void pic_cascade(struct pic *pic)
{
    chip_set_line(&pic->master, 1 << PIC_CASCADE, chip_request(&pic->slave) != 0);
}

/* Exercise 8.3 */
void pic_set_line(struct pic *pic, unsigned irq, bool level)
{
    /* answer 8.3 */
    chip_set_line(irq < 8 ? &pic->master : &pic->slave, (uint8_t)(1u << irq % 8), level);
    pic_cascade(pic);
    /* end 8.3 */
}

/* Exercise 8.3 */
bool pic_asserted(const struct pic *pic)
{
    /* answer 8.3 */
    return chip_request(&pic->master) != 0;
    /* end 8.3 */
}

/* Exercise 8.3: one chip's part: its request is in service; the vector. */
static uint8_t chip_acknowledge(struct pic_chip *chip)
{
    /* answer 8.3 */
    const uint8_t request = chip_request(chip);

    chip->requested &= (uint8_t)~request;
    if (!chip->automatic_eoi)
        chip->in_service |= request;
    return (uint8_t)(chip->base + (request ? __builtin_ctz(request) : 7));
    /* end 8.3 */
}

/* Exercise 8.3: the slave's output falls, and rises again if the slave has another request. */
uint8_t pic_acknowledge(struct pic *pic)
{
    /* answer 8.3 */
    const bool cascaded = chip_request(&pic->master) == 1 << PIC_CASCADE;
    uint8_t vector = chip_acknowledge(&pic->master);

    if (cascaded) {
        vector = chip_acknowledge(&pic->slave);
        chip_set_line(&pic->master, 1 << PIC_CASCADE, false);
        pic_cascade(pic);
    }
    return vector;
    /* end 8.3 */
}

/* Exercise 8.3: a write of the even port: ICW1, OCW2 or OCW3. */
static void chip_command(struct pic_chip *chip, uint8_t value)
{
    /* answer 8.3 */
    const unsigned ended = value & OCW2_SPECIFIC ? 1u << (value & 7) : first_of(chip->in_service);

    if (value & ICW1)
        *chip =
            (struct pic_chip){.lines = chip->lines, .next_icw = 2, .needs_icw4 = value & ICW1_ICW4};
    else if ((value & (OCW3 | OCW3_READ)) == (OCW3 | OCW3_READ))
        chip->read_in_service = value & OCW3_ISR;
    else if ((value & (OCW3 | OCW2_EOI)) == OCW2_EOI)
        chip->in_service &= (uint8_t)~ended;
    /* end 8.3 */
}

/* Exercise 8.3: a write of the odd port. ICW3 says how the two are connected: as in every PC. */
static void chip_data(struct pic_chip *chip, uint8_t value)
{
    /* answer 8.3 */
    const unsigned icw = chip->next_icw;

    if (icw == 0)
        chip->masked = value;
    else if (icw == 2)
        chip->base = value & ICW2_BASE;
    else if (icw == 4)
        chip->automatic_eoi = value & ICW4_AUTOMATIC;
    chip->next_icw = icw == 2 ? 3 : icw == 3 && chip->needs_icw4 ? 4 : 0;
    /* end 8.3 */
}

/* Exercise 8.3 */
uint64_t pic_read(void *device, uint64_t port, unsigned size)
{
    const struct pic *pic = device;
    const struct pic_chip *chip = port < PIC_SLAVE ? &pic->master : &pic->slave;

    /* answer 8.3 */
    if (port & 1)
        return chip->masked;
    return chip->read_in_service ? chip->in_service : chip->requested;
    /* end 8.3 */
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
    /* answer 8.3 */
    return (uint64_t)((unsigned __int128)(pit->now - counter->start) * PIT_HZ / NS_PER_SECOND);
    /* end 8.3 */
}

/* Exercise 8.3: what a counter reads as. In mode 3 it counts by two, twice in each period. */
static uint16_t counter_value(const struct pit *pit, unsigned number)
{
    /* answer 8.3 */
    const struct pit_counter *counter = &pit->counters[number];

    if (!is_counting(pit, number))
        return (uint16_t)counter->count;
    const uint64_t passed = pulses(pit, counter) * (counter->mode == 3 ? 2 : 1);
    return (uint16_t)(counter->count -
                      (counter->mode & PERIODIC ? passed % counter->count : passed));
    /* end 8.3 */
}

/* Exercise 8.3: the level of a counter's output. */
static bool counter_output(const struct pit *pit, unsigned number)
{
    /* answer 8.3 */
    const struct pit_counter *counter = &pit->counters[number];

    if (counter->mode == 0)
        return is_counting(pit, number) && pulses(pit, counter) >= counter->count;
    return counter->mode != 3 || !is_counting(pit, number) ||
           pulses(pit, counter) % counter->count < (counter->count + 1) / 2;
    /* end 8.3 */
}

/* Exercise 8.3: sets pit->next. In mode 4 the output is low for one pulse before it rises. */
static void pit_schedule(struct pit *pit)
{
    /* answer 8.3 */
    const struct pit_counter *counter = &pit->counters[0];

    pit->next = PIT_NEVER;
    if (!is_counting(pit, 0))
        return;
    const uint64_t passed = pulses(pit, counter);
    uint64_t rise = counter->count + (counter->mode == 4);
    if (counter->mode & PERIODIC)
        rise = (passed / counter->count + 1) * counter->count;
    if (rise > passed) /* rounded up, so that it has come when `pulses` says so */
        pit->next = counter->start +
                    (uint64_t)(((unsigned __int128)rise * NS_PER_SECOND + PIT_HZ - 1) / PIT_HZ);
    /* end 8.3 */
}

/* Exercise 8.3 */
bool pit_expired(struct pit *pit)
{
    /* answer 8.3 */
    if (!is_counting(pit, 0) || pit->now < pit->next)
        return false;
    pit_schedule(pit);
    return true;
    /* end 8.3 */
}

/* Exercise 8.3: one byte of a counter; a latched value stays until all of it is read. */
static uint8_t counter_read(struct pit *pit, unsigned number)
{
    /* answer 8.3 */
    struct pit_counter *counter = &pit->counters[number];
    const uint16_t value = counter->latched ? counter->latch : counter_value(pit, number);
    const bool both = counter->access == ACCESS_BOTH;
    const bool high = both ? counter->read_high : counter->access == ACCESS_HIGH;

    counter->read_high = both && !high;
    counter->latched = counter->latched && both && !high;
    return (uint8_t)(high ? value >> 8 : value);
    /* end 8.3 */
}

/* Exercise 8.3: one byte of a count; with the last one the counter starts. 0 means 0x10000. */
static void counter_write(struct pit *pit, struct pit_counter *counter, uint8_t byte)
{
    /* answer 8.3 */
    counter->write_high = counter->access == ACCESS_BOTH && !counter->write_high;
    if (counter->write_high) {
        counter->low = byte;
        return;
    }
    const uint32_t count =
        counter->access == ACCESS_LOW ? byte : counter->low | (uint32_t)byte << 8;
    counter->count = count ? count : 0x10000;
    counter->start = pit->now;
    /* end 8.3 */
}

/* Exercise 8.3: the control word latches a counter's value, or sets its mode and stops it. */
static void control_write(struct pit *pit, uint8_t value)
{
    /* answer 8.3 */
    const unsigned number = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;
    struct pit_counter *counter = &pit->counters[number % 3];

    if (number == 3)
        return;
    if (access != ACCESS_LATCH) { /* 6 and 7 are modes 2 and 3 */
        *counter = (struct pit_counter){.mode = (uint8_t)(mode > 5 ? mode - 4 : mode),
                                        .access = (uint8_t)access};
    } else if (!counter->latched) {
        counter->latch = counter_value(pit, number);
        counter->latched = true;
        counter->read_high = false;
    }
    /* end 8.3 */
}

/* Exercise 8.3: the control register can't be read. */
uint64_t pit_read(void *device, uint64_t port, unsigned size)
{
    struct pit *pit = device;

    /* answer 8.3 */
    if (port == PIT_GATE)
        return pit->gate | (counter_output(pit, 2) ? GATE_OUTPUT : 0);
    return port == PIT_CONTROL ? 0xff : counter_read(pit, (unsigned)(port - PIT_PORT));
    /* end 8.3 */
}

/* Exercise 8.3 */
void pit_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    struct pit *pit = device;

    /* answer 8.3 */
    if (port == PIT_CONTROL) {
        control_write(pit, (uint8_t)value);
    } else if (port != PIT_GATE) {
        counter_write(pit, &pit->counters[port - PIT_PORT], (uint8_t)value);
    } else {
        if (value & ~(uint64_t)pit->gate & GATE_OPEN)
            pit->counters[2].start = pit->now;
        pit->gate = value & GATE_BITS;
    }
    if (port == PIT_PORT)
        pit_schedule(pit);
    /* end 8.3 */
}
