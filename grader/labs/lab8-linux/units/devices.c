/*
 * devices.c - lab 8's devices, register by register. No guest runs here, and nothing needs KVM:
 * what a device does is seen at its ports and lines alone, never in its structure.
 */
#include "../../unit.h"
#include "lab8.h"

MODULE(int, bus_add, (struct bus * bus, const struct bus_range *range), (bus, range), KEEP(*range))
MODULE(uint64_t, bus_read,
       (const struct bus *bus, enum bus_space space, uint64_t address, unsigned size),
       (bus, space, address, size))
MODULE_VOID(bus_write,
            (const struct bus *bus, enum bus_space space, uint64_t address, unsigned size,
             uint64_t value),
            (bus, space, address, size, value))
MODULE(uint64_t, uart_read, (void *device, uint64_t port, unsigned size), (device, port, size))
MODULE_VOID(uart_write, (void *device, uint64_t port, unsigned size, uint64_t value),
            (device, port, size, value))
MODULE_VOID(uart_receive, (struct uart * uart), (uart))
MODULE(bool, uart_interrupt, (const struct uart *uart), (uart))
MODULE(uint64_t, pic_read, (void *device, uint64_t port, unsigned size), (device, port, size))
MODULE_VOID(pic_write, (void *device, uint64_t port, unsigned size, uint64_t value),
            (device, port, size, value))
MODULE_VOID(pic_set_line, (struct pic * pic, unsigned irq, bool level), (pic, irq, level))
MODULE(bool, pic_asserted, (const struct pic *pic), (pic))
MODULE(uint8_t, pic_acknowledge, (struct pic * pic), (pic))
MODULE(uint64_t, pit_read, (void *device, uint64_t port, unsigned size), (device, port, size))
MODULE_VOID(pit_write, (void *device, uint64_t port, unsigned size, uint64_t value),
            (device, port, size, value))
MODULE(bool, pit_expired, (struct pit * pit), (pit))

static uint64_t random64(void)
{
    return (uint64_t)unit_random() << 32 | unit_random();
}

static uint8_t random_byte(void)
{
    return (uint8_t)unit_random();
}

/* ------------------------------------------------------------------ 8.1 the bus */

/* A device that notes the latest access, and answers with a number that depends on it. */
static struct probe {
    uint64_t key, address, value;
    unsigned size, reads, writes;
} probes[BUS_RANGES_MAX + 1];

BOTH static uint64_t answer_of(const struct probe *probe, uint64_t address, unsigned size)
{
    return (probe->key ^ address * 0x9e3779b97f4a7c15) & UINT64_MAX >> (64 - 8 * size);
}

BOTH static uint64_t probe_read(void *device, uint64_t address, unsigned size)
{
    struct probe *probe = device;

    probe->reads++;
    probe->address = address;
    probe->size = size;
    return answer_of(probe, address, size);
}

BOTH static void probe_write(void *device, uint64_t address, unsigned size, uint64_t value)
{
    struct probe *probe = device;

    probe->writes++;
    probe->address = address;
    probe->size = size;
    probe->value = value;
}

static struct bus bus;

static const char *const space_names[] = {"port", "memory"};

static int add(struct probe *probe, enum bus_space space, uint64_t first, uint64_t bytes)
{
    const struct bus_range range = {space, first, bytes, probe, probe_read, probe_write};

    return bus_add(&bus, &range);
}

static void check_added(struct probe *probe, enum bus_space space, uint64_t first, uint64_t bytes)
{
    int error = add(probe, space, first, bytes);

    ck_assert_msg(error == 0,
                  "bus_add of 0x%llx bytes of %s space from 0x%llx on returns %d instead of 0",
                  (unsigned long long)bytes, space_names[space], (unsigned long long)first, error);
}

static void start_bus(void)
{
    memset(&bus, 0, sizeof bus);
    memset(probes, 0, sizeof probes);
    for (int i = 0; i <= BUS_RANGES_MAX; i++)
        probes[i].key = random64();
}

static unsigned accesses(void)
{
    unsigned count = 0;

    for (int i = 0; i <= BUS_RANGES_MAX; i++)
        count += probes[i].reads + probes[i].writes;
    return count;
}

/* A read and a write there reach this device, and no other. */
static void check_reached(struct probe *probe, enum bus_space space, uint64_t address,
                          unsigned size)
{
    const unsigned long long at = address;
    const unsigned before = accesses();
    const uint64_t value = random64() & UINT64_MAX >> (64 - 8 * size);

    probe->reads = probe->writes = 0;
    const uint64_t got = bus_read(&bus, space, address, size),
                   wanted = answer_of(probe, address, size);
    ck_assert_msg(probe->reads == 1,
                  "a read of %u bytes at %s 0x%llx called its device's read handler %u times", size,
                  space_names[space], at, probe->reads);
    ck_assert_msg(probe->address == address && probe->size == size,
                  "a read of %u bytes at 0x%llx reached its handler as %u bytes at 0x%llx: it gets "
                  "the access's own address and size",
                  size, at, probe->size, (unsigned long long)probe->address);
    ck_assert_msg(got == wanted, "bus_read returns 0x%llx, and the read handler returned 0x%llx",
                  (unsigned long long)got, (unsigned long long)wanted);
    bus_write(&bus, space, address, size, value);
    ck_assert_msg(probe->writes == 1,
                  "a write of %u bytes at %s 0x%llx called its device's write handler %u times",
                  size, space_names[space], at, probe->writes);
    ck_assert_msg(probe->address == address && probe->size == size && probe->value == value,
                  "a write of 0x%llx in %u bytes at 0x%llx reached its handler as 0x%llx in %u "
                  "bytes at 0x%llx",
                  (unsigned long long)value, size, at, (unsigned long long)probe->value,
                  probe->size, (unsigned long long)probe->address);
    ck_assert_msg(probe->reads == 1, "a write called the read handler, too");
    probe->reads = probe->writes = 0;
    ck_assert_msg(accesses() <= before, "an access reached two devices");
}

START_TEST(bus_reaches)
{
    const uint64_t top = UINT64_MAX - 7;

    start_bus();
    check_added(&probes[0], BUS_PORT, 0x3f8, 8);
    check_added(&probes[1], BUS_PORT, 0x400, 1);
    check_added(&probes[2], BUS_PORT, PORTS - 4, 4);
    check_added(&probes[3], BUS_MEMORY, 0x3f8, 8);
    check_added(&probes[4], BUS_MEMORY, 0xd0000000, 0x1000);
    check_added(&probes[5], BUS_MEMORY, top, 8);
    check_added(&probes[6], BUS_MEMORY, 0x100000000, 0x100000000);
    for (unsigned size = 1; size <= 8; size++) {
        check_reached(&probes[0], BUS_PORT, 0x3f8, size);
        check_reached(&probes[0], BUS_PORT, 0x400 - size, size);
        check_reached(&probes[3], BUS_MEMORY, 0x3f8 + unit_random() % (9 - size), size);
        check_reached(&probes[4], BUS_MEMORY, 0xd0000000 + unit_random() % 0xff8, size);
        check_reached(&probes[4], BUS_MEMORY, 0xd0001000 - size, size);
        check_reached(&probes[5], BUS_MEMORY, UINT64_MAX - size + 1, size);
        check_reached(&probes[6], BUS_MEMORY, 0x1ffffffff - size + 1, size);
        if (size <= 4)
            check_reached(&probes[2], BUS_PORT, PORTS - size, size);
    }
    check_reached(&probes[1], BUS_PORT, 0x400, 1);
}
END_TEST

/* Nothing is there: all ones, in `size` bytes. */
static void check_hole(enum bus_space space, uint64_t address, unsigned size, const char *why)
{
    const unsigned before = accesses();
    const uint64_t ones = UINT64_MAX >> (64 - 8 * size), got = bus_read(&bus, space, address, size);

    bus_write(&bus, space, address, size, random64() & ones);
    ck_assert_msg(accesses() == before,
                  "%s: an access of %u bytes at %s 0x%llx is in a hole, and reached a device", why,
                  size, space_names[space], (unsigned long long)address);
    ck_assert_msg(got == ones,
                  "%s: a read of %u bytes at %s 0x%llx returns 0x%llx instead of 0x%llx", why, size,
                  space_names[space], (unsigned long long)address, (unsigned long long)got,
                  (unsigned long long)ones);
}

START_TEST(bus_holes)
{
    start_bus();
    for (unsigned size = 1; size <= 8; size++) {
        check_hole(BUS_PORT, unit_random() % (PORTS - 8), size, "the bus is empty");
        check_hole(BUS_MEMORY, random64(), size, "the bus is empty");
        check_hole(BUS_MEMORY, 0, size, "the bus is empty");
    }
    check_added(&probes[0], BUS_PORT, 0x60, 4);
    check_added(&probes[1], BUS_PORT, 0x64, 4);
    check_added(&probes[2], BUS_PORT, PORTS - 2, 2);
    check_added(&probes[3], BUS_MEMORY, UINT64_MAX - 3, 4);
    check_added(&probes[4], BUS_MEMORY, 0, 16);
    for (unsigned size = 1; size <= 8; size++) {
        check_hole(BUS_PORT, 0x60 - size, size, "it ends where a range begins");
        check_hole(BUS_PORT, 0x68, size, "it begins where a range ends");
        check_hole(BUS_MEMORY, 0x60, size, "the range with this address is in the other space");
        check_hole(BUS_MEMORY, 0x100000060, size, "the range at its low 32 bits is another one");
        check_hole(BUS_MEMORY, UINT64_MAX - 3 - size, size, "it is before the last range");
        if (size <= 4) { /* next to the holes are the devices */
            const unsigned i = unit_random() % 2;
            check_reached(&probes[i], BUS_PORT, 0x60 + 4 * i + unit_random() % (5 - size), size);
        }
        if (size > 1) {
            check_hole(BUS_PORT, 0x5f, size, "only its first byte is outside of the range");
            check_hole(BUS_PORT, 0x68 - size + 1, size, "only its last byte is outside");
            check_hole(BUS_PORT, 0x64 - 1, size, "it is in two ranges, and none contains it");
            check_hole(BUS_PORT, PORTS - 1, size, "it goes past the last port");
            check_hole(BUS_MEMORY, UINT64_MAX, size, "it goes past the last address");
        }
    }
}
END_TEST

/* The ranges that the bus has, in the judge's own memory. */
static PRIVATE struct {
    enum bus_space space;
    uint64_t first, last;
} added[BUS_RANGES_MAX];
static PRIVATE unsigned added_count;

static const char *error_name(int error)
{
    return error == EINVAL   ? "EINVAL"
           : error == EEXIST ? "EEXIST"
           : error == ENOSPC ? "ENOSPC"
           : error == 0      ? "0"
                             : strerror(error);
}

/* What bus_add has to return, by the contract's order. */
static int error_of(enum bus_space space, uint64_t first, uint64_t bytes)
{
    const uint64_t last = first + (bytes - 1);

    if (bytes == 0 || last < first || (space == BUS_PORT && last >= PORTS))
        return EINVAL;
    for (unsigned i = 0; i < added_count; i++)
        if (added[i].space == space && added[i].first <= last && first <= added[i].last)
            return EEXIST;
    return added_count == BUS_RANGES_MAX ? ENOSPC : 0;
}

/* Adds this one, if it is to be added; `why` it may be refused. */
static void check_add(enum bus_space space, uint64_t first, uint64_t bytes, const char *why)
{
    static PRIVATE struct bus before;
    const int wanted = error_of(space, first, bytes);
    const unsigned count = added_count;

    before = bus;
    int error = add(&probes[count], space, first, bytes);
    ck_assert_msg(error == wanted,
                  "bus_add of 0x%llx bytes of %s space from 0x%llx on, to a bus of %u ranges, "
                  "returns %s instead of %s%s%s",
                  (unsigned long long)bytes, space_names[space], (unsigned long long)first, count,
                  error_name(error), error_name(wanted), *why ? ": " : "", why);
    if (wanted == 0) {
        added[count].space = space;
        added[count].first = first;
        added[count].last = first + (bytes - 1);
        added_count++;
        return;
    }
    ck_assert_msg(memcmp(&before, &bus, sizeof bus) == 0,
                  "bus_add returns %s (%s), and has changed the bus all the same",
                  error_name(wanted), why);
}

/* So many more ranges, none of which the bad ones below touch. */
static void add_others(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        check_add(unit_random() % 4 ? BUS_PORT : BUS_MEMORY,
                  0x1000 + 0x100 * added_count + unit_random() % 0x80, 1 + unit_random() % 0x40,
                  "it is valid, overlaps none, and there is room");
}

static void start_ranges(void)
{
    start_bus();
    added_count = 0;
}

/* The ranges that the bad ones overlap, among so many others. */
static void start_neighbours(unsigned others)
{
    const unsigned before = unit_random() % (others + 1), between = unit_random() % (others + 1);

    start_ranges();
    add_others(before);
    check_add(BUS_PORT, 0x3f8, 8, "");
    check_add(BUS_PORT, PORTS - 8, 7, "");
    add_others(between < before ? 0 : between - before);
    check_add(BUS_MEMORY, UINT64_MAX - 7, 8, "");
    add_others(others - (between < before ? before : between));
}

static const struct {
    enum bus_space space;
    uint64_t first, bytes;
    const char *why;
} bad_ranges[] = {
    {BUS_PORT, 0x80, 0, "it is empty"},
    {BUS_PORT, 0x3fa, 0, "it is empty, wherever it is"},
    {BUS_MEMORY, 0, 0, "it is empty"},
    {BUS_PORT, PORTS, 1, "it begins past the last port"},
    {BUS_PORT, PORTS - 1, 2, "it ends past the last port"},
    {BUS_PORT, PORTS - 4, 5, "it ends past the last port, and overlaps another: in this order"},
    {BUS_PORT, 0x3f8, PORTS, "it ends past the last port, and overlaps another: in this order"},
    {BUS_PORT, 0x80, UINT64_MAX, "it ends past the last port, and its end wraps"},
    {BUS_PORT, 0x100000080, 1, "it begins far past the last port"},
    {BUS_MEMORY, UINT64_MAX, 2, "it ends past 2^64 - 1"},
    {BUS_MEMORY, UINT64_MAX - 6, UINT64_MAX, "it ends past 2^64 - 1"},
    {BUS_PORT, 0x3f8, 8, "it is the same as another"},
    {BUS_PORT, 0x3fa, 2, "it is inside of another"},
    {BUS_PORT, 0x3f0, 0x40, "another is inside of it"},
    {BUS_PORT, 0x3f0, 9, "its last byte is the first of another"},
    {BUS_PORT, 0x3ff, 9, "its first byte is the last of another"},
    {BUS_PORT, 0, PORTS, "others are inside of it"},
    {BUS_MEMORY, UINT64_MAX - 15, 9, "its last byte is the first of another"},
    {BUS_MEMORY, UINT64_MAX, 1, "it is the last byte of another"},
    {BUS_MEMORY, 1, UINT64_MAX, "it contains another"},
};

/* Random ranges, near enough to each other that most are refused. */
static void add_random(void)
{
    static const uint64_t ports[] = {0, 0x40, PORTS - 8, PORTS, 0x100000000, UINT64_MAX - 4},
                          places[] = {0, 0x40, PORTS, 0x100000000, 1ull << 63, UINT64_MAX - 8};

    start_ranges();
    for (int i = 0; i < 60; i++) {
        const enum bus_space space = unit_random() % 2 ? BUS_PORT : BUS_MEMORY;
        const uint64_t near = (space == BUS_PORT ? ports : places)[unit_random() % 6];
        check_add(space, near + unit_random() % 12,
                  unit_random() % 8 ? unit_random() % 8 : random64(), "");
    }
}

