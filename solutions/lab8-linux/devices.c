/*
 * devices.c - lab 8: a bus, and the devices of a small PC on it: a serial port, interrupt
 * controllers, a timer.
 *
 * Sources: the data sheets of the PC16550D, the 8259A and the 82C54.
 */
#include <errno.h>
#include <string.h>

#include "lab8.h"

/* ------------------------------------------------------------------ the bus */

/* Exercise 8.1: ranges that end at the top of the space must not wrap around. */
int bus_add(struct bus *bus, const struct bus_range *range)
{
    /* answer 8.1 */
    const uint64_t last = range->first + (range->bytes - 1);

    if (range->bytes == 0 || last < range->first || (range->space == BUS_PORT && last >= PORTS))
        return EINVAL;
    for (size_t i = 0; i < bus->count; i++) {
        const struct bus_range *other = &bus->ranges[i];
        if (other->space == range->space && range->first <= other->first + (other->bytes - 1) &&
            other->first <= last)
            return EEXIST;
    }
    if (bus->count == BUS_RANGES_MAX)
        return ENOSPC;
    bus->ranges[bus->count++] = *range;
    return 0;
    /* end 8.1 */
}

/* Exercise 8.1: the range that contains the whole access, or NULL. */
static const struct bus_range *bus_find(const struct bus *bus, enum bus_space space,
                                        uint64_t address, unsigned size)
{
    /* answer 8.1 */
    for (size_t i = 0; i < bus->count; i++) {
        const struct bus_range *range = &bus->ranges[i];
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

/* Exercise 8.1 */
void bus_io(const struct bus *bus, struct kvm_run *run)
{
    /* answer 8.1 */
    const struct io_access io = io_decode(run);

    for (uint32_t i = 0; i < io.count; i++) {
        if (io.out)
            bus_write(bus, BUS_PORT, io.port, io.size, io_operand(&io, i));
        else
            io_answer(&io, i, (uint32_t)bus_read(bus, BUS_PORT, io.port, io.size));
    }
    /* end 8.1 */
}

/* Exercise 8.1: api.rst section 5, KVM_EXIT_MMIO. */
void bus_mmio(const struct bus *bus, struct kvm_run *run)
{
    /* answer 8.1 */
    uint64_t value = 0;

    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, run->mmio.len);
        bus_write(bus, BUS_MEMORY, run->mmio.phys_addr, run->mmio.len, value);
    } else {
        value = bus_read(bus, BUS_MEMORY, run->mmio.phys_addr, run->mmio.len);
        memcpy(run->mmio.data, &value, sizeof value);
    }
    /* end 8.1 */
}

/* ------------------------------------------------------------------ the serial port */

/* Registers; in comments, what the same port is in the other direction or with DLAB. */
enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR }; /* THR, -, FCR; DLL, DLM */

#define IER_RECEIVED    0x01
#define IER_TRANSMITTER 0x02
#define IER_LINE        0x04
#define IER_MODEM       0x08
#define IIR_NONE        0x01 /* IIR: the causes, first that of the highest priority */
#define IIR_LINE        0x06
#define IIR_RECEIVED    0x04
#define IIR_TRANSMITTER 0x02
#define IIR_MODEM       0x00
#define IIR_FIFOS       0xc0
#define FCR_ENABLE      0x01
#define FCR_CLEAR       0x02 /* the receive FIFO */
#define LCR_DLAB        0x80
#define MCR_RTS         0x02
#define MCR_LOOPBACK    0x10
#define LSR_RECEIVED    0x01
#define LSR_OVERRUN     0x02
#define LSR_EMPTY       0x60 /* THR, and the transmitter */
#define MSR_CTS         0x10
#define MSR_DSR         0x20
#define MSR_RI          0x40
#define MSR_DCD         0x80

static bool has_room(const struct uart *uart)
{
    return uart->received.count < (uart->fifo_control & FCR_ENABLE ? UART_FIFO : 1);
}

/* Exercise 8.2 */
void uart_receive(struct uart *uart)
{
    /* answer 8.2 */
    int byte;

    while ((uart->modem_control & (MCR_RTS | MCR_LOOPBACK)) == MCR_RTS && has_room(uart) &&
           (byte = uart->receive(uart->line)) >= 0)
        ring_put(&uart->received, (uint8_t)byte);
    /* end 8.2 */
}

