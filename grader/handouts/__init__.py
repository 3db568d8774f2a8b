"""The handouts: checks and rendering.

    text.py       Markdown files as fences, sections, links
    consoles.py   console blocks: run as a learner would run them, and compared
    truths.py     checks that run no guest: names, numbers, links, excerpts
    tables.py     tables generated from the kit's own data, between marks
    drawing.py    SVG from boxes and arrows
    figures.py    the figures, drawn from the kit's constants
    timeline.py   a figure drawn from a --trace
    site.py       the site and the PDF

Every fenced block in handouts/ declares its kind, which decides how it is checked:

    ```console            Each `$ command` is run and what follows it compared, in a copy of the kit. Inside
                          exercise N.M all exercises up to N.M are answered there. `...` stands for any text:
                          in a line, or as a line of its own for any number of lines. More words may follow:
                          before (N.M itself is not answered), after=N.M (answered up to there),
                          input="a|b" (lines of input), keys="a|b" (typed with Enter, each when the
                          output pauses; ^C is a signal), status=N (the last command's exit status),
                          needs="a b" (tools, without which it is not run)
    ```console or         Alternative output for the block above: another interleaving, or another
                          processor. Its commands are the same
    ```c from=FILE        An excerpt: these lines stand in FILE so. A line `...` leaves lines out.
    ```c                  C that compiles, as statements of a function that includes the contract
    ```nasm               Assembly that assembles
    ```text why="..."     Anything else, with the reason why it can't be checked

tables.py generates the text between `<!-- table NAME -->` and `<!-- end table -->`. `python3 -m
grader.handouts update` regenerates these tables and the figures.
"""