/*
 * What is refused leaves the bus as it is: others are added after it, up to 16. The first reason in
 * the contract's order counts.
 */
START_TEST(bus_refuses)
{
    enum { BAD = sizeof bad_ranges / sizeof bad_ranges[0] };
    int order[BAD];

    for (int full = 0; full < 2; full++) {
        shuffle(order, BAD);
        for (int i = 0; i < BAD; i++) {
            const int number = order[i];
            /* A random number of others: the number of calls does not show which is bad. */
            start_neighbours(full ? BUS_RANGES_MAX - 3 : unit_random() % 4);
            check_add(bad_ranges[number].space, bad_ranges[number].first, bad_ranges[number].bytes,
                      bad_ranges[number].why);
            check_add(BUS_PORT, 0x3f0, 8, "it overlaps none");
            check_add(BUS_PORT, 0x400, 8, "it overlaps none");
        }
    }
    start_neighbours(0);
    check_add(BUS_MEMORY, 0x3f8, 8, "the range with these addresses is in the other space");
    check_add(BUS_PORT, 0, 1, "it overlaps none");
    check_add(BUS_PORT, PORTS - 1, 1, "the last port is one");
    check_add(BUS_MEMORY, 0x400, UINT64_MAX - 0x407, "it ends where the last 8 bytes begin");

    for (int i = 0; i < 20; i++)
        add_random();
    start_ranges();
    add_others(BUS_RANGES_MAX);
    for (int i = 0; i < 3; i++)
        check_add(BUS_PORT, 0x800 + 8 * (unit_random() % 0x80), 8, "the bus is full");
    for (unsigned i = 0; i < BUS_RANGES_MAX; i++)
        check_reached(&probes[i], added[i].space, added[i].first, 1);
}
END_TEST

/* ------------------------------------------------------------------ 8.2 the serial port */

/* What the port is connected to. The bytes up to `count` have arrived; `sent` came from the port.
 */
static struct line {
    uint8_t bytes[64];
    unsigned count, taken;
    uint8_t sent[64];
    unsigned sent_count;
    bool strange; /* a handler was called with another line than this */
} line;

BOTH static int line_receive(void *of)
{
    line.strange |= of != &line;
    return line.taken < line.count ? line.bytes[line.taken++] : -2;
}

BOTH static void line_transmit(void *of, uint8_t byte)
{
    line.strange |= of != &line;
    if (line.sent_count < sizeof line.sent)
        line.sent[line.sent_count] = byte;
    line.sent_count++;
}

static PRIVATE uint8_t arrived[sizeof line.bytes]; /* the judge's copy of line.bytes */
static struct uart uart;

static void start_uart(void)
{
    memset(&line, 0, sizeof line);
    memset(&uart, 0, sizeof uart);
    uart.line = &line;
    uart.receive = line_receive;
    uart.transmit = line_transmit;
}

BOTH static uint8_t in(unsigned number)
{
    return (uint8_t)uart_read(&uart, UART_PORT + number, 1);
}

BOTH static void out(unsigned number, unsigned value)
{
    uart_write(&uart, UART_PORT + number, 1, value);
}

/* One more byte arrives; the device does not know yet. */
static void arrive_byte(uint8_t byte)
{
    if (line.count < sizeof line.bytes)
        line.bytes[line.count] = arrived[line.count] = byte, line.count++;
}

static void arrive(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        arrive_byte(random_byte() | 1); /* RBR is 0 without a byte */
}

static const char *const register_names[] = {"RBR", "IER", "IIR", "LCR", "MCR", "LSR", "MSR"};

static void check_register(unsigned number, unsigned mask, unsigned wanted, const char *when)
{
    const unsigned got = in(number);

    ck_assert_msg((got & mask) == wanted, "%s: %s reads 0x%02x; %s0x%02x instead of 0x%02x", when,
                  register_names[number], got, mask == 0xff ? "that is " : "of its bits ",
                  got & mask, wanted);
}

/* IIR's cause. */
static void check_cause(unsigned wanted, const char *when)
{
    check_register(UART_IIR, 0x0f, wanted, when);
}

static void check_line(bool wanted, const char *when)
{
    ck_assert_msg(uart_interrupt(&uart) == wanted, "%s: the interrupt line must be %s, and is %s",
                  when, wanted ? "high" : "low", wanted ? "low" : "high");
}

/* Byte `number` of those that arrived is the next in RBR. */
static void check_byte(unsigned number, const char *when)
{
    check_register(UART_LSR, LSR_RECEIVED, LSR_RECEIVED, when);
    const uint8_t got = in(UART_RBR), wanted = arrived[number];
    ck_assert_msg(got == wanted, "%s: RBR reads 0x%02x instead of byte %u of the line, 0x%02x",
                  when, got, number, wanted);
}

static void check_no_byte(const char *when)
{
    check_register(UART_LSR, LSR_RECEIVED, 0, when);
    check_register(UART_RBR, 0xff, 0, when);
}

static void check_taken(unsigned wanted, const char *when)
{
    ck_assert_msg(line.taken == wanted, "%s: %u bytes were taken from the line instead of %u", when,
                  line.taken, wanted);
}

/* What MSR reads as, twice, after DTR was set in loopback mode. */
static unsigned modem_read(unsigned format)
{
    start_uart();
    out(UART_LCR, format);
    out(UART_MCR, MCR_LOOPBACK | MCR_DTR);
    const unsigned first = in(UART_MSR);
    return first | (unsigned)in(UART_MSR) << 8;
}

/* LCR_DLAB changes what is at offsets 0 and 1, and nothing else. */
static void check_others_with_dlab(void)
{
    const uint8_t scratch = random_byte();
    const unsigned modem = modem_read(0), modem_with_dlab = modem_read(LCR_DLAB);

    ck_assert_msg(modem == modem_with_dlab,
                  "with LCR_DLAB set MSR reads 0x%02x, then 0x%02x, and without 0x%02x, then "
                  "0x%02x: LCR_DLAB concerns offsets 0 and 1 only",
                  modem_with_dlab & 0xff, modem_with_dlab >> 8, modem & 0xff, modem >> 8);
    start_uart();
    out(UART_IER, IER_TRANSMITTER);
    out(UART_LCR, LCR_DLAB);
    check_cause(IIR_TRANSMITTER, "IER_TRANSMITTER was set, then LCR_DLAB");
    check_cause(IIR_NONE, "with LCR_DLAB set, IIR has reported that THR is empty");
    check_line(false, "with LCR_DLAB set, IIR has reported that THR is empty");
    out(0, random_byte());
    out(1, random_byte() & ~(unsigned)IER_TRANSMITTER);
    out(1, random_byte() | IER_TRANSMITTER);
    check_cause(IIR_NONE, "DLL and DLM were written, which are neither THR nor IER");
    out(UART_SCR, scratch);
    ck_assert_msg(in(UART_SCR) == scratch,
                  "with LCR_DLAB set, 0x%02x was written to SCR, which "
                  "reads 0x%02x",
                  scratch, in(UART_SCR));
    out(UART_IIR, FCR_ENABLE);
    check_register(UART_IIR, 0xff, IIR_FIFOS | IIR_NONE,
                   "FCR_ENABLE was written with LCR_DLAB set, which concerns offsets 0 and 1 only");
    out(UART_MCR, MCR_LOOPBACK | MCR_DTR);
    check_register(UART_MCR, 0x1f, MCR_LOOPBACK | MCR_DTR, "after that, with LCR_DLAB set");
    out(UART_MCR, MCR_RTS);
    arrive(1);
    uart_receive(&uart);
    check_register(UART_LSR, 0xff, LSR_EMPTY | LSR_RECEIVED, "with LCR_DLAB set, a byte came");
    out(UART_IIR, FCR_ENABLE | FCR_CLEAR);
    check_register(UART_LSR, 0xff, LSR_EMPTY, "with LCR_DLAB set, FCR_CLEAR was written");
    out(UART_LCR, 0);
    check_register(UART_IIR, 0xff, IIR_FIFOS | IIR_NONE,
                   "FCR was written before LCR_DLAB was "
                   "cleared");
}

START_TEST(uart_registers)
{
    const uint8_t scratch = random_byte(), format = random_byte() & 0x7f, low = random_byte() | 1,
                  high = random_byte(), enabled = random_byte() & IER_BITS;

    start_uart();
    check_register(UART_IER, 0xff, 0, "after reset");
    check_register(UART_IIR, 0xff, IIR_NONE, "after reset");
    check_register(UART_LCR, 0xff, 0, "after reset");
    check_register(UART_MCR, 0xff, 0, "after reset");
    check_register(UART_MSR, 0xff, MSR_CTS | MSR_DSR | MSR_DCD, "after reset");
    check_line(false, "after reset");
    out(UART_SCR, scratch);
    out(UART_LCR, format);
    out(UART_MCR, MCR_DTR | MCR_OUT2);
    out(UART_IER, 0xf0 | enabled);
    ck_assert_msg(in(UART_SCR) == scratch, "SCR reads 0x%02x, and 0x%02x was written", in(UART_SCR),
                  scratch);
    check_register(UART_LCR, 0xff, format, "after that was written");
    check_register(UART_MCR, 0x1f, MCR_DTR | MCR_OUT2, "after DTR and OUT2 were set");
    for (unsigned bit = MCR_DTR; bit <= MCR_LOOPBACK; bit <<= 1) {
        out(UART_MCR, bit);
        check_register(UART_MCR, 0x1f, bit, "after one of its bits was set");
        out(UART_MCR, ~bit & 0x1f);
        check_register(UART_MCR, 0x1f, ~bit & 0x1f, "after all bits but one were set");
    }
    out(UART_MCR, 0);
    in(UART_MSR);
    check_register(UART_IER, 0xff, enabled,
                   "after a write with bits 7 to 4 set, which always read as 0");

    out(UART_MCR, MCR_RTS);
    arrive(1);
    uart_receive(&uart);
    out(UART_LCR, LCR_DLAB | format);
    out(0, low);
    out(1, high);
    ck_assert_msg(in(0) == low && in(1) == high,
                  "with LCR_DLAB set, 0x%02x and 0x%02x were written to DLL and DLM, and they read "
                  "as 0x%02x and 0x%02x",
                  low, high, in(0), in(1));
    ck_assert_msg(line.sent_count == 0, "a write of DLL, with LCR_DLAB set, was sent as a byte");
    out(UART_LCR, format);
    check_register(UART_IER, 0xff, enabled, "after DLM was written with LCR_DLAB set");
    check_byte(0, "after DLL was read with LCR_DLAB set");
    out(UART_LCR, LCR_DLAB);
    ck_assert_msg(in(0) == low && in(1) == high,
                  "DLL and DLM are lost while LCR_DLAB is 0, when RBR and IER are used");
    check_others_with_dlab();
}
END_TEST

/* What the guest can read after an access, in this order. */
static const char *const left_names[] = {"LCR", "DLL", "DLM", "SCR", "MSR",
                                         "LSR", "MCR", "IIR", "IER", "RBR"};

enum { LEFT = sizeof left_names / sizeof left_names[0] };

static uint8_t left[LEFT];

/* One access to a port with a byte in RBR and another one on the line; a read's result. */
THERE(uint64_t, access_there,
      (unsigned number, unsigned format, bool write, unsigned size, uint64_t value),
      (number, format, write, size, value))
{
    uint64_t got = 0;
    unsigned count = 0;

    out(UART_LCR, LCR_DLAB);
    out(0, 0x12);
    out(1, 0x34);
    out(UART_LCR, format);
    out(UART_SCR, 0x56);
    out(UART_MCR, MCR_RTS);
    uart_receive(&uart);
    if (write)
        uart_write(&uart, UART_PORT + number, size, value);
    else
        got = uart_read(&uart, UART_PORT + number, size);
    left[count++] = in(UART_LCR);
    out(UART_LCR, LCR_DLAB);
    left[count++] = in(0);
    left[count++] = in(1);
    out(UART_LCR, 0);
    for (unsigned other = UART_SCR + 1; other-- > 0;)
        if (other != UART_LCR)
            left[count++] = in(other) & (other == UART_MCR ? 0x1f : 0xff);
    return got;
}

/* The same state each time. */
static uint64_t access_alone(unsigned number, unsigned format, bool write, unsigned size,
                             uint64_t value)
{
    start_uart();
    arrive_byte(0x9a);
    arrive_byte(0xbc);
    return access_there(number, format, write, size, value);
}

/* A wider access does what one of its low byte does, and nothing else: the judge compares both. */
static void check_wide(unsigned number, bool dlab, bool write, unsigned size)
{
    static const char *const names[][2] = {{"RBR", "THR"}, {"IER", "IER"}, {"IIR", "FCR"},
                                           {"LCR", "LCR"}, {"MCR", "MCR"}, {"LSR", "LSR"},
                                           {"MSR", "MSR"}, {"SCR", "SCR"}};
    const char *name = dlab && number <= UART_IER ? left_names[1 + number] : names[number][write];
    const unsigned format = dlab ? LCR_DLAB : 0;
    const uint64_t value = (random64() | 0x8080808080808000) & UINT64_MAX >> (64 - 8 * size);
    uint8_t wanted_left[LEFT], sent[2];

    const uint64_t wanted = access_alone(number, format, write, 1, value & 0xff);
    const unsigned sent_count = line.sent_count;
    memcpy(wanted_left, left, sizeof left);
    memcpy(sent, line.sent, sizeof sent);
    const uint64_t got = access_alone(number, format, write, size, value);
    if (!write)
        ck_assert_msg(got == (wanted & 0xff),
                      "a read of %u bytes at %s returns 0x%llx, and one of a single byte 0x%llx: "
                      "the port has registers of one byte, and the other bytes are 0",
                      size, name, (unsigned long long)got, (unsigned long long)wanted);
    else
        ck_assert_msg(line.sent_count == sent_count && memcmp(line.sent, sent, sizeof sent) == 0,
                      "a write of 0x%llx in %u bytes at %s sent %u bytes, the first of them "
                      "0x%02x, and a write of its low byte sent %u, 0x%02x: the port has "
                      "registers of one byte",
                      (unsigned long long)value, size, name, line.sent_count, line.sent[0],
                      sent_count, sent[0]);
    for (unsigned i = 0; i < LEFT; i++)
        ck_assert_msg(left[i] == wanted_left[i],
                      "a %s of %u bytes at %s, value 0x%llx: after it %s reads 0x%02x, and after "
                      "one of the low byte alone 0x%02x: the port has registers of one byte",
                      write ? "write" : "read", size, name,
                      (unsigned long long)(write ? value : got), left_names[i], left[i],
                      wanted_left[i]);
}

START_TEST(uart_wide)
{
    for (unsigned size = 2; size <= 4; size += 2)
        for (unsigned number = 0; number < 2 * UART_PORTS; number++) {
            check_wide(number / 2, number % 2, false, size);
            check_wide(number / 2, number % 2, true, size);
        }
}
END_TEST

