"""Grading a class: strangers' files are read safely, nothing is lost, no machine is a learner's fault."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest
import zipfile
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

from grader.core.building import NO_SANITIZERS, clean_environment
from grader.core.readable import MARKS_MAX, file_name, printable, printable_lines
from grader.core.whole_file import write_whole
from grader.classroom.claims import STALE_SECONDS, Claims
from grader.classroom.class_page import write_page
from grader.classroom.grade_class import grade_class
from grader.classroom.grade_one import (Processes, Settings, _last_words, finished, grade_one,
                                        not_graded)
from grader.classroom.record import GRADED, MACHINE, REFUSED, Record, TestScore, load
from grader.classroom.scores import most_failed, spread, write_csv
from grader.classroom.submissions import DESCRIPTION, Submission, read
from grader.classroom.tree import remove_stale
from grader.course import BUILD, LABS, ROOT
from grader.execution.runs import CannotGrade
from grader.quality.tests.packing import tar, zipped

LAB = LABS[2]
NAME = LAB.files[0]
SOLUTION = LAB.solution_files()[0]
CANNOT_GRADE = 3


class FolderCase(unittest.TestCase):
    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)


class Telling(FolderCase):
    RECORDS = [
        Record("anna", "k", GRADED, "", 90, 100,
               [TestScore("2.1-a: one", 90, 90), TestScore("2.2-b: two", 0, 10)]),
        Record("=HYPERLINK(1)", "k", GRADED, "does not compile", 0, 100,
               [TestScore("2.1-a: one", 0, 90), TestScore("2.2-b: two", 0, 10)]),
        Record("<script>x</script>", "", REFUSED, "<b>it is a link"),
        Record("dora", "k", MACHINE, "QEMU ended"),
    ]

    def table(self, records: list[Record], separator: str = ",") -> list[list[str]]:
        write_csv(records, self.folder / "scores.csv")
        with open(self.folder / "scores.csv", newline="", encoding="utf-8-sig") as file:
            return list(csv.reader(file, delimiter=separator))

    def test_csv(self) -> None:
        head, *lines = self.table(self.RECORDS)
        rows = [dict(zip(head, line)) for line in lines]
        self.assertEqual([row["score"] for row in rows], ["90", "0", "", ""])
        self.assertEqual([row["status"] for row in rows], [GRADED, GRADED, REFUSED, MACHINE])
        self.assertEqual(rows[0]["2.1-a"], "90")
        self.assertEqual(rows[1]["name"], "'=HYPERLINK(1)")
        self.assertTrue((self.folder / "scores.csv").read_bytes().startswith(b"\xef\xbb\xbf"))

    def test_no_cell_is_a_formula_or_more_than_one_cell(self) -> None:
        names = ["a;=1+1", "\x01=1+1", "\uff1d1+1", "\t=1", "a\n=1", "x|@y", "-1", "\r=1", 'a";=1',
                 " =1", "\u200b=1", 'a;"=1', 'a, "\'@x', 'b|"@SUM(1)']
        for separator in (",", ";", "\t"):
            rows = self.table([Record(name, "", REFUSED, name) for name in names], separator)
            self.assertEqual(len(rows), len(names) + 1)
            for cell in (cell for row in rows for cell in row):
                self.assertNotRegex(cell.strip(' "'), "^[-=+@\uff1d\uff0b\uff0d\uff20]")
                self.assertTrue(cell.isprintable(), cell)

    def test_names_stay_apart(self) -> None:
        names = ["a b", "a  b", "a b ", "a\u00a0b", "a\tb", "Jos_-24c2ab65", "José",
                 os.fsdecode(b"Jos\xe9"), "a_b", "..", ".", "a/b", "A b", "x" * 300, "x" * 301, "",
                 "\ud800", "-rf"]
        names += [file_name(name) for name in names if file_name(name) != name]
        self.assertEqual(len({file_name(name) for name in names}), len(names))
        self.assertTrue(all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", file_name(name)) for name in names))
        rows = self.table([Record(name, "", REFUSED) for name in names])
        self.assertEqual(len({row[0] for row in rows}), len(names) + 1)

    def test_untrusted_text_does_nothing_to_a_terminal(self) -> None:
        self.assertEqual(printable("a\x1b[2J\n\udce9\u202e\ud800\U000e0001é"),
                         "a\\x1b[2J\\x0a\\xe9\\u202e\\ud800\\U000e0001é")
        self.assertLess(len(printable("x" * 1_000_000)), 400)
        unseen = ("", *"\u034f\u115f\u180b\u2800\u3164\ufe0f\U000e0100")
        same = [printable(f"alice{character}") for character in unseen]
        self.assertEqual(len({re.sub(r"[^ -~]", "", text) for text in same}), len(same))
        self.assertEqual(printable("u\u031b\u0302e\u0301"), "u\u031b\u0302e\u0301")
        self.assertEqual(printable("x" + "\u0300" * 90).count("\u0300"), MARKS_MAX)
        flood = printable_lines("\x1b]0;x\x07\n" * 100_000)
        self.assertLess(sum(map(len, flood)), 10_000)
        self.assertTrue(all(line.isprintable() for line in flood))

    def test_numbers(self) -> None:
        self.assertEqual(most_failed(self.RECORDS), [("2.2-b: two", 2), ("2.1-a: one", 1)])
        self.assertEqual(spread(self.RECORDS), [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])

    def test_page(self) -> None:
        write_page(LAB, 7, self.RECORDS, self.folder / "index.html")
        page = (self.folder / "index.html").read_text()
        self.assertNotIn("<script>", page)
        self.assertNotIn("<b>", page)
        self.assertNotRegex(page, r"https?://")
        record = Record("\x1b[2J\udce9", "", REFUSED, "\x07" * 10_000)
        write_page(LAB, 7, [record], self.folder / "index.html")
        self.assertLess((self.folder / "index.html").stat().st_size, 10_000)
        self.assertNotRegex((self.folder / "index.html").read_text(), "[\x00-\x09\x0b-\x1f]")
        self.assertIn("QEMU ended", page)
        self.assertIn("2 graded; 1 refused; 1 could not be graded", page)
        self.assertLess(page.index("not a score of 0"), page.index("Refused"))

    def test_a_record_is_kept_whole_or_not_at_all(self) -> None:
        self.RECORDS[0].save(self.folder)
        self.assertEqual(load(self.folder), self.RECORDS[0])
        good = json.loads((self.folder / "record.json").read_text())
        wrong = [{**good, "score": "100"}, {**good, "score": good["score"] + 1}, {**good, "name": None},
                 {**good, "status": "perfect"}, {**good, "seconds": []}]
        for text in ("", "{", "[]", '{"tests": [1]}', *map(json.dumps, wrong)):
            (self.folder / "record.json").write_text(text)
            self.assertIsNone(load(self.folder), text)

    def test_several_graders_write_one_file(self) -> None:
        path, texts = self.folder / "page.html", [letter * 100_000 for letter in "abcd"]

        def write(text: str) -> None:
            for _ in range(100):
                write_whole(path, text)
                self.assertIn(path.read_text(), texts)

        with ThreadPoolExecutor(len(texts)) as pool:
            self.assertEqual([*pool.map(write, texts)], [None] * len(texts))
        self.assertEqual([*self.folder.iterdir()], [path])

    def test_no_submission_says_why_it_could_not_be_graded(self) -> None:
        report = self.folder / "report.txt"
        forged = "    cannot grade: a sentence of the module's\n"
        report.write_text(f"cannot grade: the disk is full\n{forged}end\n")
        self.assertEqual(_last_words(report, 3), "cannot grade: the disk is full (exit status 3)")
        report.write_text(f"{forged}Traceback\n")
        self.assertEqual(_last_words(report, 1), "Traceback (exit status 1)")


class OneOfMany(FolderCase):
    """Whatever goes wrong with one submission is reported in its record, and gives no score."""

    def grade(self, target: str, error: Exception) -> Record:
        settings = Settings(LAB, 7, self.folder / "reports")
        submission = Submission("anna", self.folder / "anna.c")
        submission.path.write_text("int x;\n")
        with mock.patch(f"grader.classroom.grade_one.{target}", side_effect=error):
            record = grade_one(settings, submission, mock.Mock(), Processes())
        self.assertIsNone(finished(settings, submission))
        self.assertFalse((self.folder / "reports" / "anna" / "record.json").exists())
        self.assertIn("could not be graded", (self.folder / "reports" / "anna" / "report.txt").read_text())
        return record

    def test_unexpected_errors(self) -> None:
        for target in ("read", "_graded"):
            for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ValueError("\ud800"),
                          MemoryError(), RecursionError(), CannotGrade("the lab VM is lost", "")):
                with self.subTest(target=target, error=error):
                    record = self.grade(target, error)
                    self.assertEqual((record.status, record.score), (MACHINE, 0))
                    self.assertIn("could not be graded: ", record.reason)

    def test_a_tree_that_another_machine_took(self) -> None:
        tree = mock.Mock(folder=self.folder)
        tree.is_ours.return_value = False
        settings = Settings(LAB, 7, self.folder / "reports")
        submission = Submission("anna", self.folder / "anna.c")
        submission.path.write_text("int x;\n")
        processes = mock.Mock(stopped=False)
        processes.run.return_value = 1
        self.assertEqual(grade_one(settings, submission, tree, processes).status, MACHINE)


class SharedFolder(FolderCase):
    """Claims hold between processes, machines and containers that share a folder."""

    def setUp(self) -> None:
        super().setUp()
        self.claims = Claims(self.folder / "claims")
        self.addCleanup(self.claims.close)

    def foreign(self, name: str, **changes: str) -> Path:
        """A claim like ours, but for some of what it says."""
        self.assertTrue(self.claims.take(name))
        path = self.folder / "claims" / f"{name}.claim"
        path.write_text(json.dumps({**json.loads(path.read_text()), "id": "other", **changes}))
        return path

    def test_one_of_two_gets_it(self) -> None:
        other = Claims(self.folder / "claims")
        self.addCleanup(other.close)
        self.assertTrue(self.claims.take("anna"))
        self.assertFalse(other.take("anna"))
        self.assertIn(f"process {os.getpid()} on ", other.holder("anna"))
        other.release("anna")
        self.assertTrue(self.claims.holds("anna"))
        self.claims.release("anna")
        self.assertTrue(other.take("anna"))
        self.assertFalse(self.claims.holds("anna"))

    def test_a_process_that_has_ended(self) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        self.foreign("anna", pid=str(gone.pid))
        self.foreign("bert", start="1")
        for name in ("anna", "bert"):
            self.assertTrue(Claims(self.folder / "claims").take(name))

    def test_a_process_that_proc_hides(self) -> None:      # proc(5), hidepid
        other = Claims(self.folder / "claims")
        self.addCleanup(other.close)
        self.assertTrue(self.claims.take("anna"))
        with mock.patch("grader.classroom.claims._started", side_effect=FileNotFoundError):
            self.assertFalse(other.take("anna"))

    def test_another_machine_or_container(self) -> None:
        for changes in ({"boot": "b"}, {"host": "clone"}, {"namespace": "pid:[1]"},
                        {"boot": "b", "pid": "999999999"}):
            name = "-".join(changes)
            path = self.foreign(name, **changes)
            tree = self.claims.folder / name
            tree.mkdir()
            remove_stale(self.claims)
            self.assertTrue(tree.exists() and path.exists())
            os.utime(path, (0, path.stat().st_mtime - STALE_SECONDS - 60))
            remove_stale(self.claims)
            self.assertFalse(tree.exists() or path.exists())

    def test_a_container_that_sees_another_ones_processes(self) -> None:
        # Its number is that of no process, or of one that has nothing to do with it: only the age says more.
        for number in (999999999, os.getppid()):
            with self.subTest(number=number), mock.patch("os.getpid", return_value=number):
                inside = Claims(self.folder / "claims")
                inside.close()
                self.assertTrue(inside.take("anna"))
                path = self.folder / "claims" / "anna.claim"
                for claims in (Claims(self.folder / "claims"), self.claims):
                    self.assertFalse(claims.is_stale("anna"))
                os.utime(path, (0, path.stat().st_mtime - STALE_SECONDS - 60))
                for claims in (Claims(self.folder / "claims"), self.claims):
                    self.assertTrue(claims.is_stale("anna"))
                path.unlink()

    def test_a_claim_that_was_renewed_meanwhile_is_put_back(self) -> None:
        path = self.foreign("anna")
        before = path.read_text()
        ended = json.dumps({**json.loads(before), "pid": "999999999"})
        with mock.patch("grader.classroom.claims._content", side_effect=[ended, before]) as content:
            self.claims.remove_stale("anna")
        self.assertEqual(content.call_count, 2)      # the second time when it was aside
        self.assertEqual(path.read_text(), before)

    def test_ours_is_renewed(self) -> None:
        self.assertTrue(self.claims.take("anna"))
        path = self.folder / "claims" / "anna.claim"
        os.utime(path, (0, 0))
        self.claims.renew()
        self.assertGreater(path.stat().st_mtime, 0)

    def test_what_another_machine_has_graded_meanwhile_is_in_the_table(self) -> None:
        settings = Settings(LAB, 1, self.folder / "reports")
        submission = Submission("anna", self.folder / "anna")
        submission.path.mkdir()
        shutil.copy(SOLUTION, submission.path)

        def grade_all(*arguments: object) -> dict[str, Record]:
            key = settings.key(read(submission, LAB))
            tests = [TestScore("2.1-decode: all", 100, 100)]
            Record("anna", key, GRADED, "", 100, 100, tests).save(settings.folder(submission))
            return {"anna": not_graded(submission, "another process is grading it")}

        with mock.patch("grader.classroom.grade_class.grade_all", grade_all), \
                mock.patch("grader.classroom.grade_class.pick_backend"):
            [record] = grade_class(settings, [submission], 1, self.folder, mock.Mock())
        self.assertEqual((record.status, record.score), (GRADED, 100))

    def test_a_tree_without_a_claim_is_stale(self) -> None:
        (self.claims.folder / "left").mkdir()
        remove_stale(self.claims)
        self.assertFalse((self.claims.folder / "left").exists())


class Class(FolderCase):
    """A whole class, in the lab VM."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "grader.classroom.grade_class", "--lab", "2", "--submissions",
                str(self.folder / "in"), "--out", str(self.folder / "out"), *words]

    def grade(self, *words: str, **variables: str) -> tuple[int, str]:
        done = subprocess.run(self.command(*words), cwd=ROOT, env={**clean_environment(), **variables},
                              text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode == CANNOT_GRADE:
            self.skipTest(done.stdout.strip().splitlines()[-1])
        return done.returncode, done.stdout

    def records(self) -> dict[str, Record | None]:
        return {path.name: load(path) for path in (self.folder / "out" / "reports").iterdir()}

    def interrupt(self, number: int) -> None:
        """Starts the class and ends it by a signal while a submission is graded: nothing may be left."""
        with subprocess.Popen(self.command("--jobs", "1"), cwd=ROOT, env=clean_environment(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not any(" grade " in line for line in self.left()):
                time.sleep(0.05)
            process.send_signal(number)
            said = "".join(process.communicate(timeout=60))
        if process.returncode == CANNOT_GRADE:
            self.skipTest(said)
        self.assertEqual(process.returncode, 128 + number, said)
        end = time.monotonic() + 10
        while self.left() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.left(), [])
        for name in ("trees", "claims"):
            self.assertEqual(list((self.folder / "out" / name).iterdir()), [])

    def test_a_class_with_an_interruption(self) -> None:
        place = self.folder / "in"
        place.mkdir()
        broken = {name: file_name(name) for name in ("broken", os.fsdecode(b"ren\xe9"), "José", "a\x1b[2J")}
        for name in broken:
            (place / f"{name}.c").write_text("int x = ;\n")
        shutil.copy(SOLUTION, place / "right.c")
        (place / "outside.tar.gz").write_bytes(tar((f"../{NAME}", b"")))
        described = (DESCRIPTION, b'{"kit": "\\ud800"}')
        (place / "surrogate.zip").write_bytes(zipped(described, (NAME, b"int x = ;")))
        damaged = zipped((NAME, bytes(range(256)) * 9), method=zipfile.ZIP_LZMA)[:150]
        (place / "damaged.zip").write_bytes(damaged)
        hostile = ROOT / "grader/quality/cheats"
        (place / "hostile.c").write_text("".join(
            (hostile / name).read_text().replace('#include "lab2.h"', "").replace('#include "cheat.h"', "")
            for name in ("cheat.h", "lab2.h", "print_strings.c")))

        self.interrupt(signal.SIGTERM)
        self.interrupt(signal.SIGINT)
        self.assertNotIn("right", [name for name, record in self.records().items() if record])

        status, said = self.grade()
        self.assertNotIn("\x1b", said)
        records = self.records()
        if status == 1:
            self.skipTest(f"this machine could not grade them all: {said}")
        self.assertEqual(status, 0, said)
        got = {name: (record.status, record.score) for name, record in records.items() if record}
        wanted: dict[str, tuple[str, float]] = {name: (GRADED, 0) for name in (
            *broken.values(), "surrogate", "hostile")}
        wanted.update({"right": (GRADED, 100), "outside": (REFUSED, 0), "damaged": (REFUSED, 0)})
        self.assertEqual(got, wanted, said)
        self.assertTrue((self.folder / "out" / "index.html").exists())
        self.assertEqual(len((self.folder / "out" / "scores.csv").read_text().splitlines()), 1 + len(wanted))
        self.assertEqual(list((self.folder / "out" / "trees").iterdir()), [])

        marks = {path: path.stat().st_mtime_ns for path in (self.folder / "out").rglob("record.json")}
        (place / "broken.c").write_text("int x = ;;\n")
        status, said = self.grade()
        self.assertIn(f"{len(wanted) - 1} of {len(wanted)} were done before", said)
        changed = [path.parent.name for path, mark in marks.items() if path.stat().st_mtime_ns != mark]
        self.assertEqual(changed, ["broken"])

    def left(self) -> list[str]:
        """Programs at work in this class's trees."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(place / "cwd").startswith(str(self.folder)):
                    found.append((place / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def test_wrong_usage(self) -> None:
        (self.folder / "in").mkdir()
        self.assertEqual(self.grade()[0], 2)
        (self.folder / "in" / "anna.c").write_text("")
        self.assertEqual(self.grade("--only", "bert")[0], 2)
        self.assertEqual(self.grade("--list"), (0, "anna\n"))
        status, said = self.grade(SANITIZE="address")
        self.assertEqual(status, 2)
        self.assertIn(NO_SANITIZERS, " ".join(said.split()))

    def test_what_is_left_out_is_reported(self) -> None:
        place = self.folder / "in"
        place.mkdir()
        for name in ("x.rar", ".anna.c", ".DS_Store", "Thumbs.db", ".<b>\x1b[2J"):
            (place / name).write_text("")
        line = "Left out, as hidden or left there by a system: .<b>\\x1b[2J, .DS_Store, .anna.c, Thumbs.db"
        status, said = self.grade()
        self.assertIn(line, said.splitlines())
        self.assertIn(escape(line), (self.folder / "out" / "index.html").read_text())
        self.assertEqual(self.grade("--list"), (0, "x.rar\n"))
        for path in place.glob("[.T]*"):
            path.unlink()
        self.assertNotIn("Left out", self.grade()[1] + (self.folder / "out" / "index.html").read_text())

    def test_the_whole_class_has_one_seed(self) -> None:
        (self.folder / "in").mkdir()
        (self.folder / "in" / "x.rar").write_text("")
        self.grade()
        seed = json.loads((self.folder / "out" / "class.json").read_text())
        self.grade("--only", "x.rar")
        self.assertEqual(json.loads((self.folder / "out" / "class.json").read_text()), seed)
        self.grade("--seed", "7")
        self.assertEqual(json.loads((self.folder / "out" / "class.json").read_text()), {"seed": 7})


if __name__ == "__main__":
    unittest.main()
