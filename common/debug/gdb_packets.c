/* gdb_packets.c - the connection to gdb, and packets on it: appendix E.1 "Overview". */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "debug/gdb.h"
#include "given.h"

#define INTERRUPT_BYTE 0x03 /* Ctrl-C in gdb */
#define PORT_WAIT_US   20000

static int listener = -1;   /* a socket on which gdb connects; -1: none */
static const char *path;    /* its name, until gdb is connected */
static int connection = -1; /* -1: none */
static bool is_port;        /* `connection` is a virtio-serial port, open before gdb is there */
static bool acknowledged = true;
static char last[PACKET_MAX + 5]; /* the last packet sent, to repeat it */
static size_t last_bytes;

/* Makes a listening socket of a bound one. */
static int listen_on(int fd, const struct sockaddr *address, socklen_t size)
{
    if (fd < 0 || bind(fd, address, size) < 0 || listen(fd, 1) < 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static int listen_on_port(uint16_t port)
{
    const int yes = 1;
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    return listen_on(fd, (const struct sockaddr *)&address, sizeof address);
}

/* The socket gets its name once it listens, so whoever sees the name can connect. */
static int listen_on_path(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if ((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path) >=
        sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    unlink(address.sun_path);
    int fd = listen_on(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                       (const struct sockaddr *)&address, sizeof address);
    if (fd >= 0 && rename(address.sun_path, path) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int connection_open(const char *place)
{
    char *end;
    unsigned long number = strtoul(place, &end, 10);

    if (strncmp(place, "fd:", 3) == 0) {
        connection = atoi(place + 3);
        is_port = true;
        return 0;
    }
    if (*end == '\0' && (number == 0 || number > UINT16_MAX))
        return fail(STATUS_USAGE, "--gdb=%s: not a TCP port", place);
    path = *end == '\0' ? NULL : place;
    listener = path ? listen_on_path() : listen_on_port((uint16_t)number);
    if (listener < 0)
        return fail(STATUS_USAGE, "--gdb=%s: can't wait for gdb there: %s", place, strerror(errno));
    return 0;
}

bool connection_accept(void)
{
    if (is_port)
        return true;
    do
        connection = accept(listener, NULL, NULL);
    while (connection < 0 && errno == EINTR);
    close(listener);
    if (path)
        unlink(path);
    return connection >= 0;
}

void connection_close(void)
{
    if (connection >= 0)
        close(connection);
    connection = -1;
}

/* The next byte, or -1. A port that has had no byte yet reads as at its end until gdb is there. */
static int byte_receive(void)
{
    static uint8_t bytes[PACKET_MAX];
    static size_t next, count;
    static bool heard;

    while (next == count) {
        ssize_t got = read(connection, bytes, sizeof bytes);
        if (got == 0 && is_port && !heard) {
            usleep(PORT_WAIT_US);
            continue;
        }
        if (got == 0 || (got < 0 && errno != EINTR))
            return -1;
        next = 0;
        count = got > 0 ? (size_t)got : 0;
        heard = true;
    }
    return bytes[next++];
}

/* If gdb is gone, the next read says so. */
static void bytes_send(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = is_port ? write(connection, bytes, count)
                               : send(connection, bytes, count, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return;
        bytes += sent > 0 ? sent : 0;
        count -= sent > 0 ? (size_t)sent : 0;
    }
}

static void acknowledge(char answer)
{
    pthread_mutex_lock(&world.lock);
    if (acknowledged)
        bytes_send(&answer, 1);
    pthread_mutex_unlock(&world.lock);
}

void acknowledge_no_more(void)
{
    acknowledged = false;
}

/* Reads what follows a $: the packet, # and a checksum of two digits. */
static bool packet_read(char *packet, bool *right)
{
    uint8_t sum = 0, expected = 0;
    size_t count = 0;
    int byte;

    while ((byte = byte_receive()) >= 0 && byte != '#') {
        sum = (uint8_t)(sum + byte);
        if (count < PACKET_MAX)
            packet[count] = (char)byte;
        count++;
    }
    int high = byte_receive(), low = high < 0 ? -1 : byte_receive();
    const char digits[2] = {(char)high, (char)low};
    *right = count <= PACKET_MAX && hex_read(digits, &expected, 1) && expected == sum;
    packet[*right ? count : 0] = '\0';
    return low >= 0;
}

enum received packet_receive(char *packet)
{
    for (;;) {
        int byte = byte_receive();
        bool right;
        if (byte < 0)
            return RECEIVED_END;
        if (byte == INTERRUPT_BYTE)
            return RECEIVED_INTERRUPT;
        if (byte == '-' && acknowledged) {
            pthread_mutex_lock(&world.lock);
            bytes_send(last, last_bytes);
            pthread_mutex_unlock(&world.lock);
        }
        if (byte != '$')
            continue;
        if (!packet_read(packet, &right))
            return RECEIVED_END;
        acknowledge(right ? '+' : '-');
        if (right)
            return RECEIVED_PACKET;
    }
}

void packet_send_text(const char *text, size_t count)
{
    uint8_t sum = 0;

    count = count < PACKET_MAX ? count : PACKET_MAX;
    for (size_t i = 0; i < count; i++)
        sum = (uint8_t)(sum + (uint8_t)text[i]);
    last[0] = '$';
    memcpy(last + 1, text, count);
    last[count + 1] = '#';
    hex_write(last + count + 2, &sum, 1);
    last_bytes = count + 4;
    bytes_send(last, last_bytes);
}

void packet_send(const char *format, ...)
{
    char text[PACKET_MAX + 1];
    va_list arguments;

    va_start(arguments, format);
    int count = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    packet_send_text(text, (size_t)count);
}

void packet_print(const char *text, size_t count)
{
    char packet[PACKET_MAX] = "O";
    const size_t most = (sizeof packet - 2) / 2;

    for (size_t part; count > 0; text += part, count -= part) {
        part = count < most ? count : most;
        hex_write(packet + 1, text, part);
        packet_send_text(packet, 1 + 2 * part);
    }
}

void hex_write(char *text, const void *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;

    for (size_t i = 0; i < count; i++) {
        *text++ = digits[from[i] >> 4];
        *text++ = digits[from[i] & 15];
    }
    *text = '\0';
}

/* The value of a hexadecimal digit, or -1. */
static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

bool hex_read(const char *text, void *bytes, size_t count)
{
    uint8_t *to = bytes;

    for (size_t i = 0; i < count; i++) {
        int high = digit_value(text[2 * i]), low = high < 0 ? -1 : digit_value(text[2 * i + 1]);
        if (low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