START_TEST(uart_transmits)
{
    uint8_t bytes[40] = {0x00, 0xff, 0x80};

    start_uart();
    for (size_t i = 3; i < sizeof bytes; i++)
        bytes[i] = random_byte();
    check_register(UART_LSR, 0xff, LSR_EMPTY, "after reset");
    out(UART_LCR, 0x03);
    for (unsigned i = 0; i < sizeof bytes; i++) {
        if (i == sizeof bytes / 2)
            out(UART_IIR, FCR_ENABLE);
        out(UART_RBR, bytes[i]);
        ck_assert_msg(line.sent_count == i + 1, "after %u bytes were written to THR, %u were sent",
                      i + 1, line.sent_count);
        ck_assert_msg(line.sent[i] == bytes[i], "0x%02x was written to THR, and 0x%02x was sent",
                      bytes[i], line.sent[i]);
        ck_assert_msg(!line.strange, "transmit was called with something else than uart->line");
        check_register(UART_LSR, 0xff, LSR_EMPTY, "after a byte was written to THR");
    }
    check_register(UART_LSR, LSR_RECEIVED, 0, "after bytes were sent without loopback");
}
END_TEST

START_TEST(uart_receives)
{
    start_uart();
    arrive(1);
    arrive_byte(0xff); /* a byte like any other */
    arrive(2);
    uart_receive(&uart);
    check_taken(0, "RTS is not set: the guest is not ready for bytes");
    check_no_byte("before RTS was set");
    check_taken(0, "RBR was read before RTS was set");
    out(UART_MCR, MCR_DTR | MCR_OUT2);
    check_taken(0, "DTR and OUT2 are set, and RTS is not");
    out(UART_MCR, MCR_RTS);
    check_taken(1, "RTS was set, and without FIFOs there is room for one byte");
    uart_receive(&uart);
    check_taken(1, "the one byte was not read yet");
    check_byte(0, "after RTS was set");
    check_taken(2, "a byte was read from RBR, so there is room for the next");
    check_byte(1, "after the first byte was read");
    out(UART_MCR, 0);
    check_byte(2, "the byte that was taken before RTS was cleared");
    check_no_byte("after RTS was cleared");
    check_taken(3, "RTS is clear again");
    out(UART_MCR, MCR_RTS);
    check_byte(3, "after RTS was set again");
    check_no_byte("when the line has none");
    arrive_byte(0);
    uart_receive(&uart);
    check_register(UART_LSR, LSR_RECEIVED, LSR_RECEIVED, "after the byte 0 was received");
    check_register(UART_RBR, 0xff, 0, "after the byte 0 was received");
    check_no_byte("after the byte 0 was read");
    ck_assert_msg(!line.strange, "receive was called with something else than uart->line");
}
END_TEST

/* The bits of FCR are commands and settings of their own. */
static void check_fifo_control(void)
{
    start_uart();
    for (unsigned i = 0, before = 0; i < 24; i++) {
        const unsigned control = i == 0 ? 0xfe & ~(unsigned)FCR_CLEAR : random_byte(),
                       wanted = control & FCR_ENABLE ? IIR_FIFOS : 0;
        const bool clears = control & FCR_CLEAR || (control ^ before) & FCR_ENABLE;
        char when[80];
        out(UART_MCR, MCR_RTS);
        arrive(1);
        uart_receive(&uart);
        out(UART_MCR, 0);
        out(UART_IIR, control);
        snprintf(when, sizeof when, "a byte came, then FCR changed from 0x%02x to 0x%02x", before,
                 control);
        check_register(UART_IIR, 0xff, wanted | IIR_NONE, when);
        if (clears)
            check_no_byte(when);
        else
            check_byte(line.count - 1, when);
        before = control;
    }
}

START_TEST(uart_fifo)
{
    start_uart();
    out(UART_MCR, MCR_RTS);
    out(UART_IIR, FCR_ENABLE);
    check_register(UART_IIR, 0xff, IIR_FIFOS | IIR_NONE, "with FIFOs");
    arrive(sizeof line.bytes);
    uart_receive(&uart);
    check_taken(UART_FIFO, "the FIFO has room for 16 bytes");
    for (unsigned i = 0; i < 6; i++)
        check_byte(i, "with FIFOs, in the order of the line");
    check_taken(UART_FIFO + 6, "6 of the bytes in the FIFO were read");
    out(UART_IIR, FCR_ENABLE | 0xc0);
    check_byte(6, "after a write of FCR that neither clears nor changes FCR_ENABLE");
    check_taken(UART_FIFO + 7, "7 bytes were read");
    out(UART_IER, IER_RECEIVED);
    check_register(UART_IIR, 0xff, IIR_FIFOS | IIR_RECEIVED, "with FIFOs and a byte");
    out(UART_IER, IER_TRANSMITTER);
    check_register(UART_IIR, 0xff, IIR_FIFOS | IIR_TRANSMITTER, "with FIFOs, and THR empty");
    out(UART_IER, 0);
    out(UART_IIR, FCR_ENABLE | FCR_CLEAR);
    check_byte(UART_FIFO + 7, "the first byte after FCR_CLEAR");
    const unsigned next = line.taken; /* the FIFO is full */
    out(UART_IIR, 0);
    check_register(UART_IIR, 0xff, IIR_NONE, "after FCR_ENABLE was cleared");
    check_byte(next, "the first byte after FCR_ENABLE was cleared, which clears the FIFO");
    check_taken(next + 2, "there is room for one byte without FIFOs");
    out(UART_MCR, 0);
    out(UART_IIR, FCR_ENABLE);
    check_no_byte("after FCR_ENABLE was set, which clears what was received");
    check_fifo_control();
}
END_TEST

START_TEST(uart_received_line)
{
    start_uart();
    out(UART_MCR, MCR_RTS);
    for (int fifo = 0; fifo < 2; fifo++) {
        out(UART_IIR, fifo ? FCR_ENABLE | 0xc0 : 0); /* asks for a level of 14 bytes */
        out(UART_IER, 0);
        arrive(1);
        uart_receive(&uart);
        check_line(false, "a byte came, and no interrupt is enabled");
        check_cause(IIR_NONE, "a byte came, and no interrupt is enabled");
        out(UART_IER, IER_LINE | IER_MODEM);
        check_line(false, "a byte came, and only other interrupts are enabled");
        out(UART_IER, IER_RECEIVED);
        check_line(true, "a byte came, then IER_RECEIVED was set");
        check_cause(IIR_RECEIVED, "a byte came, then IER_RECEIVED was set");
        check_line(true, "IIR was read, but not the byte");
        out(UART_IER, 0);
        check_line(false, "IER was cleared");
        out(UART_IER, IER_RECEIVED);
        check_line(true, "IER_RECEIVED was set again");
        check_byte(line.count - 1, "the byte that the interrupt announced");
        check_line(false, "the only byte was read");
        check_cause(IIR_NONE, "the only byte was read");
        arrive(2);
        uart_receive(&uart);
        check_line(true, "two bytes came");
        check_byte(line.count - 2, "the first of two bytes");
        check_line(true, "one of two bytes was read");
        check_byte(line.count - 1, "the second of two bytes");
        check_line(false, "both bytes were read");
    }
}
END_TEST

/* Writes that leave IER_TRANSMITTER as it is neither begin this interrupt nor end it. */
static void check_transmitter_stays(void)
{
    start_uart();
    for (int i = 0; i < 12; i++) {
        out(UART_IER, 0);
        out(UART_IER, IER_TRANSMITTER);
        if (i % 2)
            check_cause(IIR_TRANSMITTER, "IER_TRANSMITTER was set");
        out(UART_IER, IER_TRANSMITTER | (random_byte() & ~(unsigned)IER_RECEIVED));
        out(UART_IER, IER_TRANSMITTER);
        out(UART_IIR, random_byte());
        out(UART_LCR, random_byte() & ~(unsigned)LCR_DLAB);
        out(UART_SCR, random_byte());
        if (i % 2 == 0)
            check_cause(IIR_TRANSMITTER, "IER_TRANSMITTER was set, then other registers were "
                                         "written, and IER with this bit again");
        else
            check_line(false, "IIR has reported that THR is empty, then IER was written with "
                              "IER_TRANSMITTER as before");
        check_cause(IIR_NONE, "IIR has reported that THR is empty, and no byte was sent since");
    }
}

START_TEST(uart_transmitter_line)
{
    start_uart();
    out(UART_MCR, MCR_RTS);
    out(UART_RBR, random_byte());
    check_line(false, "a byte was sent, and no interrupt is enabled");
    out(UART_IER, IER_RECEIVED | IER_LINE | IER_MODEM);
    check_line(false, "a byte was sent, and IER_TRANSMITTER is not set");
    for (int i = 0; i < 2; i++) {
        out(UART_IER, 0);
        out(UART_IER, IER_TRANSMITTER);
        check_line(true, "IER_TRANSMITTER was set, and THR is empty");
        check_register(UART_LSR, 0xff, LSR_EMPTY, "with the THR-empty interrupt due");
        check_line(true, "only LSR was read");
        check_cause(IIR_TRANSMITTER, "IER_TRANSMITTER was set, and THR is empty");
        check_line(false, "IIR has reported that THR is empty");
        check_cause(IIR_NONE, "IIR has reported that THR is empty");
    }
    for (int i = 0; i < 3; i++) {
        out(UART_RBR, random_byte());
        check_line(true, "a byte was sent, so THR is empty again");
        out(UART_IER, 0);
        check_line(false, "IER was cleared");
        check_cause(IIR_NONE, "IER was cleared");
        out(UART_IER, IER_TRANSMITTER);
        check_line(true, "IER_TRANSMITTER was set again");
        check_cause(IIR_TRANSMITTER, "a byte was sent, so THR is empty again");
        check_line(false, "IIR has reported that THR is empty");
    }
    out(UART_IER, IER_TRANSMITTER | IER_RECEIVED);
    out(UART_RBR, random_byte());
    arrive(1);
    uart_receive(&uart);
    check_cause(IIR_RECEIVED, "a byte came, and THR is empty: the first has priority");
    check_byte(0, "with both interrupts");
    check_line(true, "the byte was read; IIR has not reported that THR is empty");
    check_cause(IIR_TRANSMITTER, "the byte was read; IIR has not reported that THR is empty");
    check_line(false, "IIR has reported both");
    check_transmitter_stays();
}
END_TEST

START_TEST(uart_loopback)
{
    const uint8_t byte = random_byte() | 1;

    start_uart();
    out(UART_MCR, MCR_RTS | MCR_LOOPBACK);
    arrive(2);
    uart_receive(&uart);
    check_taken(0, "in loopback mode nothing is taken from the line, even with RTS");
    out(UART_RBR, byte);
    ck_assert_msg(line.sent_count == 0, "in loopback mode a byte was sent to the line");
    check_register(UART_LSR, 0xff, LSR_EMPTY | LSR_RECEIVED, "a byte was written in loopback mode");
    ck_assert_msg(in(UART_RBR) == byte, "in loopback mode the byte for THR does not come to RBR");
    check_no_byte("the byte of the loopback was read");
    out(UART_IER, IER_RECEIVED | IER_TRANSMITTER);
    in(UART_IIR);
    out(UART_RBR, byte);
    check_cause(IIR_RECEIVED, "a byte was written in loopback mode");
    in(UART_RBR);
    check_cause(IIR_TRANSMITTER, "a byte was written in loopback mode, and read");
    check_line(false, "a byte was written in loopback mode and read, and IIR, too");
    out(UART_MCR, MCR_RTS);
    check_taken(1, "loopback mode ended, and RTS is set");
    out(UART_RBR, byte);
    ck_assert_msg(line.sent_count == 1 && line.sent[0] == byte,
                  "after loopback mode a byte for THR is not sent");
    check_byte(0, "after loopback mode");
}
END_TEST

/* Only a read of LSR ends an overrun: none of these does. */
static const struct {
    unsigned number, value;
    bool is_read;
    const char *name;
} no_ends[] = {
    {UART_IIR, FCR_ENABLE | FCR_CLEAR, false, "FCR_CLEAR was written"},
    {UART_IIR, 0, false, "FCR_ENABLE was cleared"},
    {UART_LSR, 0, false, "LSR was written, which has no effect"},
    {UART_MSR, 0, false, "MSR was written, which has no effect"},
    {UART_IER, 0, false, "IER was written"},
    {UART_MCR, 0, false, "loopback mode ended"},
    {UART_RBR, 0, true, "RBR was read"},
    {UART_IIR, 0, true, "IIR was read"},
    {UART_MSR, 0, true, "MSR was read"},
    {UART_LCR, LCR_DLAB, false, "LCR_DLAB was set"},
};

static void check_overrun_stays(void)
{
    for (unsigned i = 0; i < 2 * sizeof no_ends / sizeof no_ends[0]; i++) {
        const bool fifo = i % 2;
        const char *when = no_ends[i / 2].name;
        start_uart();
        out(UART_IIR, fifo ? FCR_ENABLE : 0);
        out(UART_MCR, MCR_LOOPBACK);
        for (int sent = 0; sent < 2 + (int)fifo * UART_FIFO; sent++)
            out(UART_RBR, random_byte());
        if (no_ends[i / 2].is_read)
            in(no_ends[i / 2].number);
        else
            out(no_ends[i / 2].number, no_ends[i / 2].value);
        const uint8_t format = in(UART_LCR);
        out(UART_LCR, 0);
        out(UART_IER, IER_LINE);
        out(UART_LCR, format);
        check_line(true, when);
        check_cause(IIR_LINE, when);
        check_register(UART_LSR, LSR_OVERRUN, LSR_OVERRUN, when);
        check_register(UART_LSR, LSR_OVERRUN, 0, "a second read of LSR after an overrun");
        check_line(false, "LSR was read after an overrun");
        check_cause(IIR_NONE, "LSR was read after an overrun");
        out(UART_LSR, 0xff);
        check_register(UART_LSR, LSR_OVERRUN, 0, "LSR was written, which has no effect");
        check_line(false, "LSR was written, which has no effect");
    }
}

START_TEST(uart_overruns)
{
    uint8_t bytes[UART_FIFO + 1];

    start_uart();
    out(UART_IIR, FCR_ENABLE);
    out(UART_MCR, MCR_LOOPBACK);
    out(UART_IER, IER_LINE | IER_RECEIVED);
    for (size_t i = 0; i < sizeof bytes; i++) {
        check_register(UART_LSR, LSR_OVERRUN, 0, "the FIFO has room");
        bytes[i] = random_byte() | 1;
        out(UART_RBR, bytes[i]);
    }
    check_line(true, "a byte came, and the FIFO had no room");
    check_cause(IIR_LINE, "a byte came, and the FIFO had no room: IIR_LINE is the first cause");
    check_cause(IIR_LINE, "LSR was not read yet");
    check_register(UART_LSR, 0xff, LSR_EMPTY | LSR_OVERRUN | LSR_RECEIVED, "after an overrun");
    check_register(UART_LSR, 0xff, LSR_EMPTY | LSR_RECEIVED, "a second read after an overrun");
    check_cause(IIR_RECEIVED, "LSR was read after an overrun");
    for (size_t i = 0; i < UART_FIFO; i++) {
        const uint8_t got = in(UART_RBR);
        ck_assert_msg(got == bytes[i],
                      "after an overrun byte %zu of the FIFO is 0x%02x instead of 0x%02x: the "
                      "byte without room is lost, not one of those before",
                      i, got, bytes[i]);
    }
    check_no_byte("all of the FIFO was read");
    out(UART_IER, IER_RECEIVED);
    out(UART_IIR, 0);
    out(UART_RBR, 1);
    out(UART_RBR, 2);
    in(UART_RBR);
    check_line(false, "an overrun, and IER_LINE is not set");
    check_register(UART_LSR, LSR_OVERRUN, LSR_OVERRUN, "two bytes came without FIFOs");
    check_register(UART_LSR, LSR_OVERRUN, 0,
                   "LSR was read, which ends an overrun even if IER_LINE is not set");
    out(UART_IER, IER_LINE);
    check_line(false, "LSR was read, then IER_LINE was set");
    out(UART_IER, IER_TRANSMITTER);
    for (unsigned i = 0; i < 3; i++) {
        check_cause(IIR_TRANSMITTER,
                    i < 2 ? "THR is empty"
                          : "a byte was written in loopback mode, where there was no room for it: "
                            "it is lost, and THR is empty again all the same");
        check_line(false, "IIR has reported that THR is empty");
        out(UART_RBR, random_byte());
    }
    check_overrun_stays();
}
END_TEST

