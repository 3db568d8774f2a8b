"""Grading a class: strangers' files are read safely, nothing is lost, no machine is a learner's fault."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import unittest
import zipfile
from pathlib import Path
from tempfile import mkdtemp

from grader.core.building import clean_environment
from grader.classroom.class_page import write_page
from grader.classroom.compiling import CompileError, compile_file
from grader.classroom.record import GRADED, MACHINE, REFUSED, Record, TestScore, folder_name, load
from grader.classroom.scores import most_failed, spread, write_csv
from grader.classroom.submissions import FILE_MAX, UNPACKED_MAX, HandIn, Refused, Submission, find, read
from grader.course import BUILD, LABS, ROOT
from grader.execution.runs import CannotGrade

LAB = LABS[2]
NAME = LAB.files[0]
SOLUTION = LAB.solution_files()[0]
CANNOT_GRADE = 3


class FolderCase(unittest.TestCase):
    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)


def tar(*entries: tuple[str, bytes], **special: tuple[bytes, str]) -> bytes:
    """A tar.gz; `special` entries have a type and what they link to."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, (kind, link) in special.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.type, entry.linkname = kind, link
            archive.addfile(entry)
    return packed.getvalue()


def zipped(name: str, content: bytes, mode: int = 0o100644) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return packed.getvalue()


