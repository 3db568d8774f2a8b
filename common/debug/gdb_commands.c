/*
 * gdb_commands.c - what each of gdb's packets asks for: appendix E.2 "Packets", E.4 "General Query
 * Packets". An empty reply says that the packet is not supported; "E01", that it has failed. What a
 * packet contains is checked: gdb, or whoever is connected, may send anything.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "debug/gdb.h"
#include "given.h"

#define MEMORY_MAX ((PACKET_MAX - 64) / 2) /* bytes that one packet carries */

static void send_ok(bool done)
{
    packet_send(done ? "OK" : "E01");
}

/* The vCPU with this id, if it has not ended. */
static struct debugged *vcpu_alive(long id)
{
    bool alive = id >= 0 && id < VCPUS_MAX && world.vcpus[id].vcpu && !world.vcpus[id].ended;

    return alive ? &world.vcpus[id] : NULL;
}

static struct debugged *vcpu_first(void)
{
    for (int id = 0; id < VCPUS_MAX; id++)
        if (vcpu_alive(id))
            return &world.vcpus[id];
    return NULL;
}

/* The selected vCPU, or the first if it has ended; NULL: all have. */
static struct debugged *vcpu_selected(void)
{
    struct debugged *self = vcpu_alive(world.selected);

    return self ? self : vcpu_first();
}

/* Reads a hexadecimal number that `end` follows, and moves past both; false: not one. */
static bool number_read(char **text, char end, uint64_t *number)
{
    char *stop;

    *number = strtoull(*text, &stop, 16);
    if (stop == *text || **text == '-' || *stop != end)
        return false;
    *text = *stop ? stop + 1 : stop;
    return true;
}

/* ------------------------------------------------------------------ threads */

/* A thread id: a vCPU's id plus 1; 0 is any, -1 all. Gives the vCPU's id, or -1. */
static bool thread_read(const char *text, int *id)
{
    char *end;
    long number = strtol(text, &end, 16);

    *id = (int)number - 1;
    if (end == text || *end != '\0')
        return false;
    if (number == 0 || number == -1)
        *id = -1;
    return *id == -1 || vcpu_alive(*id);
}

/* Hg, Hc: the thread of the packets that follow. */
static void serve_select(char *packet)
{
    int id;
    bool known = packet[1] != '\0' && thread_read(packet + 2, &id);

    if (known && packet[1] == 'g' && id >= 0)
        world.selected = id;
    send_ok(known);
}

static void serve_alive(char *packet)
{
    int id;

    send_ok(thread_read(packet + 1, &id));
}

static void serve_threads(void)
{
    char list[VCPUS_MAX * 4] = "";
    size_t used = 0;

    for (int id = 0; id < VCPUS_MAX; id++)
        if (vcpu_alive(id))
            used +=
                (size_t)snprintf(list + used, sizeof list - used, "%s%x", used ? "," : "", id + 1);
    packet_send("%c%s", used ? 'm' : 'l', list);
}

/* The guest's file, which `info threads` shows. */
static void serve_thread_name(const char *text)
{
    char name[2 * 128 + 1];
    int id;

    if (!thread_read(text, &id) || id < 0) {
        send_ok(false);
        return;
    }
    const char *path = world.vcpus[id].vcpu->guest->path, *slash = strrchr(path, '/');
    path = slash ? slash + 1 : path;
    hex_write(name, path, strnlen(path, 128));
    packet_send("%s", name);
}

/* ------------------------------------------------------------------ running */

/*
 * One action of vCont, like "s:1", "c" or "C05" (with a signal, which guests don't have), for the
 * vCPUs that no action before it was for.
 */
static bool action_take(char *action, enum resume actions[VCPUS_MAX], bool given[VCPUS_MAX])
{
    char *thread = action, *kind = strsep(&thread, ":");
    size_t length = strlen(kind);
    int id = -1;

    if (length != (kind[0] == 'c' || kind[0] == 's' ? 1 : 3) || !strchr("csCS", kind[0]) ||
        (thread && !thread_read(thread, &id)))
        return false;
    for (int i = 0; i < VCPUS_MAX; i++) {
        if (given[i] || (id >= 0 && id != i))
            continue;
        given[i] = true;
        actions[i] = kind[0] == 's' || kind[0] == 'S' ? STEPPING : RUNNING;
    }
    return true;
}