/* Bits 7 to 4 of MSR in loopback mode. */
static unsigned inputs_of(unsigned outputs)
{
    return (outputs & MCR_DTR ? MSR_DSR : 0) | (outputs & MCR_RTS ? MSR_CTS : 0) |
           (outputs & MCR_OUT1 ? MSR_RI : 0) | (outputs & MCR_OUT2 ? MSR_DCD : 0u);
}

/* A write of MSR has no effect: neither on the inputs nor on their changes. */
static void check_modem_write(void)
{
    start_uart();
    out(UART_IER, IER_MODEM);
    for (unsigned value = 0; value < 0x100; value += 1 + unit_random() % 8) {
        out(UART_MSR, value);
        check_line(false, "MSR was written, which has no effect");
        check_register(UART_MSR, 0xff, MSR_CTS | MSR_DSR | MSR_DCD,
                       "MSR was written, which has no effect");
    }
    out(UART_MCR, MCR_LOOPBACK);
    out(UART_MSR, random_byte() & 0xf0);
    check_line(true, "the modem's inputs changed, then MSR was written, which has no effect");
    check_cause(IIR_MODEM, "the modem's inputs changed, then MSR was written");
    check_register(UART_MSR, 0xff, (MSR_CTS | MSR_DSR | MSR_DCD) >> 4,
                   "the modem's inputs changed, then MSR was written, which has no effect");
}

START_TEST(uart_modem)
{
    char when[80];

    start_uart();
    out(UART_MCR, MCR_LOOPBACK);
    const unsigned usual = MSR_CTS | MSR_DSR | MSR_DCD;
    check_register(UART_MSR, 0xff, usual >> 4, "in loopback mode, where all outputs are 0");
    for (unsigned i = 0, before = 0; i < 24; i++) {
        unsigned outputs = unit_random() & (MCR_LOOPBACK | 0x0f);
        if (i % 4 < 2) /* RI is set, then loopback mode ends */
            outputs = MCR_OUT1 | (i % 4 == 0 ? MCR_LOOPBACK : 0) | (outputs & 0x0f);
        const unsigned inputs = outputs & MCR_LOOPBACK ? inputs_of(outputs) : usual,
                       changed = (before ^ inputs) & ~(inputs & MSR_RI);
        snprintf(when, sizeof when, "MCR changed to 0x%02x, %s loopback mode (MSR was 0x%02x)",
                 outputs, outputs & MCR_LOOPBACK ? "in" : "out of", before);
        out(UART_IER, 0);
        out(UART_MCR, outputs);
        check_line(false, "the modem's inputs changed, and IER is 0");
        out(UART_IER, IER_MODEM);
        check_line(changed != 0, when);
        check_cause(changed ? IIR_MODEM : IIR_NONE, when);
        check_register(UART_MSR, 0xff, inputs | changed >> 4, when);
        check_line(false, "MSR was read");
        check_register(UART_MSR, 0xff, inputs, "MSR was read a second time");
        before = inputs;
    }
    out(UART_MCR, MCR_LOOPBACK | MCR_RTS);
    out(UART_MCR, MCR_LOOPBACK);
    in(UART_MSR);
    out(UART_MCR, MCR_LOOPBACK | MCR_RTS);
    out(UART_MCR, MCR_LOOPBACK);
    check_register(UART_MSR, 0xff, MSR_CTS >> 4, "RTS was set and cleared in loopback mode");
    out(UART_MCR, MCR_LOOPBACK | MCR_DTR);
    out(UART_MCR, MCR_LOOPBACK | MCR_DTR | MCR_OUT2);
    check_register(UART_MSR, 0xff, MSR_DSR | MSR_DCD | (MSR_DSR | MSR_DCD) >> 4,
                   "DTR, then OUT2 was set in loopback mode");
    out(UART_MCR, MCR_LOOPBACK);
    in(UART_MSR);
    out(UART_IER, IER_MODEM | IER_TRANSMITTER);
    out(UART_MCR, 0);
    check_cause(IIR_TRANSMITTER, "THR is empty, and the modem's inputs changed: in this order");
    check_cause(IIR_MODEM, "IIR has reported that THR is empty; the modem's inputs changed");
    check_register(UART_MSR, 0xff, usual | usual >> 4, "loopback mode ended");
    out(UART_MCR, MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2);
    check_register(UART_MSR, 0xff, usual, "the outputs changed without loopback mode");
    check_modem_write();
}
END_TEST

/* ------------------------------------------------------------------ 8.3 the 8259s */

#define OCW2_ROTATE 0x80u /* not modelled */

static struct pic pic;
static PRIVATE unsigned base, slave_base; /* the vectors of IRQ 0 and IRQ 8 */

static unsigned pic_in(unsigned port)
{
    return (unsigned)pic_read(&pic, port, 1);
}

static void pic_out(unsigned port, unsigned value)
{
    pic_write(&pic, port, 1, value);
}

static void chip_init(unsigned port, unsigned vector, unsigned icw3, unsigned icw4)
{
    pic_out(port, ICW1 | ICW1_ICW4);
    pic_out(port + 1, vector);
    pic_out(port + 1, icw3);
    pic_out(port + 1, icw4);
}

static void start_pic(void)
{
    base = (unit_random() % 12 + 4) * 8;
    slave_base = (unit_random() % 15 + 16) * 8;
    memset(&pic, 0, sizeof pic);
    chip_init(PIC_MASTER, base, 1 << PIC_CASCADE, 1);
    chip_init(PIC_SLAVE, slave_base, PIC_CASCADE, 1);
    pic_out(PIC_MASTER + 1, 0);
    pic_out(PIC_SLAVE + 1, 0);
}

static unsigned vector_of(unsigned irq)
{
    return irq < 8 ? base + irq : slave_base + irq - 8;
}

static void line_set(unsigned irq, bool level)
{
    pic_set_line(&pic, irq, level);
}

/* An edge. */
static void line_pulse(unsigned irq)
{
    line_set(irq, false);
    line_set(irq, true);
}

static void check_asserted(bool wanted, const char *when)
{
    ck_assert_msg(pic_asserted(&pic) == wanted, "%s: the master's output must be %s, and is %s",
                  when, wanted ? "high" : "low", wanted ? "low" : "high");
}

static void check_vector(unsigned irq, const char *when)
{
    check_asserted(true, when);
    const unsigned got = pic_acknowledge(&pic);
    ck_assert_msg(got == vector_of(irq),
                  "%s: the vector is 0x%02x instead of IRQ %u's, 0x%02x (ICW2: 0x%02x and 0x%02x)",
                  when, got, irq, vector_of(irq), base, slave_base);
}

static unsigned chip_requested(unsigned port)
{
    pic_out(port, OCW3 | OCW3_READ);
    return pic_in(port);
}

static unsigned chip_in_service(unsigned port)
{
    pic_out(port, OCW3 | OCW3_READ | OCW3_ISR);
    return pic_in(port);
}

static void check_chip(unsigned port, unsigned requested, unsigned in_service, const char *when)
{
    const unsigned irr = chip_requested(port), isr = chip_in_service(port);

    ck_assert_msg(irr == requested && isr == in_service,
                  "%s: the %s has IRR 0x%02x, ISR 0x%02x instead of 0x%02x, 0x%02x", when,
                  port == PIC_MASTER ? "master" : "slave", irr, isr, requested, in_service);
}

static void end_of_interrupt(unsigned irq)
{
    if (irq >= 8)
        pic_out(PIC_SLAVE, OCW2_EOI);
    pic_out(PIC_MASTER, OCW2_EOI);
}

/* A line that rises before the last of the ICWs waits for it. */
static void check_incomplete(unsigned port, unsigned irq, bool needs_icw4)
{
    const unsigned icws[] = {vector_of(irq) & 0xf8,
                             port == PIC_MASTER ? 1 << PIC_CASCADE : PIC_CASCADE, 1},
                   count = needs_icw4 ? 3 : 2, place = unit_random() % count;
    char when[160];

    pic_out(port + 1, 0xff); /* ICW1 clears it */
    pic_out(port, ICW1 | needs_icw4);
    for (unsigned i = 0; i < count; i++) {
        snprintf(
            when, sizeof when,
            "IRQ %u's line rose after ICW%u, a spurious interrupt came, and the initialisation "
            "is complete with ICW%u",
            irq, place + 1, count + 1);
        if (i == place)
            line_pulse(irq);
        if (i >= place) {
            check_asserted(false, when);
            pic_acknowledge(&pic); /* spurious: takes nothing */
        }
        const unsigned mask = pic_in(port + 1);
        ck_assert_msg(mask == 0,
                      "ICW1 to ICW%u were written, and the odd port reads as 0x%02x: it reads as "
                      "the mask at all times, and ICW1 has cleared that",
                      i + 1, mask);
        pic_out(port + 1, icws[i]);
    }
    check_vector(irq, when);
    check_chip(port, 0, 1u << irq % 8, when);
    end_of_interrupt(irq);
}

/* ICW1 ends what OCW3 has chosen. */
static void check_reads_irr_again(unsigned port, unsigned irq)
{
    start_pic();
    pic_out(port, OCW3 | OCW3_READ | OCW3_ISR);
    chip_init(port, vector_of(irq) & 0xf8, port == PIC_MASTER ? 1 << PIC_CASCADE : PIC_CASCADE, 1);
    line_pulse(irq);
    ck_assert_msg(pic_in(port) == 1u << irq % 8,
                  "IRQ %u's line rose after ICW1 to ICW4, and the even port reads 0x%02x instead "
                  "of IRR, 0x%02x, as after reset: ISR had been chosen before ICW1",
                  irq, pic_in(port), 1u << irq % 8);
}

/* The same for both chips. */
static void check_begins(void)
{
    for (int i = 0; i < 12; i++) {
        const unsigned input = unit_random() % 8, irq = input == PIC_CASCADE ? 3 : input;
        start_pic();
        check_incomplete(PIC_MASTER, irq, i % 3 != 0);
        check_incomplete(PIC_SLAVE, 8 + input, i % 3 != 0);
        check_reads_irr_again(PIC_MASTER, irq);
        check_reads_irr_again(PIC_SLAVE, 8 + input);
    }
}

START_TEST(pic_init)
{
    const unsigned irq = 3 + unit_random() % 5;
    const uint8_t mask = random_byte(), slave_mask = random_byte();

    start_pic();
    pic_out(PIC_MASTER + 1, mask);
    pic_out(PIC_SLAVE + 1, slave_mask);
    ck_assert_msg(pic_in(PIC_MASTER + 1) == mask && pic_in(PIC_SLAVE + 1) == slave_mask,
                  "0x%02x and 0x%02x were written to the IMRs, which read as 0x%02x and 0x%02x",
                  mask, slave_mask, pic_in(PIC_MASTER + 1), pic_in(PIC_SLAVE + 1));
    pic_out(PIC_MASTER + 1, 0);
    line_pulse(irq);
    check_vector(irq, "after ICW1 to ICW4");
    line_pulse(irq);
    check_chip(PIC_MASTER, 1u << irq, 1u << irq, "one interrupt in service, the same again");
    pic_out(PIC_MASTER + 1, 0xff);
    base = (unit_random() % 15 + 16) * 8;
    chip_init(PIC_MASTER, base | (unit_random() & 7), 1 << PIC_CASCADE, 1);
    ck_assert_msg(pic_in(PIC_MASTER + 1) == 0, "IMR is 0x%02x after ICW1 to ICW4; ICW1 clears it",
                  pic_in(PIC_MASTER + 1));
    ck_assert_msg(pic_in(PIC_MASTER) == 0, "after ICW1 the even port does not read as IRR, or IRR "
                                           "or ISR is not cleared");
    check_chip(PIC_MASTER, 0, 0, "ICW1 clears IRR and ISR");
    check_asserted(false, "after ICW1, with a line that was high before");
    line_set(irq, true);
    check_asserted(false, "after ICW1 the line is still high: it has to rise again");
    line_pulse(irq);
    check_vector(irq, "after a second ICW2, whose low 3 bits don't count");
    ck_assert_msg(pic_in(PIC_SLAVE + 1) == slave_mask, "ICWs of the master changed the slave");

    start_pic();
    line_set(irq + 8, true);
    line_set(15, true);
    chip_init(PIC_MASTER, base, 1 << PIC_CASCADE, 1);
    check_asserted(false, "after the master's ICWs, while the slave's output stays high");
    start_pic();
    line_pulse(irq + 8);
    check_vector(irq + 8, "of the slave");
    line_pulse(irq + 8);
    pic_out(PIC_SLAVE + 1, slave_mask);
    pic_out(PIC_MASTER, OCW2_EOI);
    slave_base = (unit_random() % 15 + 16) * 8;
    chip_init(PIC_SLAVE, slave_base, PIC_CASCADE, 1);
    ck_assert_msg(pic_in(PIC_SLAVE + 1) == 0, "the slave's IMR is 0x%02x after its ICW1 to ICW4",
                  pic_in(PIC_SLAVE + 1));
    check_chip(PIC_SLAVE, 0, 0, "ICW1 clears IRR and ISR of the slave");
    check_asserted(false, "the slave's request was cleared by ICW1");
    line_pulse(irq + 8);
    check_vector(irq + 8, "after the slave's second ICW2");
    pic_out(PIC_SLAVE + 1, slave_mask);

    chip_init(PIC_MASTER, base, 1 << PIC_CASCADE, 1 | ICW4_AUTOMATIC);
    pic_out(PIC_MASTER, ICW1);
    pic_out(PIC_MASTER + 1, base);
    pic_out(PIC_MASTER + 1, 1 << PIC_CASCADE);
    pic_out(PIC_MASTER + 1, mask & ~(1u << irq));
    ck_assert_msg(pic_in(PIC_MASTER + 1) == (mask & ~(1u << irq)),
                  "after an ICW1 without ICW1_ICW4, and ICW2 and ICW3, the next write is OCW1; IMR "
                  "reads 0x%02x instead of 0x%02x",
                  pic_in(PIC_MASTER + 1), mask & ~(1u << irq));
    line_pulse(irq);
    check_vector(irq, "after ICWs without ICW4");
    check_chip(PIC_MASTER, 0, 1u << irq, "ICW1 without ICW4 ends automatic EOI");
    ck_assert_msg(pic_read(&pic, PIC_MASTER + 1, 4) == (mask & ~(1u << irq)),
                  "a read of 4 bytes at the IMR does not return one byte and zeros");
    pic_write(&pic, PIC_MASTER + 1, 2, 0x5a00 | mask);
    ck_assert_msg(pic_in(PIC_MASTER + 1) == mask, "a write of 2 bytes: the low one counts");
    check_begins();
}
END_TEST