class Reading(FolderCase):
    def read(self, name: str, content: bytes) -> HandIn:
        path = self.folder / name
        path.write_bytes(content)
        return read(Submission("x", path), LAB)

    def test_what_is_taken(self) -> None:
        for name, content in (("a.c", b"int x;"), ("a.zip", zipped(f"{LAB.folder}/{NAME}", b"int x;")),
                              ("a.tar.gz", tar((NAME, b"int x;"))),
                              ("b.tar", gzip.decompress(tar((f"x/{LAB.folder}/{NAME}", b"int x;")))),
                              ("c.tgz", tar((f"old/{NAME}", b"old"), (f"{LAB.folder}/{NAME}", b"int x;"),
                                            ("Makefile", b"all: evil"), ("grader/core/judge.py", b"evil")))):
            with self.subTest(name=name):
                self.assertEqual(self.read(name, content).files, {NAME: b"int x;"})

    def test_what_is_refused_and_why(self) -> None:
        link, device = (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.CHRTYPE, "")
        cases = {
            "leads out": tar((f"../{NAME}", b"")), "leads out of": tar((f"/tmp/{NAME}", b"")),
            "is a link": tar(hypercall_c=link), "a device": tar(hypercall_c=device),
            "is not in it": tar(("vm.c", b"")), "which one": tar((f"a/{NAME}", b""), (f"b/{NAME}", b"")),
            "no archive": b"Rar!", "can't be read": b"\x1f\x8b\x08garbage", "for lab 3": tar(
                ("handin.json", b'{"lab": 3}'), (NAME, b"")),
            "no text": tar((NAME, b"\0")), "KB": tar((NAME, b"x" * (FILE_MAX + 1))),
            "unpacks to more": gzip.compress(bytes(UNPACKED_MAX + 1)),
            "entries": tar(*((f"{number}", b"") for number in range(2001))),
            "link or": zipped(NAME, b"/etc/passwd", stat.S_IFLNK | 0o777),
        }
        for words, content in cases.items():
            with self.subTest(words=words), self.assertRaises(Refused) as caught:
                self.read("x.tar.gz", content)
            with self.subTest(words=words):
                self.assertIn(words.partition(" of")[0], str(caught.exception))

    def test_a_pax_header_of_gigabytes_is_never_read(self) -> None:
        entry = tarfile.TarInfo("x")
        entry.type, entry.size = tarfile.XHDTYPE, 1 << 40
        with self.assertRaises(Refused):
            self.read("x.tar.gz", gzip.compress(entry.tobuf() + bytes(1024)))

    def test_folders(self) -> None:
        (self.folder / "anna" / "deep").mkdir(parents=True)
        (self.folder / "anna" / "deep" / NAME).write_text("int x;")
        (self.folder / "bert").mkdir()
        (self.folder / "bert" / NAME).symlink_to("/etc/passwd")
        (self.folder / "carl").symlink_to("anna")
        (self.folder / ".hidden").write_text("")
        found = {submission.name: submission for submission in find(self.folder)}
        self.assertEqual(sorted(found), ["anna", "bert", "carl"])
        self.assertEqual(read(found["anna"], LAB).files, {NAME: b"int x;"})
        for name in ("bert", "carl"):
            with self.assertRaisesRegex(Refused, "link"):
                read(found[name], LAB)

    def test_names_that_collide_stay_apart(self) -> None:
        for name in ("anna.c", "anna.zip", "bert.c"):
            (self.folder / name).write_text("")
        self.assertEqual([s.name for s in find(self.folder)], ["anna.c", "anna.zip", "bert"])
        self.assertEqual(len({folder_name(name) for name in ("a b", "a_b", "a/b", "..", ".", "ä")}), 6)
        for name in ("../x", "..", "a/b", "x" * 300, ""):
            self.assertRegex(folder_name(name), r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")


class Compiling(unittest.TestCase):
    def refused(self, text: bytes) -> str:
        try:
            with self.assertRaises(CompileError) as caught:
                compile_file(2, NAME, text)
        except CannotGrade as error:
            self.skipTest(error.reason)
        return str(caught.exception)

    def test_the_compiler_sees_nothing_of_this_machine(self) -> None:
        for path in ("/etc/passwd", "/proc/self/environ", "/dev/zero", str(ROOT / "Makefile"),
                     f"../../solutions/{LAB.folder}/{NAME}"):
            said = self.refused(b'#include "%s"\n' % path.encode())
            self.assertIn("No such file", said)
            self.assertNotIn("root:", said)
        self.assertIn("not found", self.refused(b'__asm__(".incbin \\"/etc/passwd\\"");'))

    def test_the_compilers_words_reach_the_learner(self) -> None:
        self.assertIn(f"{LAB.folder}/{NAME}:1:", self.refused(b"int x"))


class Telling(FolderCase):
    RECORDS = [
        Record("anna", "k", GRADED, "", 90, 100,
               [TestScore("2.1-a: one", 90, 90), TestScore("2.2-b: two", 0, 10)]),
        Record("=HYPERLINK(1)", "k", GRADED, "does not compile", 0, 100,
               [TestScore("2.1-a: one", 0, 90), TestScore("2.2-b: two", 0, 10)]),
        Record("<script>x</script>", "", REFUSED, "<b>it is a link"),
        Record("dora", "k", MACHINE, "QEMU ended"),
    ]

    def test_csv(self) -> None:
        write_csv(self.RECORDS, self.folder / "scores.csv")
        rows = list(csv.DictReader((self.folder / "scores.csv").read_text().splitlines()))
        self.assertEqual([row["score"] for row in rows], ["90", "0", "", ""])
        self.assertEqual([row["status"] for row in rows], [GRADED, GRADED, REFUSED, MACHINE])
        self.assertEqual(rows[0]["2.1-a"], "90")
        self.assertEqual(rows[1]["name"], "'=HYPERLINK(1)")

    def test_numbers(self) -> None:
        self.assertEqual(most_failed(self.RECORDS), [("2.2-b: two", 2), ("2.1-a: one", 1)])
        self.assertEqual(spread(self.RECORDS), [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])

    def test_page(self) -> None:
        write_page(LAB, 7, self.RECORDS, self.folder / "index.html")
        page = (self.folder / "index.html").read_text()
        self.assertNotIn("<script>", page)
        self.assertNotIn("<b>", page)
        self.assertNotRegex(page, r"https?://")
        self.assertIn("QEMU ended", page)
        self.assertIn("2 graded; 1 refused; 1 could not be graded", page)
        self.assertLess(page.index("not a score of 0"), page.index("Refused"))

    def test_a_record_is_kept_whole_or_not_at_all(self) -> None:
        self.RECORDS[0].save(self.folder)
        self.assertEqual(load(self.folder), self.RECORDS[0])
        for text in ("", "{", "[]", '{"tests": [1]}'):
            (self.folder / "record.json").write_text(text)
            self.assertIsNone(load(self.folder))


class Class(FolderCase):
    """A whole class, in the lab VM."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "grader.classroom.grade_class", "--lab", "2", "--submissions",
                str(self.folder / "in"), "--out", str(self.folder / "out"), *words]

    def grade(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(self.command(*words), cwd=ROOT, env=clean_environment(), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode == CANNOT_GRADE:
            self.skipTest(done.stdout.strip().splitlines()[-1])
        return done.returncode, done.stdout

    def records(self) -> dict[str, Record | None]:
        return {path.name: load(path) for path in (self.folder / "out" / "reports").iterdir()}

    def test_a_class_with_an_interruption(self) -> None:
        hand_ins = self.folder / "in"
        hand_ins.mkdir()
        shutil.copy(SOLUTION, hand_ins / "right.c")
        (hand_ins / "broken.c").write_text("int x = ;\n")
        (hand_ins / "outside.tar.gz").write_bytes(tar((f"../{NAME}", b"")))
        hostile = ROOT / "grader/quality/cheats"
        (hand_ins / "hostile.c").write_text("".join(
            (hostile / name).read_text().replace('#include "lab2.h"', "").replace('#include "cheat.h"', "")
            for name in ("cheat.h", "lab2.h", "print_strings.c")))

        process = subprocess.Popen(self.command("--jobs", "1"), cwd=ROOT, env=clean_environment(), text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout and process.stderr
        first = process.stdout.readline()
        if not first and process.wait() == CANNOT_GRADE:
            self.skipTest(process.stderr.read())
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 130, process.stderr.read())
        process.stdout.close()
        process.stderr.close()
        self.assertEqual(self.left(), [])
        self.assertEqual([name for name, record in self.records().items() if record], ["broken"], first)

        status, said = self.grade()
        self.assertIn("done before", said)
        records = self.records()
        if any(record and record.status == MACHINE for record in records.values()):
            self.skipTest(f"this machine could not grade them all: {said}")
        self.assertEqual(status, 0, said)
        got = {name: (record.status, record.score) for name, record in records.items() if record}
        self.assertEqual(got, {"right": (GRADED, 100), "broken": (GRADED, 0), "hostile": (GRADED, 0),
                               "outside": (REFUSED, 0)}, said)
        self.assertTrue((self.folder / "out" / "index.html").exists())
        self.assertEqual(len((self.folder / "out" / "scores.csv").read_text().splitlines()), 5)
        self.assertEqual(list((self.folder / "out" / "trees").iterdir()), [])

        marks = {path: path.stat().st_mtime_ns for path in (self.folder / "out").rglob("record.json")}
        (hand_ins / "broken.c").write_text("int x = ;;\n")
        status, said = self.grade()
        self.assertIn("3 of 4 were done before", said)
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