/* vCont;ACTION;...: no reply until the guests stop. */
static void serve_continue(char *text)
{
    enum resume actions[VCPUS_MAX] = {HELD};
    bool given[VCPUS_MAX] = {false};
    char *action;

    while ((action = strsep(&text, ";")))
        if (!action_take(action, actions, given)) {
            send_ok(false);
            return;
        }
    for (int id = 0; id < VCPUS_MAX; id++)
        world.vcpus[id].resume = actions[id];
    world_resume();
}

/* ?: why the guests stand still. Before the first instruction that is as after a step. */
static void serve_why(void)
{
    const struct stop stop = {GDB_SIGTRAP, "", 0, false};
    const struct debugged *self = vcpu_selected();

    if (self)
        stop_send(self, &stop);
    else
        packet_send("W00");
}

static void serve_kill(bool reply)
{
    if (reply)
        send_ok(true);
    connection_close(); /* and held vCPUs stay so */
    pthread_mutex_unlock(&world.lock);
    exit(STATUS_SIGNAL + 9); /* as by SIGKILL, but the terminal is restored */
}

/* ------------------------------------------------------------------ registers and memory */

static void serve_registers(const struct debugged *self)
{
    char text[PACKET_MAX + 1];

    if (registers_read(self->vcpu, text))
        packet_send("%s", text);
    else
        send_ok(false);
}

static void serve_register(const struct debugged *self, char *packet)
{
    char text[2 * REGISTER_MAX + 1], *rest = packet + 1;
    uint64_t number;

    if (packet[0] == 'p') {
        if (number_read(&rest, '\0', &number) && number < 0x1000 &&
            register_read(self->vcpu, (unsigned)number, text))
            packet_send("%s", text);
        else
            send_ok(false);
        return;
    }
    send_ok(number_read(&rest, '=', &number) && number < 0x1000 &&
            register_write(self->vcpu, (unsigned)number, rest));
}

/* mADDRESS,COUNT: as many of the bytes as are mapped. */
static void serve_memory_read(const struct debugged *self, char *packet)
{
    uint8_t bytes[MEMORY_MAX];
    char text[2 * MEMORY_MAX + 1], *rest = packet + 1;
    uint64_t linear, count, got = 0;

    if (!number_read(&rest, ',', &linear) || !number_read(&rest, '\0', &count)) {
        send_ok(false);
        return;
    }
    count = count < MEMORY_MAX ? count : MEMORY_MAX;
    while (got < count) {
        uint64_t part = PAGE_BYTES - (linear + got) % PAGE_BYTES;
        part = part < count - got ? part : count - got;
        if (!linear_read(self->vcpu, registers_address(linear + got), bytes + got, part))
            break;
        got += part;
    }
    hex_write(text, bytes, got);
    packet_send("%s", got > 0 || count == 0 ? text : "E01");
}

/* MADDRESS,COUNT:BYTES */
static void serve_memory_write(const struct debugged *self, char *packet)
{
    uint8_t bytes[MEMORY_MAX];
    char *rest = packet + 1;
    uint64_t linear, count;

    send_ok(number_read(&rest, ',', &linear) && number_read(&rest, ':', &count) &&
            count <= MEMORY_MAX && strlen(rest) == 2 * count && hex_read(rest, bytes, count) &&
            linear_write(self->vcpu, registers_address(linear), bytes, count));
}

/* ------------------------------------------------------------------ breakpoints */