enum fall_state {
    FALL_IDLE,
    FALL_ITSELF,
    FALL_EARLIER,
    FALL_LATER,
    FALL_MASKED,
    FALL_AUTOMATIC,
    FALL_ICW2,
    FALL_ICW3,
    FALL_ICW4,
    FALL_STATES
};

static const char *const fall_states[FALL_STATES] = {
    "nothing was in service",
    "its own interrupt was in service",
    "an earlier input was in service",
    "a later input was in service",
    "it was masked",
    "the chip had automatic EOI",
    "the chip was waiting for ICW2",
    "the chip was waiting for ICW3",
    "the chip was waiting for ICW4",
};

/* The ICWs from that of state `from` up to that of state `to`, or all that are left. */
static void init_between(unsigned port, enum fall_state from, enum fall_state to, unsigned icw4)
{
    const unsigned icws[] = {port == PIC_MASTER ? base : slave_base,
                             port == PIC_MASTER ? 1 << PIC_CASCADE : PIC_CASCADE, icw4};

    for (unsigned i = from - FALL_ICW2; i < 3 && to != FALL_ICW2 + i; i++)
        pic_out(port + 1, icws[i]);
}

/* Up to the ICW that the state waits for, or all of them, with automatic EOI. */
static void init_to(unsigned port, enum fall_state state)
{
    pic_out(port, ICW1 | ICW1_ICW4);
    init_between(port, FALL_ICW2, state, 1 | ICW4_AUTOMATIC);
}

/* A line rises and falls before the processor takes it; the one beside it rises, and stays. */
static void check_fall(unsigned first, enum fall_state state)
{
    const unsigned port = first < 8 ? PIC_MASTER : PIC_SLAVE, irq = first + 4 + unit_random() % 2,
                   beside = first + 6, mask = 1 << 6 | (state == FALL_MASKED ? 1u << irq % 8 : 0),
                   served = state == FALL_ITSELF    ? irq
                            : state == FALL_EARLIER ? first + unit_random() % 2
                            : state == FALL_LATER   ? first + 7
                                                    : 16;
    const unsigned in_service = served < 16 ? 1u << served % 8 : 0;
    char when[160];

    start_pic();
    if (state == FALL_AUTOMATIC || state >= FALL_ICW2)
        init_to(port, state);
    if (served < 16) {
        line_pulse(served);
        check_vector(served, "a line rose");
        line_set(served, false);
    }
    if (state < FALL_ICW2)
        pic_out(port + 1, mask);
    line_set(irq, true);
    line_set(beside, true);
    snprintf(when, sizeof when, "IRQ %u's line rose while %s, and IRQ %u's rose, too", irq,
             fall_states[state], beside);
    if (state < FALL_ICW2)
        check_chip(port, 1u << irq % 8 | 1u << 6, in_service, when);
    line_set(irq, false);
    snprintf(when, sizeof when,
             "IRQ %u's line rose while %s, and fell before the processor took it: that withdraws "
             "it, and nothing else",
             irq, fall_states[state]);
    if (state >= FALL_ICW2) {
        init_between(port, state, FALL_STATES, 1);
        pic_out(port + 1, mask);
    }
    check_chip(port, 1u << 6, in_service, when);
    if (served < 16)
        end_of_interrupt(served);
    pic_out(port + 1, 1 << 6);
    check_asserted(false, when);
    check_chip(port, 1u << 6, 0, when);
    line_set(irq, true);
    check_vector(irq, "the line that had fallen rose again");
}

static const char *const slave_ways[] = {"that line fell", "the slave masked it",
                                         "the slave was initialized"};

/* The slave's output falls before the master's request of input 2 is taken. */
static void check_output_falls(enum fall_state state, unsigned way)
{
    const unsigned irq = 8 + unit_random() % 7, served = state == FALL_EARLIER ? unit_random() % 2
                                                         : state == FALL_LATER
                                                             ? 3 + unit_random() % 5
                                                             : 16;
    unsigned in_service = served < 16 ? 1u << served : 0;
    char when[160];

    start_pic();
    if (served < 16) {
        line_pulse(served);
        check_vector(served, "a line rose");
    }
    if (state == FALL_ITSELF) {
        line_pulse(15);
        check_vector(15, "a line rose");
        pic_out(PIC_SLAVE, OCW2_EOI);
        in_service = 1 << PIC_CASCADE;
    }
    if (state == FALL_MASKED)
        pic_out(PIC_MASTER + 1, 1 << PIC_CASCADE);
    if (state == FALL_AUTOMATIC || state >= FALL_ICW2)
        init_to(PIC_MASTER, state);
    line_set(irq, true);
    snprintf(when, sizeof when, "input 2 of the master rose, for IRQ %u, while %s", irq,
             fall_states[state]);
    if (state < FALL_ICW2)
        check_chip(PIC_MASTER, 1 << PIC_CASCADE, in_service, when);
    if (way == 0)
        line_set(irq, false);
    else if (way == 1)
        pic_out(PIC_SLAVE + 1, 1u << (irq - 8));
    else
        chip_init(PIC_SLAVE, slave_base, PIC_CASCADE, 1);
    snprintf(when, sizeof when,
             "input 2 of the master rose, for IRQ %u, while %s; then %s, and so the slave's output "
             "fell",
             irq, fall_states[state], slave_ways[way]);
    if (state >= FALL_ICW2)
        init_between(PIC_MASTER, state, FALL_STATES, 1);
    check_chip(PIC_MASTER, 0, in_service, when);
    pic_out(PIC_MASTER, OCW2_EOI);
    pic_out(PIC_MASTER + 1, 0);
    check_asserted(false, when);
    pic_out(PIC_SLAVE + 1, 0);
    line_pulse(irq);
    check_vector(irq, "the slave's line rose again");
}

static void check_falls(void)
{
    enum { WAYS = sizeof slave_ways / sizeof slave_ways[0] };

    for (unsigned state = 0; state < FALL_STATES; state++) {
        check_fall(0, state);
        check_fall(8, state);
        for (unsigned way = 0; way < WAYS; way++)
            check_output_falls(state, way);
    }
}

START_TEST(pic_lines)
{
    const unsigned irqs[] = {0, 7, 8, 15, 3 + unit_random() % 4, 9 + unit_random() % 6};

    for (size_t i = 0; i < sizeof irqs / sizeof irqs[0]; i++) {
        const unsigned irq = irqs[i], port = irq < 8 ? PIC_MASTER : PIC_SLAVE, bit = 1u << irq % 8;
        start_pic();
        check_asserted(false, "no line is high");
        line_set(irq, false);
        check_asserted(false, "a line that was low is set low");
        line_set(irq, true);
        ck_assert_msg(chip_requested(port) == bit, "IRQ %u's line rose, and IRR is 0x%02x", irq,
                      chip_requested(port));
        line_set(irq, false);
        ck_assert_msg(chip_requested(port) == 0,
                      "IRQ %u's line fell before the processor took it, and IRR is 0x%02x", irq,
                      chip_requested(port));
        check_asserted(false, "the line fell before the processor took the interrupt");
        line_set(irq, true);
        check_vector(irq, "the line rose");
        line_set(irq, true);
        end_of_interrupt(irq);
        ck_assert_msg(chip_in_service(port) == 0,
                      "after an EOI, a write of 0x20 to the even port, ISR is 0x%02x: IRQ %u must "
                      "not be in service any longer",
                      chip_in_service(port), irq);
        check_asserted(false, "the line stayed high after EOI: which is not a new edge");
        line_set(irq, false);
        check_asserted(false, "the line fell");
        line_set(irq, true);
        check_vector(irq, "after an EOI the line rose a second time");
        line_set(irq, false);
        ck_assert_msg(chip_in_service(port) == bit,
                      "the line fell while the interrupt was in service: ISR is 0x%02x",
                      chip_in_service(port));
        line_set(irq, true);
        check_asserted(false, "the line rose while its interrupt was in service");
        end_of_interrupt(irq);
        check_vector(irq, "EOI, after the line rose while its interrupt was in service");
        end_of_interrupt(irq);

        pic_out(port + 1, bit);
        line_pulse(irq);
        check_asserted(false, "the only line that rose is masked");
        ck_assert_msg(chip_requested(port) == bit, "a masked line rose, and IRR is 0x%02x",
                      chip_requested(port));
        pic_out(port + 1, (uint8_t)~bit);
        check_vector(irq, "the mask was removed");
        end_of_interrupt(irq);
        pic_out(port + 1, bit | random_byte());
        line_pulse(irq);
        line_set(irq, false);
        ck_assert_msg(chip_requested(port) == 0, "a masked line rose and fell, and IRR is 0x%02x",
                      chip_requested(port));
        pic_out(port + 1, 0);
        check_asserted(false, "a masked line rose and fell, then the mask was removed");
    }
    check_falls();
}
END_TEST

START_TEST(pic_priorities)
{
    static const unsigned inputs[] = {0, 1, 3, 4, 5, 6, 7};

    for (int i = 0; i < 5; i++) {
        const unsigned place = unit_random() % 6, first = inputs[place],
                       last = inputs[place + 1 + unit_random() % (6 - place)];
        start_pic();
        line_set(last, true);
        line_set(first, true);
        check_vector(first, "two lines rose: the lower input is first");
        check_chip(PIC_MASTER, 1u << last, 1u << first, "the first of two is in service");
        check_asserted(false, "the second waits until the first has ended");
        pic_out(PIC_MASTER, OCW2_EOI);
        check_vector(last, "EOI of the first of two");
        line_pulse(first);
        check_vector(first, "a lower input interrupts a higher one that is in service");
        check_chip(PIC_MASTER, 0, 1u << first | 1u << last, "two in service");
        pic_out(PIC_MASTER, OCW2_EOI);
        check_chip(PIC_MASTER, 0, 1u << last, "a non-specific EOI ends the first in service");
        line_pulse(first);
        check_vector(first, "after its EOI, the same again");
        pic_out(PIC_MASTER, OCW2_EOI | OCW2_SPECIFIC | last);
        check_chip(PIC_MASTER, 0, 1u << first, "a specific EOI ends the input that it names");
        pic_out(PIC_MASTER, OCW2_EOI | OCW2_SPECIFIC | last);
        check_chip(PIC_MASTER, 0, 1u << first, "a specific EOI of one that is not in service");
        pic_out(PIC_MASTER, OCW2_EOI);
        pic_out(PIC_MASTER, OCW2_EOI);
        check_chip(PIC_MASTER, 0, 0, "all were ended");
        line_pulse(last);
        check_vector(last, "after an EOI without an interrupt in service");
        line_pulse(first);
        pic_out(PIC_MASTER + 1, 1u << first);
        check_asserted(false, "the first input is masked, and the other one is in service");
        pic_out(PIC_MASTER + 1, 0);
        check_vector(first, "the mask was removed");
        pic_out(PIC_MASTER, OCW2_EOI | OCW2_SPECIFIC | last);
        line_pulse(last);
        for (unsigned masks = 0; masks < 8; masks++) {
            pic_out(PIC_MASTER + 1, (1u << first | random_byte()) & ~(1u << last));
            check_asserted(false, "an input in service is masked, and goes on to be in service: "
                                  "later ones wait for its EOI");
        }
        pic_out(PIC_MASTER + 1, 0);
        check_chip(PIC_MASTER, 1u << last, 1u << first, "masks came and went");
        pic_out(PIC_MASTER, OCW2_EOI);
        check_vector(last, "the EOI, after masks came and went");
    }
}
END_TEST

START_TEST(pic_commands)
{
    static const uint8_t idle[] = {0x00, 0x80, 0x40, 0xc0, 0xc5, 0x08, 0x28, 0x48,
                                   0x68, 0x6d, 0x0c, 0x2c, 0x0a, 0x2a, 0x2b, 0x6f};
    char when[80];

    for (size_t i = 0; i < sizeof idle; i++) {
        start_pic();
        line_set(5, true);
        check_vector(5, "a line rose");
        line_set(6, true);
        line_set(4, true);
        pic_out(PIC_MASTER, OCW3 | OCW3_READ | OCW3_ISR);
        pic_out(PIC_MASTER, idle[i]);
        const unsigned got = pic_in(PIC_MASTER), read = OCW3 | OCW3_READ;
        if ((idle[i] & (read | OCW3_ISR)) != read)
            ck_assert_msg(got == 1 << 5,
                          "after the command 0x%02x the port reads 0x%02x instead of ISR, as "
                          "chosen before",
                          idle[i], got);
        else
            ck_assert_msg(got == (1 << 4 | 1 << 6),
                          "after the command 0x%02x the port reads 0x%02x instead of IRR", idle[i],
                          got);
        snprintf(when, sizeof when, "after the command 0x%02x, which is %s and no EOI", idle[i],
                 idle[i] & OCW3 ? "OCW3" : "OCW2");
        check_chip(PIC_MASTER, 1 << 4 | 1 << 6, 1 << 5, when);
        check_vector(4, when);
        pic_out(PIC_MASTER, OCW2_EOI);
        pic_out(PIC_MASTER, OCW2_EOI);
        check_vector(6, "after two EOIs");
    }
    for (unsigned specific = 0; specific <= OCW2_SPECIFIC; specific += OCW2_SPECIFIC) {
        start_pic();
        line_set(5, true);
        check_vector(5, "a line rose");
        pic_out(PIC_MASTER, OCW2_ROTATE | OCW2_EOI | specific | 5);
        check_chip(PIC_MASTER, 0, 0, "an EOI with rotation is an EOI");
        line_set(6, true);
        line_pulse(5);
        check_vector(5, "after an EOI with rotation, which changes no priority");
    }
    start_pic();
    line_set(3, true);
    ck_assert_msg(pic_in(PIC_MASTER) == 1 << 3, "after reset the even port does not read as IRR");
    int order[8];
    shuffle(order, 8);
    for (int i = 0; i < 8; i++) { /* SNGL, ADI, LTIM, those of other processors: not modelled */
        const unsigned other = (unsigned)order[i] << 1 | (random_byte() & 0xe0);
        pic_out(PIC_MASTER, ICW1 | ICW1_ICW4 | other);
        pic_out(PIC_MASTER + 1, base);
        pic_out(PIC_MASTER + 1, 1 << PIC_CASCADE);
        pic_out(PIC_MASTER + 1, 1);
        ck_assert_msg(
            pic_in(PIC_MASTER + 1) == 0,
            "after ICW1 0x%02x and ICW2 to ICW4 the IMR is 0x%02x instead of 0: each write "
            "with ICW1 begins the initialisation, and ICW3 always comes",
            ICW1 | ICW1_ICW4 | other, pic_in(PIC_MASTER + 1));
        line_pulse(3);
        check_vector(3, "after an ICW1 that asks for what is not modelled");
        pic_out(PIC_MASTER, OCW2_EOI);
        check_asserted(false, "a line that stays high is one request, even if ICW1 asks for "
                              "levels");
    }
}
END_TEST

/*
 * Of an interrupt of the slave, `bit`, one of the two EOIs came: the slave's, or the master's. Also
 * waiting: IRQ 3, and another input of the slave.
 */
