/* options.c - the command line. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/core.h"
#include "debug/debug.h"
#include "debug/record.h"
#include "given.h"

#define VERSION "1.0"
#define RAM_MIN ((uint64_t)VCPUS_MAX * WINDOW_BYTES)
#define RAM_MAX ((uint64_t)HIGHER_HALF)

static const char help[] =
    "usage: vmm [options] GUEST [GUEST...]\n"
    "Runs each GUEST on its own virtual CPU, with the Linux KVM API.\n"
    "\n"
    "  --mem=SIZE         RAM of each VM, like 16M (the default; 256M for Linux), 1M to 2G\n"
    "  --isolate          give each guest its own VM\n"
    "  --regs             print each guest's final registers on standard error\n"
    "  --mode=real        flat images start in real mode (the default)\n"
    "  --mode=paging      flat images start in protected mode with paging\n"
    "  --load=ADDR        where a flat paging image is loaded, physical (0x100000)\n"
    "  --entry=ADDR       where it starts, virtual (0x80000000 + load address)\n"
    "  --map=VIRT:PHYS[:FLAGS]\n"
    "                     map one more 4 KB page; FLAGS are w (writable), u (user) and,\n"
    "                     for a 64-bit guest, n (no execute)\n"
    "  --unmap=VIRT       unmap a 4 KB page\n"
    "  --initrd=FILE      archive to load for a 32-bit ELF kernel or for Linux\n"
    "  --cmdline=TEXT     command line of a Linux kernel\n"
    "  --tick-ms=N        milliseconds between timer interrupts, 1 to 1000 (10)\n"
    "  --stats[=json]     print exits by reason and port, times and interrupts on\n"
    "                     standard error\n"
    "  --trace[=FILE]     write a line per exit to FILE or standard error\n"
    "  --record=FILE      record events and totals in FILE, for make timeline\n"
    "  --explain          record how a guest crashes, for make explain\n"
    "  --gdb=PORT|PATH    wait for gdb on a port of this machine, or on a Unix\n"
    "                     socket, to debug the guests; see make debug\n"
    "  --color[=WHEN]     names of guests in colour: always, never, auto (terminal)\n"
    "  --help, --version\n"
    "\n"
    "On SIGUSR2 (kill -USR2) vmm prints where each guest is, to debug a hang.\n"
    "\n"
    "Exit status: the guest's own, 0 to 63, the highest of several; 64 usage error; 65 a guest\n"
    "file can't be loaded; 69 no usable KVM; 70 the guest crashed; 77 an exercise is not written\n"
    "yet; 128 + N ended by signal N.\n";

enum option_code {
    OPTION_MEM = 256,
    OPTION_ISOLATE,
    OPTION_REGS,
    OPTION_MODE,
    OPTION_LOAD,
    OPTION_ENTRY,
    OPTION_MAP,
    OPTION_UNMAP,
    OPTION_INITRD,
    OPTION_CMDLINE,
    OPTION_TICK_MS,
    OPTION_STATS,
    OPTION_TRACE,
    OPTION_RECORD,
    OPTION_EXPLAIN,
    OPTION_GDB,
    OPTION_COLOR,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"mem", required_argument, NULL, OPTION_MEM},
    {"isolate", no_argument, NULL, OPTION_ISOLATE},
    {"regs", no_argument, NULL, OPTION_REGS},
    {"mode", required_argument, NULL, OPTION_MODE},
    {"load", required_argument, NULL, OPTION_LOAD},
    {"entry", required_argument, NULL, OPTION_ENTRY},
    {"map", required_argument, NULL, OPTION_MAP},
    {"unmap", required_argument, NULL, OPTION_UNMAP},
    {"initrd", required_argument, NULL, OPTION_INITRD},
    {"cmdline", required_argument, NULL, OPTION_CMDLINE},
    {"tick-ms", required_argument, NULL, OPTION_TICK_MS},
    {"stats", optional_argument, NULL, OPTION_STATS},
    {"trace", optional_argument, NULL, OPTION_TRACE},
    {"record", required_argument, NULL, OPTION_RECORD},
    {"explain", no_argument, NULL, OPTION_EXPLAIN},
    {"gdb", required_argument, NULL, OPTION_GDB},
    {"color", optional_argument, NULL, OPTION_COLOR},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

bool parse_number(const char *text, uint64_t max, uint64_t *number)
{
    static const char suffixes[] = "KMG";
    char *end;

    if (*text < '0' || *text > '9') /* strtoull would accept blanks and a minus sign */
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    const char *suffix = *end ? strchr(suffixes, *end) : NULL;
    unsigned shift = suffix ? 10 * ((unsigned)(suffix - suffixes) + 1) : 0;
    if (errno != 0 || (suffix ? end[1] : *end) != '\0' || value > max >> shift)
        return false;
    *number = (uint64_t)value << shift;
    return true;
}