/* Exercise 8.2: THR. */
static void uart_send(struct uart *uart, uint8_t byte)
{
    /* answer 8.2 */
    if (!(uart->modem_control & MCR_LOOPBACK))
        uart->transmit(uart->line, byte);
    else if (has_room(uart))
        ring_put(&uart->received, byte);
    else
        uart->overrun = true;
    uart->transmitter_news = true;
    /* end 8.2 */
}

/* Exercise 8.2: the modem's inputs; in loopback mode DTR, RTS, OUT1 and OUT2 of MCR. */
static uint8_t modem_inputs(const struct uart *uart)
{
    /* answer 8.2 */
    const uint8_t outputs = uart->modem_control;

    if (!(outputs & MCR_LOOPBACK))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((outputs & 1) << 5 | (outputs & 2) << 3 | (outputs & 4) << 4 |
                     (outputs & 8) << 4);
    /* end 8.2 */
}

/* Exercise 8.2: MCR. A change of RI counts only when it falls. */
static void modem_set(struct uart *uart, uint8_t value)
{
    /* answer 8.2 */
    const uint8_t before = modem_inputs(uart);

    uart->modem_control = value & 0x1f;
    const uint8_t after = modem_inputs(uart);
    uart->modem_news |= (uint8_t)(((before ^ after) & ~MSR_RI) | (before & ~after & MSR_RI)) >> 4;
    /* end 8.2 */
}

/* Exercise 8.2: what is pending and enabled, in the order of priority. */
static uint8_t uart_cause(const struct uart *uart)
{
    /* answer 8.2 */
    const uint8_t enabled = uart->interrupt_enable;

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

/* Exercise 8.2: reads with an effect: RBR takes a byte, IIR, LSR and MSR end what they report. */
uint64_t uart_read(void *device, uint64_t port, unsigned size)
{
    struct uart *uart = device;
    const unsigned offset = (unsigned)(port - UART_PORT);
    uint8_t value;

    /* answer 8.2 */
    if (offset <= IER && uart->line_control & LCR_DLAB)
        return offset == RBR ? uart->divisor & 0xff : uart->divisor >> 8;
    switch (offset) {
    case RBR:
        value = uart->received.count > 0 ? (uint8_t)ring_get(&uart->received) : 0;
        uart_receive(uart);
        return value;
    case IER:
        return uart->interrupt_enable;
    case IIR:
        value = uart_cause(uart);
        if (value == IIR_TRANSMITTER)
            uart->transmitter_news = false;
        return value | (uart->fifo_control & FCR_ENABLE ? IIR_FIFOS : 0);
    case LCR:
        return uart->line_control;
    case MCR:
        return uart->modem_control;
    case LSR:
        value = LSR_EMPTY | (uart->received.count > 0 ? LSR_RECEIVED : 0) |
                (uart->overrun ? LSR_OVERRUN : 0);
        uart->overrun = false;
        return value;
    case MSR:
        value = modem_inputs(uart) | uart->modem_news;
        uart->modem_news = 0;
        return value;
    default:
        return uart->scratch;
    }
    /* end 8.2 */
}

/* Exercise 8.2: THR is empty when its interrupt is enabled, so that is news. */
void uart_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    struct uart *uart = device;
    const unsigned offset = (unsigned)(port - UART_PORT);
    const uint8_t byte = (uint8_t)value;

    /* answer 8.2 */
    if (offset <= IER && uart->line_control & LCR_DLAB) {
        uart->divisor = (uint16_t)(offset == RBR ? (uart->divisor & 0xff00) | byte
                                                 : (uart->divisor & 0xff) | byte << 8);
        return;
    }
    switch (offset) {
    case RBR:
        uart_send(uart, byte);
        break;
    case IER:
        if (byte & ~uart->interrupt_enable & IER_TRANSMITTER)
            uart->transmitter_news = true;
        uart->interrupt_enable = byte & 0x0f;
        break;
    case IIR:
        if (byte & FCR_CLEAR || (byte ^ uart->fifo_control) & FCR_ENABLE)
            uart->received = (struct ring){0};
        uart->fifo_control = byte;
        break;
    case LCR:
        uart->line_control = byte;
        break;
    case MCR:
        modem_set(uart, byte);
        break;
    case SCR:
        uart->scratch = byte;
        break;
    default: /* LSR and MSR: read-only */
        break;
    }
    uart_receive(uart);
    /* end 8.2 */
}