static void check_one_ended(bool masters, unsigned bit, unsigned other_bit)
{
    const char *when = masters ? "EOI of the master alone, which is not one of the slave"
                               : "EOI of the slave alone, which is not one of the master";

    check_chip(PIC_SLAVE, other_bit, masters ? bit : 0, when);
    check_chip(PIC_MASTER, 1 << 3 | (masters ? 0 : 1 << PIC_CASCADE),
               masters ? 0 : 1 << PIC_CASCADE, when);
}

START_TEST(pic_cascade)
{
    for (int order = 0; order < 2; order++)
        for (int i = 0; i < 2; i++) {
            const unsigned irq = i ? 9 + unit_random() % 6 : 8, bit = 1u << (irq - 8),
                           other = irq + 1 + unit_random() % (15 - irq),
                           other_bit = 1u << (other - 8);
            start_pic();
            line_set(3, true);
            line_set(other, true);
            line_set(irq, true);
            check_vector(irq, "two inputs of the slave, and IRQ 3: the slave is input 2");
            check_chip(PIC_SLAVE, other_bit, bit, "the slave's first request is in service");
            ck_assert_msg(chip_in_service(PIC_MASTER) == 1 << PIC_CASCADE,
                          "an interrupt of the slave is in service, and the master's ISR is 0x%02x",
                          chip_in_service(PIC_MASTER));
            check_asserted(false, "an interrupt of the slave is in service");
            line_set(1, true);
            check_vector(1, "IRQ 1 comes before the slave's");
            pic_out(PIC_MASTER, OCW2_EOI);
            pic_out(order ? PIC_MASTER : PIC_SLAVE, OCW2_EOI);
            check_one_ended(order, bit, other_bit);
            pic_out(order ? PIC_SLAVE : PIC_MASTER, OCW2_EOI);
            check_vector(other, order
                                    ? "the slave's second request, after EOIs of master and slave"
                                    : "the slave's second request, after EOIs of slave and master");
            end_of_interrupt(other);
            check_vector(3, "after the slave's two");
            end_of_interrupt(3);
            check_asserted(false, "all were ended");
            check_chip(PIC_SLAVE, 0, 0, "all were ended");
            check_chip(PIC_MASTER, 0, 0, "all were ended");

            line_pulse(irq);
            line_set(irq, false);
            check_asserted(false, "the slave's only request was withdrawn");
            pic_out(PIC_MASTER + 1, 1 << PIC_CASCADE);
            line_pulse(irq);
            check_asserted(false, "the master's input 2 is masked");
            pic_out(PIC_MASTER + 1, 0);
            check_asserted(true, "the mask of the master's input 2 was removed");
            pic_out(PIC_SLAVE + 1, bit);
            check_asserted(false, "the slave's only request is masked now");
            line_pulse(other);
            check_vector(other, "another input of the slave");
            pic_out(PIC_SLAVE + 1, 0);
            end_of_interrupt(other);
            check_vector(irq, "the slave's first input, no longer masked");
            line_pulse(other);
            pic_out(PIC_SLAVE + 1, bit);
            pic_out(PIC_MASTER, OCW2_EOI);
            check_asserted(false, "an input of the slave in service is masked, and a later one "
                                  "waits for its EOI");
            line_set(other, false);
            pic_out(PIC_SLAVE + 1, 0);
            pic_out(PIC_SLAVE, OCW2_EOI | OCW2_SPECIFIC | (irq - 8));
            pic_out(PIC_MASTER, OCW2_EOI | OCW2_SPECIFIC | PIC_CASCADE);
            check_chip(PIC_SLAVE, 0, 0, "specific EOIs");
            check_chip(PIC_MASTER, 0, 0, "specific EOIs");

            line_pulse(other);
            check_vector(other, "the later of two inputs of the slave");
            line_pulse(irq);
            check_chip(PIC_SLAVE, bit, other_bit, "an earlier input of the slave rose");
            check_asserted(false, "an interrupt of the slave is in service, and an earlier input "
                                  "of the slave rose: to the master both are input 2, which waits "
                                  "for its own EOI");
            pic_out(PIC_MASTER, OCW2_EOI);
            check_vector(irq, "EOI of the master alone: the slave's earlier input interrupts the "
                              "later one");
            check_chip(PIC_SLAVE, 0, bit | other_bit, "two of the slave's are in service");
        }
}
END_TEST

/* A spurious interrupt changes nothing: what is masked, or waits for an EOI, goes on to wait. */
static void check_spurious(void)
{
    for (int i = 0; i < 6; i++) {
        const uint8_t masked = i < 3 ? 0xff : random_byte();
        uint8_t lines = (uint8_t)(random_byte() & masked & ~(1u << PIC_CASCADE)),
                slave_lines = random_byte();
        unsigned served = 0;
        start_pic();
        if (i % 3 == 2) { /* all inputs but one come after the one in service */
            line_pulse(0);
            check_vector(0, "a line rose");
            served = 1;
            lines = (uint8_t)((random_byte() | 1 << 5) & ~(1u << PIC_CASCADE) & ~1u);
        } else {
            lines |= 1 << 6 & masked;
            pic_out(PIC_MASTER + 1, masked | 1 << PIC_CASCADE);
        }
        for (unsigned input = 0; input < 8; input++) {
            if (lines >> input & 1)
                line_pulse(input);
            if (slave_lines >> input & 1)
                line_pulse(8 + input);
        }
        const unsigned cascade = slave_lines ? 1 << PIC_CASCADE : 0;
        check_asserted(false, "all requests are masked, or wait for an EOI");
        const unsigned got = pic_acknowledge(&pic);
        ck_assert_msg(got == base + 7,
                      "all requests are masked, or wait for an EOI, and pic_acknowledge returns "
                      "0x%02x instead of the vector of input 7, 0x%02x",
                      got, base + 7);
        check_chip(PIC_MASTER, lines | cascade, served,
                   "after a spurious interrupt, which takes "
                   "no request");
        check_chip(PIC_SLAVE, slave_lines, 0, "after a spurious interrupt of the master");
    }
}

/* Each chip has its own ICW4. */
static void check_one_automatic(bool master, bool slave)
{
    const unsigned irq = 3 + unit_random() % 5, slave_irq = 8 + unit_random() % 8;
    char when[100];

    start_pic();
    chip_init(PIC_MASTER, base, 1 << PIC_CASCADE, 1 | (master ? ICW4_AUTOMATIC : 0));
    chip_init(PIC_SLAVE, slave_base, PIC_CASCADE, 1 | (slave ? ICW4_AUTOMATIC : 0));
    snprintf(when, sizeof when, "automatic EOI %s for the master and %s for the slave",
             master ? "on" : "off", slave ? "on" : "off");
    line_pulse(slave_irq);
    check_vector(slave_irq, when);
    check_chip(PIC_MASTER, 0, master ? 0 : 1 << PIC_CASCADE, when);
    check_chip(PIC_SLAVE, 0, slave ? 0 : 1u << (slave_irq - 8), when);
    pic_out(PIC_MASTER, OCW2_EOI);
    line_pulse(irq);
    check_vector(irq, when);
    check_chip(PIC_MASTER, 0, master ? 0 : 1u << irq, when);
}

START_TEST(pic_automatic)
{
    const unsigned irq = 3 + unit_random() % 5, slave_irq = 8 + unit_random() % 7;

    start_pic();
    ck_assert_msg(pic_acknowledge(&pic) == base + 7,
                  "no input asks for an interrupt, and pic_acknowledge does not return the vector "
                  "of input 7");
    check_chip(PIC_MASTER, 0, 0, "a spurious interrupt is not in service");
    line_set(irq, true);
    line_set(irq, false);
    ck_assert_msg(pic_acknowledge(&pic) == base + 7,
                  "the only request was withdrawn, and pic_acknowledge does not return the vector "
                  "of input 7");
    line_pulse(0);
    check_vector(0, "after spurious interrupts");
    pic_out(PIC_MASTER, OCW2_EOI);
    check_chip(PIC_MASTER, 0, 0, "after a spurious interrupt and one that was ended");

    chip_init(PIC_MASTER, base, 1 << PIC_CASCADE, 1 | ICW4_AUTOMATIC);
    chip_init(PIC_SLAVE, slave_base, PIC_CASCADE, 1 | ICW4_AUTOMATIC);
    line_pulse(0);
    line_pulse(irq);
    check_vector(0, "with automatic EOI");
    check_chip(PIC_MASTER, 1u << irq, 0, "with automatic EOI nothing is in service");
    check_vector(irq, "with automatic EOI, without any EOI between the two");
    check_asserted(false, "with automatic EOI, two interrupts were taken");
    line_pulse(slave_irq + 1);
    line_pulse(slave_irq);
    check_vector(slave_irq, "with automatic EOI, of the slave");
    check_vector(slave_irq + 1, "with automatic EOI, the slave's second request");
    check_chip(PIC_SLAVE, 0, 0, "with automatic EOI nothing is in service");
    check_chip(PIC_MASTER, 0, 0, "with automatic EOI nothing is in service");
    check_one_automatic(true, false);
    check_one_automatic(false, true);
    check_spurious();
}
END_TEST

/* ------------------------------------------------------------------ 8.3 the 8254 */

static struct pit pit;

#define PULSE_NS  838u  /* one pulse, rounded down */
#define SLACK     3u    /* pulses that don't matter: when exactly a count is loaded */
#define SLACK_NS  3000u /* the same in nanoseconds */
#define DAY_NS    86400000000000u
#define ANY_COUNT (2000 + unit_random() % 60000)

static void pit_out(unsigned port, unsigned value)
{
    pit_write(&pit, port, 1, value);
}

static unsigned pit_in(unsigned port)
{
    return (unsigned)pit_read(&pit, port, 1);
}

static void pit_control(unsigned number, unsigned access, unsigned mode)
{
    pit_out(PIT_CONTROL, number << 6 | access << 4 | mode << 1);
}

/* Low byte and high byte; 0x10000 is written as 0. */
static void pit_count(unsigned number, unsigned count)
{
    pit_out(PIT_PORT + number, count & 0xff);
    pit_out(PIT_PORT + number, count >> 8 & 0xff);
}

static void pit_start(unsigned number, unsigned mode, unsigned count)
{
    pit_control(number, ACCESS_BOTH, mode);
    pit_count(number, count);
}

static void start_pit(void)
{
    memset(&pit, 0, sizeof pit);
    pit.now = random64() >> 4;
}

static uint64_t ns_of(uint64_t pulses)
{
    return (uint64_t)((unsigned __int128)pulses * 1000000000 / PIT_HZ);
}

static unsigned both_bytes(unsigned number)
{
    const unsigned low = pit_in(PIT_PORT + number) & 0xff;

    return low | (pit_in(PIT_PORT + number) & 0xff) << 8;
}

static unsigned latched(unsigned number)
{
    pit_control(number, ACCESS_LATCH, 0);
    return both_bytes(number);
}

/* The counter reads as this, or a few pulses more or less: `step` for each. */
static void check_count(unsigned number, unsigned wanted, unsigned step, const char *when)
{
    const unsigned got = latched(number), apart = (got - wanted) & 0xffff;

    ck_assert_msg(apart <= SLACK * step || apart >= 0x10000 - SLACK * step,
                  "%s: counter %u reads 0x%04x instead of 0x%04x", when, number, got,
                  wanted & 0xffff);
}

/* A control word for this counter, and a count: as many bytes as the access has. */
static void access_start(unsigned number, unsigned access, unsigned mode, unsigned count)
{
    pit_control(number, access, mode);
    if (access != ACCESS_HIGH)
        pit_out(PIT_PORT + number, count & 0xff);
    if (access != ACCESS_LOW)
        pit_out(PIT_PORT + number, count >> 8 & 0xff);
}

/* The bits of a value that this access shows. */
static unsigned access_bits(unsigned access)
{
    return access == ACCESS_LOW ? 0xff : access == ACCESS_HIGH ? 0xff00 : 0xffff;
}

static const char *access_name(unsigned access)
{
    return access == ACCESS_LOW    ? "ACCESS_LOW"
           : access == ACCESS_HIGH ? "ACCESS_HIGH"
                                   : "ACCESS_BOTH";
}

/* All that this access shows of the counter, with a read of each byte. */
static unsigned access_read(unsigned number, unsigned access)
{
    unsigned value = 0;

    if (access != ACCESS_HIGH)
        value = pit_in(PIT_PORT + number) & 0xff;
    if (access != ACCESS_LOW)
        value |= (pit_in(PIT_PORT + number) & 0xff) << 8;
    return value;
}

static void check_seen(unsigned got, unsigned wanted, unsigned access, const char *when)
{
    const unsigned bits = access_bits(access), apart = (got - wanted) & bits,
                   slack = access == ACCESS_HIGH ? 0 : SLACK;

    ck_assert_msg(apart <= slack || ((wanted - got) & bits) <= slack,
                  "%s, %s: the counter reads as 0x%04x instead of 0x%04x", access_name(access),
                  when, got, wanted & bits);
}

START_TEST(pit_counts)
{
    static const unsigned modes[] = {0, 2, 3, 4, 6, 7}; /* the last two are 2 and 3 as well */
    char when[100];

    for (unsigned i = 0; i < 24; i++) {
        const unsigned number = i % 3, mode = modes[i % 6], step = (mode & 3) == 3 ? 2 : 1,
                       count = i >= 18 ? 0x10000 : (unsigned)(ANY_COUNT & ~1u);
        start_pit();
        pit_out(PIT_GATE, GATE_OPEN);
        pit_start(number, mode, count);
        snprintf(when, sizeof when, "mode %u, count 0x%x, at once", mode, count);
        check_count(number, count, step, when);
        const unsigned part = SLACK + 1 + unit_random() % (count / step - 20);
        pit.now += ns_of(part);
        snprintf(when, sizeof when, "mode %u, count 0x%x, after %u pulses", mode, count, part);
        check_count(number, count - part * step, step, when);
        if (mode & PERIODIC) {
            pit.now += ns_of((uint64_t)count * (1 + unit_random() % 100));
            snprintf(when, sizeof when,
                     "mode %u, count 0x%x, after whole periods and %u pulses (it begins again)",
                     mode, count, part);
        } else {
            pit.now += ns_of(count);
            snprintf(when, sizeof when, "mode %u, after 0x%x + %u pulses (it wraps below 0)", mode,
                     count, part);
        }
        check_count(number, mode & PERIODIC ? count - part * step : 0u - part, step, when);
        start_pit();
        pit_out(PIT_GATE, GATE_OPEN);
        pit_start(number, mode, 0x10000);
        pit.now += DAY_NS;
        const uint64_t pulses = (uint64_t)((unsigned __int128)DAY_NS * PIT_HZ / 1000000000);
        snprintf(when, sizeof when, "mode %u, count 0x10000, after a day", mode);
        check_count(number, 0x10000 - (unsigned)(pulses * step & 0xffff), step, when);
    }
}
END_TEST

/* A count of 0 is 0x10000, with each access, and with a closed gate. */
static void check_zero_counts(void)
{
    static const unsigned modes[] = {0, 2, 3, 4};

    for (unsigned i = 0; i < 3 * 4 * 3; i++) {
        const unsigned number = i % 3, mode = modes[i / 3 % 4], access = ACCESS_LOW + i / 12,
                       step = mode == 3 ? 2 : 1, part = 0x80 + (unit_random() % 0x70 << 8);
        char when[100];
        start_pit();
        pit_out(PIT_GATE, 0);
        access_start(number, access, mode, 0);
        if (number == 2) {
            pit.now += ns_of(part);
            snprintf(when, sizeof when, "mode %u, count 0, which means 0x10000, the gate is closed",
                     mode);
            check_seen(access_read(number, access), 0, access, when);
            pit_out(PIT_GATE, GATE_OPEN);
        }
        pit.now += ns_of(part);
        snprintf(when, sizeof when, "mode %u, count 0, which means 0x10000, after %u pulses", mode,
                 part);
        pit_control(number, ACCESS_LATCH, 0);
        const unsigned got = access_read(number, access);
        if (access != ACCESS_HIGH || step == 1) /* else it is next to a carry */
            check_seen(got, 0x10000 - part * step, access, when);
    }
}

