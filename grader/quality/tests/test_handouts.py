"""A handout that no longer matches the kit fails here: its consoles, commands, names, numbers, tables,
figures and links. How a block says what it is: grader/handouts/__init__.py."""

from __future__ import annotations

import shutil
import unittest
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from unittest import mock

from grader.execution.labvm import linux_guest, snapshot
from grader.handouts import checking, consoles, site, tables
from grader.handouts.text import ORDER, Document, Fence, documents, slug
from grader.course import ROOT


class Truth(unittest.TestCase):
    maxDiff = None

    def test_texts_name_what_is_there(self) -> None:
        self.assertEqual("\n".join(checking.words()), "")

    def test_tables_and_figures_are_what_the_kit_makes(self) -> None:
        self.assertEqual("\n".join(checking.drifts()), "")

    def test_every_handout_has_its_place_in_the_reading_order(self) -> None:
        self.assertEqual([document.name for document in documents() if document.name not in ORDER], [])


class Consoles(unittest.TestCase):
    """Every console is what a learner sees: a test for each document, because each takes long."""

    maxDiff = None

    def check(self, document: str) -> None:
        cannot: list[str] = []
        self.assertEqual("\n\n".join(checking.consoles(document, cannot)), "")
        if cannot:
            self.skipTest("console blocks that can't be run here (the others are true): " + "; ".join(cannot))


def console_test(document: str) -> Callable[[Consoles], None]:
    return lambda case: case.check(document)


for _name in [document.name for document in documents() if checking.blocks(document.name)]:
    setattr(Consoles, f"test_{_name}", console_test(_name))


class Comparison(unittest.TestCase):
    def test_lines_must_be_the_same(self) -> None:
        self.assertTrue(consoles.agrees(["a", "b"], ["a", "b"]))
        self.assertFalse(consoles.agrees(["a", "b"], ["a", "x", "b"]))
        self.assertFalse(consoles.agrees(["a"], ["a", "b"]))

    def test_dots_stand_for_anything(self) -> None:
        self.assertTrue(consoles.agrees(["a", "...", "b"], ["a", "x", "y", "b"]))
        self.assertTrue(consoles.agrees(["a", "...", "b"], ["a", "b"]))
        self.assertTrue(consoles.agrees(["seed ...: ok"], ["seed 12: ok"]))
        self.assertFalse(consoles.agrees(["seed ...: ok"], ["seed 12", ": ok"]))

    def test_what_depends_on_the_machine_is_left_out(self) -> None:
        output = "kvm: real mode seen to run\nHello\nmake: *** [x] Error 2\n\n"
        self.assertEqual(consoles.shown(output), ["Hello"])
        with redirect_stderr(StringIO()) as first_use:
            for progress in (snapshot.progress, linux_guest.progress):
                progress("fetching it")
        self.assertEqual(consoles.shown(f"{first_use.getvalue()}Hello\n"), ["Hello"])


class Blocks(unittest.TestCase):
    def fences(self, text: str) -> list[Fence]:
        return Document(ROOT / "handouts" / "x.md", text).fences()

    def test_the_section_gives_the_state(self) -> None:
        fence, = self.fences("### 3.2 Threads\n\n```console\n$ make lab3\n```\n")
        self.assertEqual(consoles.answered_up_to(fence), "3.2")
        fence, = self.fences("### 3.2 Threads\n\n```console before\n$ make lab3\n```\n")
        self.assertEqual(consoles.answered_up_to(fence), "3.2-")
        fence, = self.fences('```console after=2.5 keys="a b|c"\n$ make lab3\n```\n')
        self.assertEqual((consoles.answered_up_to(fence), fence.words["keys"]), ("2.5", "a b|c"))

    def test_an_or_block_is_what_may_come_instead(self) -> None:
        def block(words: str, *lines: str) -> str:
            return "\n".join([f"```console {words}", *lines, "```", ""])

        fence, other = self.fences(block("", "$ echo $WORD", "one") + block("or", "$ echo $WORD", "two"))
        self.assertEqual(fence.others, [other])
        for word, wrong in (("one", False), ("two", False), ("three", True)):
            with mock.patch.object(consoles, "run", lambda *_, word=word: (word + "\n", 0)):
                self.assertEqual(bool(consoles.difference(fence)), wrong, word)
        fence, _ = self.fences(block("", "$ echo one", "one") + block("or", "$ echo two", "two"))
        with self.assertRaises(ValueError):
            consoles.difference(fence)

    def test_a_block_that_needs_a_tool_is_not_run_without_it(self) -> None:
        fence, = self.fences('```console needs="sh no-such-tool"\n$ no-such-tool\n```\n')
        with self.assertRaisesRegex(consoles.CannotRun, "no-such-tool is not installed"):
            consoles.difference(fence)

    def test_a_block_begins_with_a_command(self) -> None:
        fence, = self.fences("```console\nHello\n```\n")
        with self.assertRaises(ValueError):
            list(consoles.commands(fence))

    def test_anchors_are_as_on_github(self) -> None:
        self.assertEqual(slug("1.5 The run `loop`, and why"), "15-the-run-loop-and-why")

    def test_each_table_has_a_row(self) -> None:
        for name, make in tables.TABLES.items():
            self.assertGreater(len(make().splitlines()), 2, name)

    def test_an_option_keeps_all_lines_of_its_help(self) -> None:
        self.assertIn("| print exits by reason and port, times and interrupts on standard error |",
                      tables.options())

    def test_an_unknown_table_is_an_error(self) -> None:
        with self.assertRaises(ValueError):
            tables.updated("<!-- table nothing -->\n<!-- end table -->\n", "x.md")


class Rendering(unittest.TestCase):
    def test_the_site_is_whole(self) -> None:
        missing = [name for name in ("pandoc", "weasyprint") if not shutil.which(name)]
        if missing:
            self.skipTest(f"`make handouts` needs {' and '.join(missing)}, which is not installed here")
        self.assertEqual(site.render(quiet=True), 0)
        self.assertEqual(list(site.broken_links()), [])
        # WeasyPrint numbers a list from 1 whatever `start` says.
        bodies = {document.name: site.to_html(document) for document in documents()}
        self.assertNotIn("<ol start=", site.print_page(documents(), bodies))

    def test_figures_give_their_font_in_words_that_every_renderer_knows(self) -> None:
        for figure in (ROOT / "handouts" / "figures").glob("*.svg"):
            self.assertNotIn("font:", figure.read_text(), figure.name)  # WeasyPrint reads no shorthand


if __name__ == "__main__":
    unittest.main()