/* ZTYPE,ADDRESS,KIND and zTYPE,ADDRESS,KIND. A KIND is a number of bytes for a watchpoint. */
static void serve_breakpoint(const struct debugged *self, char *packet)
{
    char type = packet[1], *rest = packet + 3;
    uint64_t linear, count;
    bool add = packet[0] == 'Z';

    if (type < '0' || type > '4') {
        packet_send_text("", 0);
        return;
    }
    if (packet[2] != ',' || !number_read(&rest, ',', &linear) ||
        !number_read(&rest, '\0', &count)) {
        send_ok(false);
        return;
    }
    enum watch_kind kind = (enum watch_kind)(type - '0');
    bool done = true;
    count = kind == WATCH_EXECUTE ? 1 : count; /* there KIND is the length of an instruction */
    if (add && type != '0')
        done = watch_add(kind, self->vcpu, linear, count);
    else if (type != '0')
        watch_remove(kind, linear, count);
    if (!add && type <= '1')
        breakpoint_remove(type, linear);
    else if (type == '0' || (type == '1' && !done))
        done = breakpoint_add(type, linear);
    send_ok(done);
}

/* ------------------------------------------------------------------ queries */

/* qXfer:features:read:target.xml:OFFSET,COUNT */
static void serve_description(const struct debugged *self, char *text)
{
    static const char *description = "";
    struct kvm_sregs sregs;
    uint64_t offset, count;

    if (!number_read(&text, ',', &offset) || !number_read(&text, '\0', &count) ||
        ioctl(self->vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        send_ok(false);
        return;
    }
    if (offset == 0)
        description = registers_description(&sregs);
    size_t length = strlen(description);
    offset = offset < length ? offset : length;
    count = count < PACKET_MAX - 1 ? count : PACKET_MAX - 1;
    bool all = length - offset <= count;
    packet_send("%c%.*s", all ? 'l' : 'm', (int)(all ? length - offset : count),
                description + offset);
}

static const char monitor_help[] = "monitor type TEXT            types a line into the guest\n"
                                   "monitor end                  ends the guest's input\n"
                                   "monitor memory ADDRESS       64 bytes of physical memory\n"
                                   "monitor walk ADDRESS         the translation of an address\n";

static void print_text(const char *text)
{
    packet_print(text, strlen(text));
}

static void monitor_type(const char *text)
{
    if (world.input < 0)
        print_text(
            "The guest's input is not gdb's: it reads a terminal, or its input has ended.\n");
    else if (write(world.input, text, strlen(text)) < 0 || write(world.input, "\n", 1) < 0)
        print_text("The guest's input can't be written.\n");
}

static void monitor_memory(const struct debugged *self, uint64_t phys)
{
    const struct vm *vm = self->vcpu->vm;
    char line[128];

    for (uint64_t end = phys + 64; phys < end && phys < vm->ram_bytes; phys += 16) {
        int used = snprintf(line, sizeof line, "%08" PRIx64 ":", phys);
        for (uint64_t i = phys; i < phys + 16 && i < vm->ram_bytes; i++)
            used += snprintf(line + used, sizeof line - (size_t)used, " %02x", vm->ram[i]);
        snprintf(line + used, sizeof line - (size_t)used, "\n");
        print_text(line);
    }
}

/* Where KVM's walk ends, and then the walk as the VMM's own prints it, which may be unwritten. */
static void monitor_walk(const struct debugged *self, uint64_t linear)
{
    char line[64], *text = NULL;
    struct kvm_sregs sregs;
    size_t size;
    uint64_t phys;

    linear = registers_address(linear);
    if (linear_translate(self->vcpu, linear, &phys)) {
        snprintf(line, sizeof line, "physical address 0x%" PRIx64 "\n", phys);
        print_text(line);
    } else
        print_text("not mapped, or outside of RAM\n");
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    if (ioctl(self->vcpu->fd, KVM_GET_SREGS, &sregs) == 0) /* gdb may have changed them */
        registers_translate(self->vcpu, &sregs, linear, &phys, out);
    fclose(out);
    print_text(text);
    free(text);
}

/* qRcmd,HEX: gdb's command `monitor`. */
static void serve_monitor(const struct debugged *self, const char *hex)
{
    char command[PACKET_MAX / 2 + 1] = "", *rest;
    size_t count = strlen(hex) / 2;
    uint64_t address = 0;

    if (!hex_read(hex, command, count)) {
        send_ok(false);
        return;
    }
    command[count] = '\0';
    rest = command;
    const char *name = strsep(&rest, " ");
    rest = rest ? rest : command + count;
    bool number = *rest != '\0';
    if (number)
        address = strtoull(rest, &rest, 0);
    number = number && *rest == '\0';
    if (strcmp(name, "type") == 0)
        monitor_type(command + strlen(name) + (count > strlen(name)));
    else if (strcmp(name, "end") == 0 && world.input >= 0) {
        close(world.input);
        world.input = -1;
    } else if (strcmp(name, "memory") == 0 && number)
        monitor_memory(self, address);
    else if (strcmp(name, "walk") == 0 && number)
        monitor_walk(self, address);
    else
        print_text(monitor_help);
    send_ok(true);
}

/* ------------------------------------------------------------------ all packets */

/* What follows `start` in a packet that starts so; NULL: it does not. */
static char *after(char *packet, const char *start)
{
    size_t length = strlen(start);

    return strncmp(packet, start, length) == 0 ? packet + length : NULL;
}

static bool serve_query(const struct debugged *self, char *packet)
{
    char *rest;

    if (after(packet, "qSupported"))
        packet_send("PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
                    "swbreak+;hwbreak+",
                    PACKET_MAX);
    else if (strcmp(packet, "QStartNoAckMode") == 0) {
        send_ok(true);
        acknowledge_no_more();
    } else if (strcmp(packet, "qAttached") == 0)
        packet_send("0"); /* gdb kills the guests when it quits */
    else if (strcmp(packet, "qC") == 0 && self)
        packet_send("QC%x", self->vcpu->id + 1);
    else if (strcmp(packet, "qfThreadInfo") == 0)
        serve_threads();
    else if (strcmp(packet, "qsThreadInfo") == 0)
        packet_send("l");
    else if ((rest = after(packet, "qThreadExtraInfo,")))
        serve_thread_name(rest);
    else if ((rest = after(packet, "qXfer:features:read:target.xml:")) && self)
        serve_description(self, rest);
    else if ((rest = after(packet, "qRcmd,")) && self)
        serve_monitor(self, rest);
    else
        return false;
    return true;
}

/* The packets that gdb may also send while the guests run, when it has to end. */
static bool serve_leaving(const char *packet)
{
    if (strncmp(packet, "vKill;", 6) == 0)
        serve_kill(true);
    else if (strcmp(packet, "k") == 0)
        serve_kill(false);
    else if (strcmp(packet, "D") == 0) {
        send_ok(true);
        world_detach();
    } else
        return false;
    return true;
}

static bool serve_running(char *packet)
{
    char *rest;

    if (strcmp(packet, "vCont?") == 0)
        packet_send("vCont;c;C;s;S");
    else if ((rest = after(packet, "vCont;")))
        serve_continue(rest);
    else
        return false;
    return true;
}

void packet_serve(char *packet)
{
    const struct debugged *self = vcpu_selected();

    if (serve_leaving(packet) || world.running)
        return;
    if (serve_query(self, packet) || serve_running(packet))
        return;
    if (packet[0] == '?')
        serve_why();
    else if (packet[0] == 'H')
        serve_select(packet);
    else if (packet[0] == 'T')
        serve_alive(packet);
    else if (packet[0] == 'g' && self)
        serve_registers(self);
    else if ((packet[0] == 'p' || packet[0] == 'P') && self)
        serve_register(self, packet);
    else if (packet[0] == 'm' && self)
        serve_memory_read(self, packet);
    else if (packet[0] == 'M' && self)
        serve_memory_write(self, packet);
    else if ((packet[0] == 'Z' || packet[0] == 'z') && self)
        serve_breakpoint(self, packet);
    else
        packet_send_text("", 0);
}