/* Of a wider access at these ports the low byte counts; of a read the others are 0. */
static void check_wide_counts(void)
{
    for (unsigned number = 0; number < 3; number++) {
        const unsigned count = (unsigned)ANY_COUNT, upper = (unsigned)random_byte() << 8 | 0x100,
                       port = PIT_PORT + number;
        start_pit();
        pit_out(PIT_GATE, GATE_OPEN);
        pit_write(&pit, PIT_CONTROL, 2, upper | number << 6 | ACCESS_BOTH << 4);
        pit_write(&pit, port, 2, upper | (count & 0xff));
        pit_write(&pit, port, 2, upper | count >> 8);
        pit_write(&pit, PIT_CONTROL, 4, 0xffffff00u | number << 6 | ACCESS_LATCH);
        uint64_t got = pit_read(&pit, port, 2);
        got |= pit_read(&pit, port, 4) << 8;
        ck_assert_msg(got <= count && got + SLACK >= count,
                      "the bytes of the count 0x%x were the low ones of wider writes, and wider "
                      "reads return 0x%llx: the counter has ports of one byte",
                      count, (unsigned long long)got);
        pit.now += ns_of(count + SLACK);
        if (number == 0)
            ck_assert_msg(pit_expired(&pit),
                          "the bytes of the count 0x%x were the low ones of "
                          "wider writes, and after it the output has not risen",
                          count);
        pit_write(&pit, PIT_CONTROL, 2, upper | number << 6 | ACCESS_LATCH);
        got = pit_read(&pit, port, 1) | pit_read(&pit, port, 1) << 8;
        ck_assert_msg(got == 0 || got >= 0x10000 - 2 * SLACK,
                      "the bytes of the count 0x%x were the low ones of wider writes, and so many "
                      "pulses later the counter reads 0x%llx instead of just below 0",
                      count, (unsigned long long)got);
    }
    for (unsigned size = 1; size <= 4; size *= 2) {
        const uint64_t got = pit_read(&pit, PIT_CONTROL, size);
        ck_assert_msg(got == 0xff,
                      "the control register, which can't be read, reads as 0x%llx in %u bytes "
                      "instead of 0xff",
                      (unsigned long long)got, size);
    }
}

START_TEST(pit_access)
{
    const unsigned low = 1 + unit_random() % 255, high = 1 + unit_random() % 255;

    start_pit();
    for (unsigned number = 0; number < 2; number++) {
        pit_control(number, ACCESS_HIGH, 0);
        pit_out(PIT_PORT + number, high);
        ck_assert_msg(pit_in(PIT_PORT + number) == high && pit_in(PIT_PORT + number) == high,
                      "ACCESS_HIGH: the high byte 0x%02x was written, and the counter does not "
                      "read as it, twice",
                      high);
        pit.now += ns_of(0x100 + SLACK);
        ck_assert_msg(pit_in(PIT_PORT + number) == ((high - 2) & 0xff) ||
                          pit_in(PIT_PORT + number) == ((high - 1) & 0xff),
                      "ACCESS_HIGH: over 256 pulses later the high byte has not decreased");
        pit_control(number, ACCESS_LOW, 0);
        pit_out(PIT_PORT + number, low);
        ck_assert_msg(pit_in(PIT_PORT + number) == low && pit_in(PIT_PORT + number) == low,
                      "ACCESS_LOW: the low byte 0x%02x was written, and the counter does not "
                      "read as it, twice",
                      low);
        pit_control(number, ACCESS_BOTH, 2);
        pit_out(PIT_PORT + number, low);
        pit_control(number, ACCESS_BOTH, 2);
        pit_count(number, high << 8 | low);
        const unsigned got = both_bytes(number);
        ck_assert_msg(got == (high << 8 | low),
                      "ACCESS_BOTH: 0x%02x%02x was written after a control word, and the counter "
                      "reads as 0x%04x: a control word begins with the low byte",
                      high, low, got);
        pit_in(PIT_PORT + number);
        pit_control(number, ACCESS_BOTH, 2);
        pit_count(number, high << 8 | low);
        ck_assert_msg(both_bytes(number) == (high << 8 | low),
                      "after a control word a read does not begin with the low byte");
        pit_in(PIT_PORT + number);
        pit_count(number, low << 8 | high);
        ck_assert_msg(pit_in(PIT_PORT + number) == low,
                      "a write of both bytes between two reads changes which byte is next");
    }
    pit_control(0, ACCESS_BOTH, 2);
    pit.now += DAY_NS;
    ck_assert_msg(!pit_expired(&pit), "counter 0's output rose, and no count was written since "
                                      "the control word");
    pit_out(PIT_PORT, 0);
    pit.now += DAY_NS;
    ck_assert_msg(!pit_expired(&pit), "counter 0's output rose, and only the low byte of a count "
                                      "was written");
    pit_out(PIT_PORT, 0x80);
    check_count(0, 0x8000, 1, "the high byte of a count was written just now");
    pit_start(1, 0, 0x4321);
    check_count(0, 0x8000, 1, "another counter was started");
    ck_assert_msg(pit_read(&pit, PIT_PORT + 1, 4) <= 0xff,
                  "a read of 4 bytes at a counter's port does not return one byte and zeros");
    check_wide_counts();
    check_zero_counts();
}
END_TEST

/* Starts the counter; what it reads as then has a low byte far from a carry to the high one. */
static unsigned start_seen(unsigned number, unsigned access)
{
    const unsigned count = (1 + unit_random() % 0xffff) & access_bits(access),
                   seen = (unit_random() & 0xff00) | 0x80;

    start_pit();
    pit_out(PIT_GATE, GATE_OPEN);
    for (unsigned each = 0; each < 3; each++)
        access_start(each, access, 0, each == number ? count : unit_random());
    pit.now += ns_of((count - seen) & 0xffff);
    return seen;
}

#define APART 0x1140u /* pulses: both bytes are others then, and far from a carry */

/* A latched value is kept until all of it was read; then the counter is. */
static void check_latch_ends(unsigned number, unsigned access)
{
    const unsigned seen = start_seen(number, access);

    pit_control(number, ACCESS_LATCH, 0);
    pit.now += ns_of(APART);
    check_seen(access_read(number, access), seen, access,
               "latched, and read later: it is the latched value");
    check_seen(access_read(number, access), seen - APART, access,
               "all of a latched value was read, so the latch has ended");
    pit_control(number, ACCESS_LATCH, 0);
    pit.now += ns_of(APART);
    pit_control(number, ACCESS_LATCH, 0);
    pit.now += ns_of(APART);
    check_seen(access_read(number, access), seen - APART, access,
               "latched again, and once more before that was read: the later one is ignored");
    check_seen(access_read(number, access), seen - 3 * APART, access,
               "all of the second latched value was read, so the latch has ended");
}

/* A latch command comes after so many bytes: reading begins with the low byte. */
static void check_latch_order(unsigned number, unsigned before)
{
    const unsigned seen = start_seen(number, ACCESS_BOTH);
    char when[160];

    for (unsigned i = 0; i < before; i++)
        pit_in(PIT_PORT + number);
    pit_control(number, ACCESS_LATCH, 0);
    pit.now += ns_of(APART);
    snprintf(when, sizeof when,
             "%u bytes were read, then came a latch command: both bytes of the latched value are "
             "read next, the low one first",
             before);
    check_seen(both_bytes(number), seen, ACCESS_BOTH, when);
    snprintf(when, sizeof when,
             "%u bytes were read, then a latched value: after its high byte comes a low one, of "
             "the current value",
             before);
    check_seen(both_bytes(number), seen - APART, ACCESS_BOTH, when);
    pit_control(number, ACCESS_LATCH, 0);
    const unsigned low = pit_in(PIT_PORT + number);
    pit_control(number, ACCESS_LATCH, 0);
    pit.now += ns_of(APART);
    check_seen(low | pit_in(PIT_PORT + number) << 8, seen - APART, ACCESS_BOTH,
               "a second latch command came between the bytes of a latched value: it is ignored, "
               "and the high byte is next");
}

/* What may happen to a latched counter before the value is read. */
static const char *const latch_events[] = {"a new count was written",
                                           "the low byte of a new count was written",
                                           "the gate was closed",
                                           "the gate was closed and opened",
                                           "another counter was latched",
                                           "a control word for another counter was written",
                                           "the counter was latched again, with other low bits"};

enum { LATCH_EVENTS = sizeof latch_events / sizeof latch_events[0] };

static void latch_event(unsigned event, unsigned number)
{
    const unsigned other = (number + 1) % 3;

    if (event == 0)
        pit_count(number, 0x1111);
    else if (event == 1)
        pit_out(PIT_PORT + number, 0x11);
    else if (event == 2 || event == 3)
        pit_out(PIT_GATE, 0);
    if (event == 3)
        pit_out(PIT_GATE, GATE_OPEN);
    else if (event == 4)
        pit_control(other, ACCESS_LATCH, 0);
    else if (event == 5)
        pit_start(other, 3, 0x1111);
    else if (event == 6)
        pit_out(PIT_CONTROL, number << 6 | ACCESS_LATCH << 4 | (unit_random() & 15));
}

/* Only a control word ends a latch before all of its value was read. */
static void check_latch_stays(unsigned access)
{
    char when[160];

    for (unsigned i = 0; i < 3 * LATCH_EVENTS; i++) {
        const unsigned number = i % 3, event = i / 3, seen = start_seen(number, access);
        pit_control(number, ACCESS_LATCH, 0);
        pit.now += ns_of(APART);
        const bool between = access == ACCESS_BOTH && unit_random() % 2;
        const unsigned low = between ? pit_in(PIT_PORT + number) : 0;
        latch_event(event, number);
        const unsigned got =
            between ? low | pit_in(PIT_PORT + number) << 8 : access_read(number, access);
        snprintf(when, sizeof when,
                 "counter %u was latched, then %s%s (it has to read as the latched value)", number,
                 latch_events[event], between ? " between the reads of its two bytes" : "");
        check_seen(got, seen, access, when);
    }
}

START_TEST(pit_latch)
{
    const unsigned count = 0x4000 + (unsigned)ANY_COUNT % 0x8000;

    start_pit();
    pit_start(0, 2, count);
    pit_start(1, 2, count);
    pit_control(0, ACCESS_LATCH, 0);
    pit.now += ns_of(0x1234);
    unsigned got = both_bytes(0);
    ck_assert_msg(got >= count - SLACK && got <= count,
                  "latched at once, and read later: 0x%04x instead of 0x%04x", got, count);
    got = both_bytes(0);
    ck_assert_msg(count - got >= 0x1234 - SLACK && count - got <= 0x1234 + SLACK,
                  "both bytes of a latched value were read; then the counter reads 0x%04x instead "
                  "of 0x%04x",
                  got, count - 0x1234);
    check_count(1, count - 0x1234, 1, "counter 0 was latched, not this one");
    pit_control(0, ACCESS_LATCH, 0);
    pit.now += ns_of(0x321);
    pit_control(0, ACCESS_LATCH, 0);
    pit.now += ns_of(0x321);
    got = pit_in(PIT_PORT);
    pit.now += ns_of(0x321);
    got |= pit_in(PIT_PORT) << 8;
    ck_assert_msg(count - got >= 0x1234 - SLACK && count - got <= 0x1234 + SLACK,
                  "a second latch command came before the first value was read, and time passed "
                  "between its bytes: it reads 0x%04x instead of 0x%04x",
                  got, count - 0x1234);
    check_count(0, count - 0x1234 - 3 * 0x321, 1, "latching does not stop the counter");
    pit_control(1, ACCESS_LATCH, 0);
    pit_start(1, 2, count / 2);
    got = both_bytes(1);
    ck_assert_msg(got >= count / 2 - SLACK && got <= count / 2,
                  "a control word and a new count followed a latch command, and the counter reads "
                  "0x%04x instead of 0x%04x: it ends the latch",
                  got, count / 2);
    pit_control(0, ACCESS_LATCH, 0);
    const uint64_t rise = pit.next;
    pit.now = rise + SLACK_NS;
    ck_assert_msg(pit_expired(&pit), "a latched counter goes on, and its output does not rise");
    both_bytes(0);
    pit_control(0, ACCESS_HIGH, 2);
    pit_out(PIT_PORT, 0x40);
    pit_control(0, ACCESS_LATCH, 0);
    pit.now += ns_of(0x1000);
    got = pit_in(PIT_PORT);
    ck_assert_msg(got == 0x40 || got == 0x3f,
                  "ACCESS_HIGH: the latched byte is 0x%02x instead of 0x40", got);
    got = pit_in(PIT_PORT);
    ck_assert_msg(got == 0x2f || got == 0x30,
                  "ACCESS_HIGH: the one byte of a latched value was read; then the counter reads "
                  "0x%02x instead of 0x30",
                  got);
    for (unsigned access = ACCESS_LOW; access <= ACCESS_BOTH; access++) {
        for (unsigned number = 0; number < 3; number++)
            check_latch_ends(number, access);
        check_latch_stays(access);
    }
    for (unsigned i = 0; i < 12; i++)
        check_latch_order(i % 3, i / 3);
}
END_TEST

/* The next rise is at `wanted`, and is one. */
static void check_rise(uint64_t wanted, const char *when)
{
    const int64_t apart = (int64_t)(pit.next - wanted);

    ck_assert_msg(pit.next != PIT_NEVER && apart >= -(int64_t)SLACK_NS &&
                      apart <= (int64_t)SLACK_NS,
                  "%s: pit->next is %s%lld ns from where the output rises", when,
                  pit.next == PIT_NEVER ? "PIT_NEVER: " : "", (long long)apart);
    pit.now = wanted - SLACK_NS;
    ck_assert_msg(!pit_expired(&pit), "%s: pit_expired reports it too early", when);
    pit.now = pit.next;
    ck_assert_msg(pit_expired(&pit),
                  "%s: now is what pit->next was, and pit_expired is false: the timer that was set "
                  "to it does not fire again",
                  when);
    ck_assert_msg(!pit_expired(&pit), "%s: pit_expired reports the same rise twice", when);
}

/* How many of these rises come, one after the other. */
THERE(unsigned, rises_there, (unsigned wanted), (wanted))
{
    for (unsigned i = 0; i < wanted; i++) {
        pit.now = pit.next;
        if (!pit_expired(&pit))
            return i;
    }
    return wanted;
}

/* How long it is until counter 0's output rises. */
static uint64_t rises_in(unsigned mode, unsigned count)
{
    pit_start(0, mode, count);
    return pit.next - pit.now;
}

