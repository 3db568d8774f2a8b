"""`make bench`: what the VMM costs, as ratios to the physical limit and to what a user would pick instead.

Machines differ a thousandfold and are shared, so a single time means nothing. Each case runs its commands in
turn, A B C A B C ..., in one job where the guests run, and what is reported is the median of each round's
ratios, with their middle half. Nothing is judged.

    cases.py     one thing that is measured, and the arithmetic of its runs
    rows.py      what is measured against what
    grading.py   whole commands, which take long
    counts.py    exits of the reference guests, which are exact
    report.py    the terminal and JSON
    page.py      the HTML page, with a plot for each row
    alternate.c  runs the commands in turn and measures each
    bare.c       the limit: a bare loop around KVM_RUN
    native.asm   guests/compute.inc on the processor itself
    os/, linux.c the same things on the 1K OS and on Linux
"""
