"""Skeletons: what becomes of a solution's text, and that no learner's work is lost."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from grader.commands import skeletons
from grader.course import Lab
from grader.core.exercises import MarkError, first_todo, handout_title, skeleton, todo_lines, todos

SOLUTION = """\
int first(void)
{
    int kept;
    /* answer 7.1 */
    return kept;
    /* end 7.1 */
}

int second(int x)
{
    if (x) {
        /* answer 7.2 */
        return 1;
        /* end 7.2 */
    }
    /* answer 7.1 */
    return 0;
    /* end 7.1 */
}
"""

SKELETON = """\
int first(void)
{
    int kept;
    TODO("7.1");
}

int second(int x)
{
    if (x) {
        TODO("7.2");
    }
    TODO("7.1");
}
"""


class SkeletonText(unittest.TestCase):
    def test_each_answer_becomes_a_todo(self) -> None:
        self.assertEqual(skeleton(SOLUTION, "x.c"), SKELETON)

    def test_wrong_marks_are_refused_with_their_line(self) -> None:
        cases = {
            "    /* answer 7.1 */\n    /* end 7.2 */\n": "x.c:2: end 7.2 without",
            "    /* end 7.1 */\n": "x.c:1: end 7.1 without",
            "    /* answer 7.1 */\n": "x.c:1: answer 7.1 has no end",
            "    /* answer 7.1 */\n    /* answer 7.2 */\n": "x.c:2: answer 7.2 begins inside",
            "/* answer 7.1 */\n/* end 7.1 */\n": "x.c:1: answer 7.1 is outside",
            "    /* Answer 7.1 */\n": "x.c:1: malformed mark",
            "    int x; /* answer 7.1 */\n": "x.c:1: malformed mark",
            "    // end 7.1\n": "x.c:1: malformed mark",
        }
        for text, message in cases.items():
            with self.subTest(text=text), self.assertRaisesRegex(MarkError, message.replace(".", r"\.")):
                skeleton(text, "x.c")


class Kit(unittest.TestCase):
    """A kit of one lab in a temporary folder."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.lab = Lab(7, "lab7-test", ("a.c",))
        for name, value in (("ROOT", self.root), ("LABS", {7: self.lab}),
                            ("_WRITTEN", self.root / "build/skeletons"), ("labs", self.graded("7.1", "7.2"))):
            self.start_patch(mock.patch.object(skeletons, name, value))
        self.start_patch(mock.patch("grader.course.ROOT", self.root))
        self.solution = self.write("solutions/lab7-test/a.c", SOLUTION)
        self.target = self.root / "labs/lab7-test/a.c"

    def start_patch(self, patch: "mock._patch[object]") -> None:
        patch.start()
        self.addCleanup(patch.stop)

    def graded(self, *numbers: str) -> mock.Mock:
        """Graded tests of these exercises."""
        return mock.Mock(NUMBERS=[7], load=lambda number: mock.Mock(exercises=lambda: list(numbers)))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def make(self, force: bool = False) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = skeletons.write_skeletons(force)
        return status, said.getvalue()


class Writing(Kit):
    def test_a_missing_file_is_written_and_then_left_alone(self) -> None:
        self.assertEqual(self.make(), (0, "wrote labs/lab7-test/a.c\n"))
        self.assertEqual(self.target.read_text(), SKELETON)
        self.assertEqual(self.make(), (0, ""))

    def test_work_is_kept_unless_forced(self) -> None:
        self.make()
        self.target.write_text("my work\n")
        status, said = self.make()
        self.assertEqual(status, 1)
        self.assertIn("labs/lab7-test/a.c has been edited", said)
        self.assertIn("FORCE=1", said)
        self.assertEqual(self.target.read_text(), "my work\n")
        self.assertEqual(self.make(force=True)[0], 0)
        self.assertEqual(self.target.read_text(), SKELETON)

    def test_an_untouched_skeleton_follows_its_solution(self) -> None:
        self.make()
        self.solution.write_text(SOLUTION.replace("kept", "renamed"))
        self.assertEqual(self.make()[0], 0)
        self.assertIn("renamed", self.target.read_text())

    def test_committed_work_may_be_replaced(self) -> None:
        self.write("labs/lab7-test/a.c", "my work\n")
        git = ["git", "-C", str(self.root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run([*git, "init", "-q"], check=True)
        self.assertEqual(self.make()[0], 1)
        subprocess.run([*git, "add", "labs"], check=True)
        subprocess.run([*git, "commit", "-qm", "work"], check=True)
        self.assertEqual(self.make()[0], 0)
        self.assertEqual(self.target.read_text(), SKELETON)


class Drifts(Kit):
    def test_a_kit_in_order_has_none(self) -> None:
        self.make()
        self.write("handouts/lab7-test.md", "### 7.1 One\n\n### 7.2 Two\n")
        self.assertEqual(skeletons.drifts(), [])

    def test_each_kind_is_found(self) -> None:
        self.assertIn("labs/lab7-test/a.c is missing; `make skeletons` writes it", skeletons.drifts())
        self.write("labs/lab7-test/a.c", SKELETON + "\n")
        self.write("handouts/lab7-test.md", "### 7.1 One\n\n### 7.3 Three\n\n### 7.3 Again\n")
        self.assertEqual(skeletons.drifts(), [
            "labs/lab7-test/a.c is not what `make skeletons` writes",
            "solutions/lab7-test has exercise 7.2, but handouts/lab7-test.md has not",
            "handouts/lab7-test.md has exercise 7.3, but solutions/lab7-test has not",
            "handouts/lab7-test.md has exercise 7.3, but solutions/lab7-test has not",
            "handouts/lab7-test.md has an exercise twice",
        ])
        self.start_patch(mock.patch.object(skeletons, "labs", self.graded("7.1")))
        self.assertIn("solutions/lab7-test has exercise 7.2, but grader/labs/lab7-test/tests.py has not",
                      skeletons.drifts())
        self.solution.write_text("    /* answer 7.1 */\n")
        self.assertIn("solutions/lab7-test/a.c:1: answer 7.1 has no end", skeletons.drifts())


class NextExercise(Kit):
    def test_the_lowest_number_comes_first(self) -> None:
        self.write("labs/lab7-test/a.c", SKELETON.replace('TODO("7.1")', "return 0", 1))
        first = first_todo(self.lab)
        assert first is not None
        self.assertEqual((first.exercise, first.line), ("7.1", 12))
        self.assertEqual([todo.exercise for todo in todos(self.target)], ["7.1", "7.2"])

    def test_all_places_of_an_exercise_are_named(self) -> None:
        self.write("labs/lab7-test/a.c", SKELETON)
        self.assertEqual(todo_lines(self.target, "7.1"), "line 4 and line 12")
        self.assertEqual(todo_lines(self.target, "7.2"), "line 10")
        self.assertEqual(todo_lines(self.target, "7.3"), "")

    def test_comments_do_not_count(self) -> None:
        self.write("labs/lab7-test/a.c", '/* TODO("7.1")\n TODO("7.2") */\n// TODO("7.3")\n')
        self.assertIsNone(first_todo(self.lab))

    def test_the_title_comes_from_the_handout(self) -> None:
        self.assertEqual(handout_title(self.lab, "7.1"), "")
        self.write("handouts/lab7-test.md", "# Lab\n\n### 7.1 Open the door\n")
        self.assertEqual(handout_title(self.lab, "7.1"), "Open the door")


if __name__ == "__main__":
    unittest.main()
