/* shell.c - in the shell's place in the 1K OS: measures what the first key asks for. See linux.c.
 */
#include "../scale.h"
#include "libc.h"

int main(const char *argument)
{
    int child, status;
    uint64_t begin;
    char key;

    write(">", 1);
    read(&key, 1);
    if (key == KEY_SYSTEM_CALL) {
        begin = cycles();
        for (int i = 0; i < SYSTEM_CALL_COUNT; i++)
            getpid();
    } else if (key == KEY_SWITCH) {
        child = spawn("other", "", 0);
        yield();
        begin = cycles();
        for (int i = 0; i < SWITCH_COUNT / 2; i++)
            yield();
    } else {
        begin = cycles();
        for (int i = 0; i < PROGRAM_COUNT; i++) {
            child = spawn("nothing", "", 0);
            wait(child, 0, &status);
        }
    }
    const uint64_t taken = cycles() - begin;
    char digits[16];
    for (int i = 0; i < 16; i++)
        digits[i] = "0123456789abcdef"[taken >> (60 - 4 * i) & 15];
    write(digits, sizeof digits);
    exit(0);
}