/* ------------------------------------------------------------------ the interrupts */

#define ICW1           0x10 /* in a command: it is ICW1 */
#define ICW1_ICW4      0x01
#define ICW4_AUTOMATIC 0x02
#define OCW3           0x08 /* in a command that is not ICW1: it is OCW3, else OCW2 */
#define OCW3_READ      0x02
#define OCW3_ISR       0x01 /* with OCW3_READ: read ISR from now on, else IRR */
#define OCW2_EOI       0x20
#define OCW2_SPECIFIC  0x40 /* with OCW2_EOI: of the input in bits 2..0 */

/*
 * Exercise 8.3: the input that this chip asks for: the first one that is requested and not masked,
 * if no input before it, nor itself, is in service. -1: none.
 */
static int chip_first(const struct pic_chip *chip)
{
    /* answer 8.3 */
    const unsigned requests = chip->requested & ~(unsigned)chip->masked;
    const unsigned served = chip->in_service & -(unsigned)chip->in_service;

    if (requests == 0 || chip->next_icw != 0)
        return -1;
    const int first = __builtin_ctz(requests);
    return served && 1u << first >= served ? -1 : first;
    /* end 8.3 */
}

/* Exercise 8.3: the level of one input. */
static void chip_set_line(struct pic_chip *chip, unsigned input, bool level)
{
    /* answer 8.3 */
    const uint8_t bit = (uint8_t)(1u << input);

    if (!level)
        chip->requested &= (uint8_t)~bit;
    else if (!(chip->lines & bit))
        chip->requested |= bit;
    chip->lines = (uint8_t)(level ? chip->lines | bit : chip->lines & ~bit);
    /* end 8.3 */
}

/* The slave's output is an input of the master: to call after every change of the slave. */
static void pic_cascade(struct pic *pic)
{
    chip_set_line(&pic->master, PIC_CASCADE, chip_first(&pic->slave) >= 0);
}

/* Exercise 8.3 */
void pic_set_line(struct pic *pic, unsigned irq, bool level)
{
    /* answer 8.3 */
    chip_set_line(irq < 8 ? &pic->master : &pic->slave, irq % 8, level);
    pic_cascade(pic);
    /* end 8.3 */
}

/* Exercise 8.3 */
bool pic_asserted(const struct pic *pic)
{
    /* answer 8.3 */
    return chip_first(&pic->master) >= 0;
    /* end 8.3 */
}

/* Exercise 8.3: one chip's part of the acknowledgment; its vector. */
static uint8_t chip_acknowledge(struct pic_chip *chip)
{
    /* answer 8.3 */
    const int first = chip_first(chip);

    if (first < 0)
        return chip->base + 7;
    chip->requested &= (uint8_t) ~(1u << first);
    if (!chip->automatic_eoi)
        chip->in_service |= (uint8_t)(1u << first);
    return (uint8_t)(chip->base + first);
    /* end 8.3 */
}

/* Exercise 8.3: the slave's output falls, and rises again if it has another request. */
uint8_t pic_acknowledge(struct pic *pic)
{
    /* answer 8.3 */
    const bool cascaded = chip_first(&pic->master) == PIC_CASCADE;
    uint8_t vector = chip_acknowledge(&pic->master);

    if (cascaded) {
        vector = chip_acknowledge(&pic->slave);
        chip_set_line(&pic->master, PIC_CASCADE, false);
        pic_cascade(pic);
    }
    return vector;
    /* end 8.3 */
}