/* Counts of one byte: the other one is 0, and a count of 0 is 0x10000. */
static void check_byte_rises(void)
{
    char when[100];

    for (unsigned i = 0; i < 4 * 2 * 2; i++) {
        const unsigned mode = i % 4 ? 1 + i % 4 : 0, access = i / 4 % 2 ? ACCESS_HIGH : ACCESS_LOW,
                       byte = i / 8 ? 20 + unit_random() % 200 : 0,
                       count = !byte                   ? 0x10000
                               : access == ACCESS_HIGH ? byte << 8
                                                       : byte;
        start_pit();
        pit_control(0, access, mode);
        pit_out(PIT_PORT, byte);
        snprintf(when, sizeof when, "%s, mode %u: the one byte 0x%02x is the count 0x%x",
                 access_name(access), mode, byte, count);
        check_rise(pit.now + ns_of(count), when);
        if (mode == 2 || mode == 3)
            check_rise(pit.now + ns_of(count), when);
        else
            ck_assert_msg(pit.next == PIT_NEVER,
                          "%s: after its one rise pit->next is not PIT_NEVER", when);
    }
}

START_TEST(pit_rises)
{
    static const unsigned modes[] = {0, 2, 3, 4, 6, 7};
    char when[80];

    check_byte_rises();
    for (unsigned i = 0; i < 12; i++) {
        const unsigned mode = modes[i % 6], count = i >= 6 ? 0x10000 : (unsigned)ANY_COUNT;
        start_pit();
        snprintf(when, sizeof when, "mode %u, count 0x%x", mode, count);
        pit_start(0, mode, count);
        ck_assert_msg(!pit_expired(&pit), "%s: pit_expired is true at once", when);
        const uint64_t start = pit.now;
        check_rise(start + ns_of(count), when);
        if (mode == 0 || mode == 4) {
            ck_assert_msg(pit.next == PIT_NEVER,
                          "%s: the output rises once, and after that pit->next is not PIT_NEVER",
                          when);
            pit.now += DAY_NS;
            ck_assert_msg(!pit_expired(&pit), "%s: the output rises once, not again and again",
                          when);
            pit_count(0, count);
            check_rise(pit.now + ns_of(count), "a new count starts it again");
            continue;
        }
        check_rise(start + ns_of(2ull * count), when);
        for (uint64_t period = 3; period <= 5; period++)
            check_rise(start + ns_of(period * count), when);
        pit.now = start + ns_of(1000ull * count) + ns_of(count / 2);
        ck_assert_msg(pit_expired(&pit) && !pit_expired(&pit),
                      "%s: several rises since the last call must count as one", when);
        snprintf(when, sizeof when, "mode %u, count 0x%x, after 1000 periods without a look", mode,
                 count);
        check_rise(start + ns_of(1001ull * count), when);
        pit.now = start + DAY_NS;
        ck_assert_msg(pit_expired(&pit), "%s: after a day pit_expired is false", when);
        const uint64_t pulses = (uint64_t)((unsigned __int128)DAY_NS * PIT_HZ / 1000000000);
        check_rise(start + ns_of((pulses / count + 1) * count), "a day after it was started");
        pit.now += ns_of(count / 3);
        pit_count(0, count / 2);
        check_rise(pit.now + ns_of(count / 2), "a new count starts at once");
    }
    start_pit();
    const uint64_t later = rises_in(4, 5000) - rises_in(0, 5000);
    ck_assert_msg(later > PULSE_NS / 2 && later < 2 * PULSE_NS,
                  "with the same count the output rises %lld ns later in mode 4 than in mode 0: "
                  "that should be the one pulse (%u ns) for which it is low",
                  (long long)later, PULSE_NS);
    start_pit();
    pit_start(0, 2, 1193);
    const uint64_t start = pit.now;
    ck_assert_msg(rises_there(5000) == 5000, "one of 5000 rises did not come");
    check_rise(start + ns_of(5001ull * 1193), "after 5000 rises with a count of 1193");
}
END_TEST

/* Counter 0's output has risen, and before anybody asks pit_expired the guest does this. */
static const struct {
    unsigned port, value;
    bool is_read;
    const char *name;
} others[] = {
    {PIT_CONTROL, 2 << 6 | ACCESS_BOTH << 4 | 3 << 1, false, "a control word for counter 2"},
    {PIT_CONTROL, 1 << 6 | ACCESS_LOW << 4, false, "a control word for counter 1"},
    {PIT_CONTROL, ACCESS_LATCH << 4, false, "a latch command for counter 0"},
    {PIT_CONTROL, 2 << 6 | ACCESS_LATCH << 4, false, "a latch command for counter 2"},
    {PIT_CONTROL, 0xd2, false, "a read-back command"},
    {PIT_PORT + 2, 0x12, false, "a byte of a count for counter 2"},
    {PIT_PORT + 1, 0x34, false, "a byte of a count for counter 1"},
    {PIT_GATE, GATE_OPEN, false, "opening the gate"},
    {PIT_GATE, 0, false, "closing the gate"},
    {PIT_PORT, 0, true, "a read of counter 0"},
    {PIT_PORT + 2, 0, true, "a read of counter 2"},
    {PIT_GATE, 0, true, "a read of port 0x61"},
};

static void check_rise_stays(void)
{
    enum { OTHERS = sizeof others / sizeof others[0] };
    static const unsigned modes[] = {0, 2, 3, 4};

    for (unsigned i = 0; i < 2 * OTHERS; i++) {
        const unsigned mode = modes[unit_random() % 4], count = (unsigned)ANY_COUNT;
        start_pit();
        for (unsigned number = 0; number < 3; number++)
            pit_start(number, mode, count);
        const uint64_t next = pit.next;
        pit.now = next + ns_of(unit_random() % (3 * count));
        if (others[i / 2].is_read)
            pit_in(others[i / 2].port);
        else
            pit_out(others[i / 2].port, others[i / 2].value);
        ck_assert_msg(pit_expired(&pit),
                      "mode %u: counter 0's output rose, then came %s, and pit_expired is false: "
                      "only a count or a control word for counter 0 changes what is due",
                      mode, others[i / 2].name);
        ck_assert_msg(!pit_expired(&pit), "mode %u: after %s the same rise is reported twice", mode,
                      others[i / 2].name);
    }
}

START_TEST(pit_quiet)
{
    start_pit();
    ck_assert_msg(!pit_expired(&pit), "after reset counter 0's output does not rise");
    pit_start(0, 2, 0x8000);
    const uint64_t next = pit.next;
    pit_start(1, 2, 100);
    pit_start(2, 2, 100);
    pit_out(PIT_GATE, GATE_OPEN);
    ck_assert_msg(pit.next == next, "the counters 1 and 2 and the gate change pit->next, which is "
                                    "counter 0's");
    pit_out(PIT_CONTROL, 0xd2); /* read-back of the status of none */
    ck_assert_msg(pit.next == next && (pit_in(PIT_GATE) & GATE_BITS) == GATE_OPEN,
                  "a read-back command, which is not modelled, changes counter 0 or the gate");
    pit.now += ns_of(0x4000);
    ck_assert_msg(!pit_expired(&pit), "rises of the other counters' outputs are reported");
    check_count(0, 0x4000, 1, "the other counters were started");
    pit.now = next;
    ck_assert_msg(pit_expired(&pit), "counter 0's output does not rise when others count");
    pit_control(0, ACCESS_BOTH, 2);
    pit.now += DAY_NS;
    ck_assert_msg(!pit_expired(&pit), "a control word stops the counter until a count is written");
    check_rise_stays();
}
END_TEST

static bool output(void)
{
    return (pit_in(PIT_GATE) & GATE_OUTPUT) != 0;
}

/* For which part of its time counter 2's output is high, in periods of mode 3. */
static void check_half(unsigned count)
{
    enum { PERIODS = 4, PARTS = 8 }; /* so many looks in each pulse */
    unsigned high = 0, looks = 0;

    start_pit();
    pit_out(PIT_GATE, GATE_OPEN);
    pit_start(2, 3, count);
    const uint64_t start = pit.now + ns_of((SLACK + 1) * count);
    for (uint64_t look = 0; look < (uint64_t)PERIODS * count * PARTS; look++) {
        pit.now = start + ns_of(look) / PARTS;
        high += output();
        looks++;
    }
    const unsigned wanted = looks / count * ((count + 1) / 2);
    ck_assert_msg(high + looks / count / 4 >= wanted && high <= wanted + looks / count / 4,
                  "mode 3, count %u: the output is high in %u of %u looks, evenly over whole "
                  "periods, instead of in %u: for half of each period's pulses, rounded up",
                  count, high, looks, wanted);
}

/* A count of 0, with each access: counter 2's output is that of 0x10000. */
static void check_output_of_zero(void)
{
    static const unsigned modes[] = {0, 2, 3, 4};

    for (unsigned i = 0; i < 4 * 3; i++) {
        const unsigned mode = modes[i % 4], access = ACCESS_LOW + i / 4;
        start_pit();
        pit_out(PIT_GATE, GATE_OPEN);
        access_start(2, access, mode, 0);
        const uint64_t start = pit.now;
        for (unsigned eighth = 1; eighth < 24; eighth += 2) {
            pit.now = start + ns_of((uint64_t)0x10000 * eighth / 8);
            const bool wanted = mode == 0 ? eighth > 8 : mode != 3 || eighth % 8 < 4;
            ck_assert_msg(output() == wanted,
                          "%s, mode %u, count 0, which means 0x10000: after 0x%x pulses the output "
                          "is %s instead of %s",
                          access_name(access), mode, 0x10000 * eighth / 8, wanted ? "low" : "high",
                          wanted ? "high" : "low");
        }
    }
}

START_TEST(pit_gate)
{
    for (int i = 0; i < 4; i++) {
        const unsigned count = (unsigned)ANY_COUNT;
        start_pit();
        for (unsigned bits = 0; bits <= GATE_BITS; bits++) {
            pit_out(PIT_GATE, 0xdc | bits);
            ck_assert_msg((pit_in(PIT_GATE) & ~(unsigned)GATE_OUTPUT) == bits,
                          "0x%02x was written to port 0x61, and it reads as 0x%02x: bits 1 and 0 "
                          "as written, and GATE_OUTPUT",
                          0xdc | bits, pit_in(PIT_GATE));
        }
        pit_out(PIT_GATE, 0);
        pit_start(2, 0, count);
        ck_assert_msg(!output(), "mode 0: the output is high at once");
        pit.now += DAY_NS;
        ck_assert_msg(!output(), "mode 0, gate closed: the output rose: a closed gate stops the "
                                 "counter");
        pit_out(PIT_GATE, GATE_OPEN);
        check_count(2, count, 1, "the gate was opened just now");
        pit.now += ns_of(count / 2);
        pit_out(PIT_GATE, GATE_BITS);
        pit.now += ns_of(count - count / 2 - SLACK);
        ck_assert_msg(!output(), "mode 0: the output rose before the count has passed");
        pit.now += ns_of(2 * SLACK + 1);
        ck_assert_msg(output(),
                      "mode 0: the count has passed, the gate was open, and the output is "
                      "low; a write of the speaker's bit does not start the counter again");
        ck_assert_msg(pit_in(PIT_GATE) == (GATE_BITS | GATE_OUTPUT),
                      "port 0x61 reads as 0x%02x instead of 0x23", pit_in(PIT_GATE));
        pit_count(2, count);
        ck_assert_msg(!output(), "mode 0: a new count was written, and the output is still high");
        pit.now += ns_of(count / 2);
        pit_out(PIT_GATE, 0);
        pit.now += ns_of(count);
        pit_out(PIT_GATE, GATE_OPEN);
        pit.now += ns_of(count - 100);
        ck_assert_msg(!output(), "the gate was closed and opened: the counter starts from its "
                                 "count, and the output rose earlier");
        pit.now += ns_of(200);
        ck_assert_msg(output(), "the gate was opened, the count has passed, and the output is low");
        pit_control(2, ACCESS_BOTH, 0);
        ck_assert_msg(!output(), "the control word of mode 0 does not make the output low");

        for (unsigned mode = 2; mode <= 4; mode++) {
            pit_out(PIT_GATE, 0);
            pit_control(2, ACCESS_BOTH, mode);
            ck_assert_msg(output(), "the control word of mode %u does not make the output high",
                          mode);
            pit_count(2, (unsigned)ANY_COUNT);
            pit_count(2, count & ~1u); /* replaces it, whether or not the gate is open */
            pit.now += ns_of(count / 4 * 3);
            ck_assert_msg(output(),
                          "mode %u, gate closed: the output is low, and not as before a count",
                          mode);
            check_count(2, count & ~1u, 1, "the gate is closed, so it reads as its count");
            pit_out(PIT_GATE, GATE_OPEN);
            ck_assert_msg(output(), "mode %u, the gate was opened just now: the output is low",
                          mode);
            pit.now += ns_of(count / 4);
            ck_assert_msg(output(), "mode %u, after a quarter of the count the output is low",
                          mode);
        }
        pit_start(2, 3, count);
        for (unsigned quarter = 1; quarter < 12; quarter += 2) {
            const uint64_t at = pit.now;
            pit.now += ns_of((uint64_t)count * quarter / 4);
            ck_assert_msg(output() == (quarter % 4 < 2),
                          "mode 3, count %u, after %u quarters of a period the output is %s: high "
                          "in the first half of each period, low in the second",
                          count, quarter, output() ? "high" : "low");
            pit.now = at;
        }
        pit_start(2, 2, count);
        pit.now += ns_of(unit_random() % 60000);
        ck_assert_msg(output(), "mode 2: the output is low for longer than a pulse");
        pit_start(0, 0, count);
        pit_out(PIT_GATE, 0);
        check_rise(pit.now + ns_of(count), "counter 0 has no gate");
        pit_write(&pit, PIT_GATE, 2, 0xff00 | GATE_BITS);
        ck_assert_msg((pit_read(&pit, PIT_GATE, 2) & ~(uint64_t)GATE_OUTPUT) == GATE_BITS,
                      "port 0x61 with 2 bytes: the low one counts, the other one reads as 0");
    }
    for (int i = 0; i < 6; i++)
        check_half(i == 0 ? 3 : 2 + unit_random() % 12);
    check_output_of_zero();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("devices");

    unit_add(suite, "bus_reaches", bus_reaches);
    unit_add(suite, "bus_holes", bus_holes);
    unit_add(suite, "bus_refuses", bus_refuses);
    unit_add(suite, "uart_registers", uart_registers);
    unit_add(suite, "uart_wide", uart_wide);
    unit_add(suite, "uart_transmits", uart_transmits);
    unit_add(suite, "uart_receives", uart_receives);
    unit_add(suite, "uart_fifo", uart_fifo);
    unit_add(suite, "uart_received_line", uart_received_line);
    unit_add(suite, "uart_transmitter_line", uart_transmitter_line);
    unit_add(suite, "uart_loopback", uart_loopback);
    unit_add(suite, "uart_overruns", uart_overruns);
    unit_add(suite, "uart_modem", uart_modem);
    unit_add(suite, "pic_init", pic_init);
    unit_add(suite, "pic_lines", pic_lines);
    unit_add(suite, "pic_priorities", pic_priorities);
    unit_add(suite, "pic_commands", pic_commands);
    unit_add(suite, "pic_cascade", pic_cascade);
    unit_add(suite, "pic_automatic", pic_automatic);
    unit_add(suite, "pit_counts", pit_counts);
    unit_add(suite, "pit_access", pit_access);
    unit_add(suite, "pit_latch", pit_latch);
    unit_add(suite, "pit_rises", pit_rises);
    unit_add(suite, "pit_quiet", pit_quiet);
    unit_add(suite, "pit_gate", pit_gate);
    return unit_main(suite);
}
