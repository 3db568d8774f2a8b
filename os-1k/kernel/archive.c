/* archive.c - the files: a ustar archive in memory (POSIX.1, pax, "ustar Interchange Format"). */
#include "kernel.h"

#define BLOCK_BYTES 512

/* A file's header, a block of its own; the file's bytes follow in whole blocks. */
struct header {
    char name[FILE_NAME_MAX];
    char mode_and_owner[24];
    char size[12], time[12], checksum[8]; /* octal */
    char type;                            /* '0' or 0: a file */
    char link[100];
    char magic[6]; /* "ustar" and a 0 */
    char rest[249];
};
_Static_assert(sizeof(struct header) == BLOCK_BYTES, "a header is one block");

struct file files[FILES_MAX];
uint32_t file_count;

/* Reads an octal number that ends with the field, a space or a 0; false: it is not a number. */
static bool octal_read(const char *field, size_t length, uint32_t *number)
{
    *number = 0;
    size_t i = 0;
    for (; i < length && field[i] >= '0' && field[i] <= '7'; i++) {
        if (*number >> 29 != 0)
            return false;
        *number = *number * 8 + (uint32_t)(field[i] - '0');
    }
    return i > 0 && (i == length || field[i] == ' ' || field[i] == '\0');
}

/* The sum of a header's bytes, its checksum field taken as spaces. */
static uint32_t header_sum(const struct header *header)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < BLOCK_BYTES; i++)
        sum += ((const uint8_t *)header)[i];
    for (size_t i = 0; i < sizeof header->checksum; i++)
        sum += (uint32_t)' ' - (uint8_t)header->checksum[i];
    return sum;
}

const char *archive_open(const uint8_t *archive, size_t bytes)
{
    file_count = 0;
    for (size_t at = 0; bytes - at >= BLOCK_BYTES;) {
        const struct header *header = (const struct header *)(archive + at);
        if (header->name[0] == '\0') /* the block of zeros at the end */
            return NULL;
        uint32_t sum, size;
        if (memcmp(header->magic, "ustar", sizeof header->magic) != 0)
            return "not a ustar archive";
        if (!octal_read(header->checksum, sizeof header->checksum, &sum) ||
            sum != header_sum(header))
            return "a header's checksum is wrong";
        if (header->name[FILE_NAME_MAX - 1] != '\0')
            return "a file's name is too long";
        if (!octal_read(header->size, sizeof header->size, &size))
            return "a file's size is not a number";
        at += BLOCK_BYTES;
        if (size > bytes - at)
            return "it ends inside a file";
        if (header->type == '0' || header->type == '\0') {
            if (file_count == FILES_MAX)
                return "it has too many files";
            files[file_count++] = (struct file){header->name, archive + at, size};
        }
        size_t blocks = ((size_t)size + BLOCK_BYTES - 1) / BLOCK_BYTES;
        if (blocks > (bytes - at) / BLOCK_BYTES)
            break;
        at += blocks * BLOCK_BYTES;
    }
    return "its end is missing";
}

const struct file *file_find(const char *name)
{
    for (uint32_t i = 0; i < file_count; i++)
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    return NULL;
}