/* Exercise 8.3: the even port: ICW1 starts the initialization. */
static void chip_command(struct pic_chip *chip, uint8_t value)
{
    /* answer 8.3 */
    if (value & ICW1) {
        *chip = (struct pic_chip){
            .lines = chip->lines, .next_icw = 2, .needs_icw4 = (value & ICW1_ICW4) != 0};
    } else if (value & OCW3) {
        if (value & OCW3_READ)
            chip->read_in_service = (value & OCW3_ISR) != 0;
    } else if (value & OCW2_EOI) {
        const unsigned first = chip->in_service & -(unsigned)chip->in_service;
        chip->in_service &= (uint8_t) ~(value & OCW2_SPECIFIC ? 1u << (value & 7) : first);
    }
    /* end 8.3 */
}

/* Exercise 8.3: the odd port. ICW3, how the chips are connected, is what it is in a PC. */
static void chip_data(struct pic_chip *chip, uint8_t value)
{
    /* answer 8.3 */
    switch (chip->next_icw) {
    case 2:
        chip->base = value & 0xf8;
        chip->next_icw = 3;
        break;
    case 3:
        chip->next_icw = chip->needs_icw4 ? 4 : 0;
        break;
    case 4:
        chip->automatic_eoi = (value & ICW4_AUTOMATIC) != 0;
        chip->next_icw = 0;
        break;
    default:
        chip->masked = value;
        break;
    }
    /* end 8.3 */
}

/* Exercise 8.3 */
uint64_t pic_read(void *device, uint64_t port, unsigned size)
{
    /* answer 8.3 */
    const struct pic *pic = device;
    const struct pic_chip *chip = port < PIC_SLAVE ? &pic->master : &pic->slave;

    if (port & 1)
        return chip->masked;
    return chip->read_in_service ? chip->in_service : chip->requested;
    /* end 8.3 */
}

/* Exercise 8.3 */
void pic_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    /* answer 8.3 */
    struct pic *pic = device;
    struct pic_chip *chip = port < PIC_SLAVE ? &pic->master : &pic->slave;

    (port & 1 ? chip_data : chip_command)(chip, (uint8_t)value);
    pic_cascade(pic);
    /* end 8.3 */
}

/* ------------------------------------------------------------------ the timer */

#define NS_PER_SECOND 1000000000u
#define GATE_OPEN     0x01 /* PIT_GATE: counter 2 may count */
#define GATE_OUTPUT   0x20
#define ACCESS_LATCH  0
#define ACCESS_LOW    1
#define ACCESS_HIGH   2
#define ACCESS_BOTH   3

static bool is_periodic(const struct pit_counter *counter)
{
    return counter->mode == 2 || counter->mode == 3;
}

static bool counts(const struct pit *pit, unsigned number)
{
    return pit->counters[number].count != 0 && (number != 2 || pit->gate & GATE_OPEN);
}

/* Exercise 8.3: the pulses that a counter has got since its start; the product needs 128 bits. */
static uint64_t pulses(const struct pit *pit, const struct pit_counter *counter)
{
    /* answer 8.3 */
    return (uint64_t)((unsigned __int128)(pit->now - counter->start) * PIT_HZ / NS_PER_SECOND);
    /* end 8.3 */
}

/* Exercise 8.3: what a counter reads as. In mode 3 it counts down by two. */
static uint16_t counter_value(const struct pit *pit, unsigned number)
{
    /* answer 8.3 */
    const struct pit_counter *counter = &pit->counters[number];

    if (!counts(pit, number))
        return (uint16_t)counter->count;
    const uint64_t passed = pulses(pit, counter) * (counter->mode == 3 ? 2 : 1);
    return (uint16_t)(counter->count - (is_periodic(counter) ? passed % counter->count : passed));
    /* end 8.3 */
}

/* Exercise 8.3: the level of a counter's output. */
static bool counter_output(const struct pit *pit, unsigned number)
{
    /* answer 8.3 */
    const struct pit_counter *counter = &pit->counters[number];

    if (!counts(pit, number))
        return counter->mode != 0;
    const uint64_t passed = pulses(pit, counter);
    switch (counter->mode) {
    case 2:
        return passed % counter->count != counter->count - 1;
    case 3:
        return passed % counter->count < (counter->count + 1) / 2;
    case 4:
        return passed != counter->count;
    default:
        return passed >= counter->count;
    }
    /* end 8.3 */
}

