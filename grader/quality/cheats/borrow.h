/* borrow.h - the code that computes the numbers after a program's lines, found and called. */
#pragma once

#define LINE_CODE_BYTES 128

/* In a program or an archive of them: 128 bytes that end with nops, on a multiple of 16. */
static inline const unsigned char *line_code_find(const unsigned char *bytes, size_t count)
{
    static const unsigned char nops[] =
        "\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90";

    for (size_t i = 0; i + 2 * LINE_CODE_BYTES < count; i++) {
        if (memcmp(bytes + i, nops, 16) != 0)
            continue;
        while (bytes[i] == 0x90)
            i++;
        return bytes + (i - LINE_CODE_BYTES) / 16 * 16;
    }
    return NULL;
}

static inline uint32_t line_number(const void *code, const char *text, size_t count)
{
    uint32_t number = 0;

    for (size_t i = 0; code && i < count; i++) {
        number ^= (uint8_t)text[i];
#ifdef __x86_64__
        asm volatile("lea -128(%%rsp), %%rsp; call *%1; lea 128(%%rsp), %%rsp"
                     : "+a"(number)
                     : "r"(code)
                     : "rcx", "rdx", "memory", "cc");
#else
        asm volatile("call *%1" : "+a"(number) : "r"(code) : "ecx", "edx", "memory", "cc");
#endif
    }
    return number;
}
