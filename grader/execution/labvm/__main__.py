"""python3 -m grader.execution.labvm run [OPTION...] [--] COMMAND [ARGUMENT...] | fetch | clean

run    executes COMMAND in the lab VM as if it ran here: same input, output, terminal, signals and status
           --output=FILE     a file that an argument names and that COMMAND writes
           --debugger=PATH   a Unix socket to create, for descriptor 63 of COMMAND
fetch  prepares the lab VM (kernel and snapshot) and the Linux guest for use without a network
clean  removes the cache (what was downloaded, and the lab VM's snapshots)
"""

from __future__ import annotations

import sys

from grader.execution.labvm import snapshot
from grader.execution.labvm.session import end_alike, run_live
from grader.execution.labvm.linux_guest import linux_initramfs
from grader.execution.runs import CannotGrade
from grader.execution.tool import run_command

CANNOT = 69  # sysexits.h: EX_UNAVAILABLE, as in the VMM without a usable KVM


def main(arguments: list[str]) -> int:
    """Execute the command line; returns the exit status."""
    if arguments == ["clean"]:
        snapshot.clean()
        return 0
    if arguments == ["fetch"]:
        snapshot.start().close()
        linux_initramfs()
        print(f"The lab VM is ready and no longer needs a network: {snapshot.cache_folder()}")
        return 0
    if arguments[:1] == ["run"]:
        argv, options = arguments[1:], {"--output": "", "--debugger": ""}
        while argv and argv[0].partition("=")[0] in options:
            name, _, value = argv.pop(0).partition("=")
            options[name] = value
        argv = argv[1:] if argv[:1] == ["--"] else argv
        if argv:
            end_alike(run_live(argv, options["--output"], options["--debugger"]))
    print(__doc__, file=sys.stderr)
    return 64


def _main() -> int:
    try:
        return main(sys.argv[1:])
    except CannotGrade as error:
        print(f"lab VM: {error}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    run_command(_main)