/* Exercise 8.3: sets pit->next: when counter 0's output rises for the next time after `now`. */
static void schedule(struct pit *pit)
{
    /* answer 8.3 */
    const struct pit_counter *counter = &pit->counters[0];

    pit->next = PIT_NEVER;
    if (!counts(pit, 0))
        return;
    const uint64_t passed = pulses(pit, counter);
    uint64_t rise = counter->count + (counter->mode == 4); /* mode 4: low for one pulse before */
    if (is_periodic(counter))
        rise = (passed / counter->count + 1) * counter->count;
    if (rise > passed) /* rounded up: then `pulses` has reached it */
        pit->next = counter->start +
                    (uint64_t)(((unsigned __int128)rise * NS_PER_SECOND + PIT_HZ - 1) / PIT_HZ);
    /* end 8.3 */
}

/* Exercise 8.3 */
bool pit_expired(struct pit *pit)
{
    /* answer 8.3 */
    if (!counts(pit, 0) || pit->now < pit->next)
        return false;
    schedule(pit);
    return true;
    /* end 8.3 */
}

/* Exercise 8.3: a byte of a counter, or of its latch. */
static uint8_t counter_read(struct pit *pit, unsigned number)
{
    /* answer 8.3 */
    struct pit_counter *counter = &pit->counters[number];
    const uint16_t value = counter->latched ? counter->latch : counter_value(pit, number);
    const bool high =
        counter->access == ACCESS_BOTH ? counter->read_high : counter->access == ACCESS_HIGH;

    if (counter->access == ACCESS_BOTH)
        counter->read_high = !counter->read_high;
    if (high || counter->access == ACCESS_LOW)
        counter->latched = false;
    return (uint8_t)(high ? value >> 8 : value);
    /* end 8.3 */
}

/* Exercise 8.3: a byte of a count; the last one starts the counter. A count of 0 means 0x10000. */
static void counter_write(struct pit *pit, unsigned number, uint8_t byte)
{
    /* answer 8.3 */
    struct pit_counter *counter = &pit->counters[number];
    uint32_t count = counter->access == ACCESS_LOW ? byte : (uint32_t)byte << 8;

    if (counter->access == ACCESS_BOTH) {
        counter->write_high = !counter->write_high;
        if (counter->write_high) {
            counter->low = byte;
            return;
        }
        count |= counter->low;
    }
    counter->count = count ? count : 0x10000;
    counter->start = pit->now;
    if (number == 0)
        schedule(pit);
    /* end 8.3 */
}

/* Exercise 8.3: the control word: latches a counter's value, or sets its mode and stops it. */
static void control_write(struct pit *pit, uint8_t value)
{
    /* answer 8.3 */
    const unsigned number = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;

    if (number > 2)
        return;
    struct pit_counter *counter = &pit->counters[number];
    if (access != ACCESS_LATCH) {
        *counter = (struct pit_counter){.mode = (uint8_t)(mode > 5 ? mode & 3 : mode),
                                        .access = (uint8_t)access};
    } else if (!counter->latched) {
        counter->latch = counter_value(pit, number);
        counter->latched = true;
    }
    if (number == 0)
        schedule(pit);
    /* end 8.3 */
}

/* Exercise 8.3 */
uint64_t pit_read(void *device, uint64_t port, unsigned size)
{
    /* answer 8.3 */
    struct pit *pit = device;
    const unsigned number = (unsigned)(port - PIT_PORT);

    if (port == PIT_GATE)
        return pit->gate | (counter_output(pit, 2) ? GATE_OUTPUT : 0);
    return number < 3 ? counter_read(pit, number) : 0xff; /* the control register: write-only */
    /* end 8.3 */
}

/* Exercise 8.3 */
void pit_write(void *device, uint64_t port, unsigned size, uint64_t value)
{
    /* answer 8.3 */
    struct pit *pit = device;
    const unsigned number = (unsigned)(port - PIT_PORT);

    if (port == PIT_GATE) {
        if (value & ~(uint64_t)pit->gate & GATE_OPEN)
            pit->counters[2].start = pit->now;
        pit->gate = value & 3;
    } else if (number < 3) {
        counter_write(pit, number, (uint8_t)value);
    } else {
        control_write(pit, (uint8_t)value);
    }
    /* end 8.3 */
}