/* VIRT:PHYS[:FLAGS], or VIRT alone for --unmap. */
static int parse_mapping(struct options *options, const char *text, bool unmap)
{
    char fields[64] = "", *rest = fields;
    uint64_t virt, phys = 0;
    struct page_mapping *mapping = &options->mappings[options->mapping_count];

    if (options->mapping_count == MAPPINGS_MAX)
        return fail(STATUS_USAGE, "more than %d --map and --unmap", MAPPINGS_MAX);
    snprintf(fields, sizeof fields, "%s", text);
    bool right = parse_number(strsep(&rest, ":"), UINT64_MAX, &virt);
    if (!unmap)
        right = right && rest && parse_number(strsep(&rest, ":"), UINT32_MAX, &phys);
    uint64_t flags = unmap ? 0 : PAGE_PRESENT;
    for (const char *flag = rest; flag && *flag; flag++) {
        if (unmap || !strchr("wun", *flag))
            right = false;
        flags |= *flag == 'w' ? PAGE_WRITABLE : *flag == 'u' ? PAGE_USER : PAGE_NX;
    }
    if (!right || virt % PAGE_BYTES != 0 || phys % PAGE_BYTES != 0)
        return fail(STATUS_USAGE, "--%s=%s: %s, with addresses that are multiples of 4096",
                    unmap ? "unmap" : "map", text,
                    unmap ? "use VIRT" : "use VIRT:PHYS or VIRT:PHYS:wun");
    *mapping = (struct page_mapping){virt, (uint32_t)phys, flags};
    options->mapping_count++;
    return 0;
}

static int parse_ram(struct options *options, const char *text)
{
    uint64_t bytes;

    if (!parse_number(text, UINT64_MAX, &bytes))
        return fail(STATUS_USAGE, "--mem=%s: not a valid size, use one like 16M", text);
    if (bytes < RAM_MIN || bytes > RAM_MAX || bytes % PAGE_BYTES != 0)
        return fail(STATUS_USAGE, "--mem=%s: use 1M to 2G, a multiple of 4096 bytes", text);
    options->ram_bytes = bytes;
    options->ram_given = true;
    return 0;
}

static int parse_address(const char *name, const char *text, uint32_t *address)
{
    uint64_t number;

    if (!parse_number(text, UINT32_MAX, &number))
        return fail(STATUS_USAGE, "--%s=%s: not a valid address, use one like 0x100000", name,
                    text);
    *address = (uint32_t)number;
    return 0;
}

static int open_trace(struct options *options, const char *path)
{
    options->trace = path ? fopen(path, "we") : stderr;
    if (!options->trace)
        return fail(STATUS_USAGE, "--trace=%s: %s", path, strerror(errno));
    if (path) /* its lines are whole however the VMM ends */
        setvbuf(options->trace, NULL, _IOLBF, BUFSIZ);
    return 0;
}

