"""All checks of the handouts, for the tests and for authors."""

from __future__ import annotations

from collections.abc import Iterator

from grader.core.building import build_guests
from grader.course import LABS
from grader.handouts import consoles as running
from grader.handouts import figures, tables, truths
from grader.handouts.text import Fence, documents


def words() -> Iterator[str]:
    """Errors in the texts that a compiler can find at most."""
    build_guests()  # and build/abi.inc, which the excerpts in assembly include
    found = documents()
    by_path = {document.path: document for document in found}
    for document in found:
        yield from truths.check_fences(document)
        yield from truths.check_links(document, by_path)
        yield from truths.check_names(document)
        yield from truths.check_exercise_numbers(document)
        yield from truths.check_sections(document.path)
    for lab in LABS.values():
        for path in lab.solution_files():
            if path.exists():
                yield from truths.check_sections(path)
        if lab.handout.exists():
            yield from truths.check_exercises(lab)
    yield from truths.check_figures(found)


def drifts() -> Iterator[str]:
    """Tables and figures that no longer match the kit's data."""
    for document in documents():
        try:
            if tables.updated(document.text, document.name) != document.text:
                yield (f"{document.name}: a table or an exercise's length is outdated; run "
                       "`python3 -m grader.handouts update`")
        except ValueError as error:
            yield str(error)
    for name in figures.outdated():
        yield f"figures/{name}.svg is outdated; `python3 -m grader.handouts update` draws it"


def blocks(word: str = "") -> list[tuple[str, Fence]]:
    """The console blocks, grouped by the state that they need."""
    fences = [(running.answered_up_to(fence), fence) for document in documents() if word in document.name
              for fence in document.fences() if fence.kind == "console" and "or" not in fence.words]
    return sorted(fences, key=lambda pair: pair[0])


def consoles(word: str = "", cannot: list[str] | None = None) -> Iterator[str]:
    """Runs the console blocks and yields errors. Blocks that can't run here are added to `cannot`."""
    chosen = blocks(word)
    running.copy_kit()
    for state, fence in chosen:
        running.set_state(state)
        try:
            wrong = running.difference(fence)
        except ValueError as error:
            wrong = str(error)
        except running.CannotRun as error:
            if cannot is None:
                wrong = f"{fence.where}: {error}"
            else:
                cannot.append(f"{fence.where}: {error}")
                continue
        if wrong:
            yield wrong
