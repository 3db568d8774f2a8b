/* fuzz_archive.c - libFuzzer: any bytes as an archive. Sanitizers see what goes out of bounds. */
#include <stdlib.h>

#include "kernel.h"

/* Makes the sum of every header right: nearly no random change would ever get beyond it. */
static void checksums_set(uint8_t *archive, size_t bytes)
{
    for (size_t at = 0; at + 512 <= bytes; at += 512) {
        uint8_t *header = archive + at;
        unsigned sum = 8 * ' ';
        if (__builtin_memcmp(header + 257, "ustar", 6) != 0)
            continue;
        for (int i = 0; i < 512; i++)
            sum += i >= 148 && i < 156 ? 0 : header[i];
        for (int i = 5; i >= 0; i--, sum /= 8)
            header[148 + i] = (uint8_t)('0' + sum % 8);
        header[154] = '\0';
    }
}

/* Every file that was found lies inside the archive, and can be found by its name. */
static void files_check(const uint8_t *archive, size_t bytes)
{
    for (uint32_t i = 0; i < file_count; i++) {
        const struct file *found = file_find(files[i].name);
        if (!found || files[i].data < archive || files[i].bytes > bytes ||
            files[i].data + files[i].bytes > archive + bytes)
            abort();
        volatile uint8_t byte;
        for (uint32_t at = 0; at < files[i].bytes; at++)
            byte = files[i].data[at];
        (void)byte;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint8_t *archive = malloc(bytes);

    __builtin_memcpy(archive, data, bytes);
    if (!archive_open(archive, bytes))
        files_check(archive, bytes);
    checksums_set(archive, bytes);
    if (!archive_open(archive, bytes))
        files_check(archive, bytes);
    free(archive);
    return 0;
}