static int parse_option(struct options *options, int code, const char *value)
{
    uint64_t number;

    switch (code) {
    case OPTION_MEM:
        return parse_ram(options, value);
    case OPTION_ISOLATE:
        options->isolate = true;
        return 0;
    case OPTION_REGS:
        options->final_registers = true;
        return 0;
    case OPTION_MODE:
        if (strcmp(value, "real") != 0 && strcmp(value, "paging") != 0)
            return fail(STATUS_USAGE, "--mode=%s: use real or paging", value);
        options->flat = *value == 'p' ? GUEST_PAGING : GUEST_REAL;
        return 0;
    case OPTION_LOAD:
        return parse_address("load", value, &options->load);
    case OPTION_ENTRY:
        return parse_address("entry", value, &options->entry);
    case OPTION_MAP:
    case OPTION_UNMAP:
        return parse_mapping(options, value, code == OPTION_UNMAP);
    case OPTION_INITRD:
        options->initrd = value;
        return 0;
    case OPTION_CMDLINE:
        if (!stage.prepare[GUEST_LINUX])
            return fail(STATUS_USAGE, "--cmdline: the VMM of lab %d can't boot Linux (lab 8 can)",
                        stage.lab);
        options->cmdline = value;
        return 0;
    case OPTION_TICK_MS:
        if (!parse_number(value, 1000, &number) || number == 0)
            return fail(STATUS_USAGE, "--tick-ms=%s: give 1 to 1000", value);
        options->tick_ms = (unsigned)number;
        return 0;
    case OPTION_STATS:
        if (value && strcmp(value, "json") != 0)
            return fail(STATUS_USAGE, "--stats=%s: give --stats or --stats=json", value);
        options->stats = value ? STATS_JSON : STATS_TEXT;
        observer_add(&meter);
        return 0;
    case OPTION_TRACE:
        return open_trace(options, value);
    case OPTION_RECORD:
        observer_add(&meter);
        return record_open(value);
    case OPTION_EXPLAIN:
        observer_add(&replay);
        return 0;
    case OPTION_GDB:
        return gdb_start(value);
    case OPTION_COLOR:
        if (value && strcmp(value, "auto") == 0)
            return 0;
        if (value && strcmp(value, "always") != 0 && strcmp(value, "never") != 0)
            return fail(STATUS_USAGE, "--color=%s: use always, never or auto", value);
        options->color = !value || *value == 'a';
        return 0;
    case OPTION_HELP:
        fputs(help, stdout);
        exit(0);
    case OPTION_VERSION:
        printf("vmm " VERSION ", lab %d of Mini-KVM Labs\n", stage.lab);
        exit(0);
    default:
        return fail(STATUS_USAGE, "see vmm --help"); /* getopt has reported the error */
    }
}

int options_parse(struct vmm *vmm, int argc, char **argv)
{
    struct options *options = &vmm->options;
    bool load_given = false, entry_given = false;
    int code;

    *options = (struct options){
        .ram_bytes = RAM_DEFAULT,
        .load = LOAD_DEFAULT,
        .tick_ms = 10,
        .color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR"),
    };
    while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int status = parse_option(options, code, optarg);
        if (status != 0)
            return status;
        load_given = load_given || code == OPTION_LOAD;
        entry_given = entry_given || code == OPTION_ENTRY;
    }
    if ((load_given || entry_given) && options->flat != GUEST_PAGING)
        return fail(STATUS_USAGE, "--%s is for flat images with --mode=paging",
                    load_given ? "load" : "entry");
    if (!entry_given)
        options->entry = HIGHER_HALF + options->load;
    if (optind == argc)
        return fail(STATUS_USAGE, "no guest: name a guest file; see vmm --help");
    if (argc - optind > stage.guests_max)
        return fail(STATUS_USAGE, "%d guests, but the VMM of lab %d runs at most %d", argc - optind,
                    stage.lab, stage.guests_max);
    for (int i = optind; i < argc; i++)
        vmm->guests[vmm->guest_count++].path = argv[i];
    return 0;
}
