"""The reader of submissions: right work is found wherever it was packed; what is hostile or damaged is
refused within bounds; what this machine can't read is never the learner's fault."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import unittest
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

from grader.classroom import archives
from grader.classroom.archives import Refused
from grader.classroom.submissions import Contents, Submission, find, read
from grader.core.strange_files import FILE_MAX
from grader.core.building import clean_environment
from grader.course import BUILD, LABS, ROOT
from grader.execution.runs import CannotGrade
from grader.quality import fuzz_reader
from grader.quality.tests.packing import tar, zipped

LAB = LABS[2]
NAME = LAB.files[0]
IN_FOLDER = f"{LAB.folder}/{NAME}"
MODULE = b'#include "lab2.h"\nint x;\n'
MUTATIONS = 400


class ReaderCase(unittest.TestCase):
    def setUp(self) -> None:
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def read(self, content: bytes, name: str = "x.tar.gz") -> Contents:
        path = self.folder / name
        path.write_bytes(content)
        return read(Submission("x", path), LAB)

    def refusal(self, content: bytes, name: str = "x.tar.gz") -> str:
        with self.assertRaises(Refused) as caught:
            self.read(content, name)
        return str(caught.exception)

    def lay(self, *names: str, content: bytes = MODULE) -> Submission:
        """A folder with these files."""
        for name in names:
            path = self.folder / "anna" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Submission("anna", self.folder / "anna")


class RightWork(ReaderCase):
    def test_the_file_itself_under_any_name(self) -> None:
        for name in ("hypercall.c", "anna.c", "HYPERCALL.C", "handin.tar.gz", "submission", "x.zip"):
            with self.subTest(name=name):
                self.assertEqual(self.read(MODULE, name).files, {NAME: MODULE})

    def test_each_format(self) -> None:
        packed = {f"zip {method}": zipped((IN_FOLDER, MODULE), method=method) for method in (
            zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)}
        packed.update({mode: tar((IN_FOLDER, MODULE), mode=mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")})
        long = "/".join(["d" * 90] * 3)
        packed.update({f"tar {number}": self.long_tar(f"{long}/{NAME}", number)
                       for number in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)})
        half = len(packed["w"]) // 2
        packed["two gzip members"] = gzip.compress(packed["w"][:half]) + gzip.compress(packed["w"][half:])
        packed["two bzip2 streams"] = bz2.compress(packed["w"][:half]) + bz2.compress(packed["w"][half:])
        for what, content in packed.items():
            with self.subTest(what=what):
                self.assertEqual(self.read(content).files, {NAME: MODULE})

    def long_tar(self, name: str, form: int) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
            for path in ("ä" * 90 + "/x", name):
                entry = tarfile.TarInfo(path)
                entry.size = len(MODULE)
                archive.addfile(entry, io.BytesIO(MODULE))
        return packed.getvalue()

    def test_one_nested_level(self) -> None:
        inner = (tar((IN_FOLDER, MODULE)), zipped((NAME, MODULE)))
        for content in inner:
            for name in ("hw.zip", "lab2-anna.tar.gz", "HW2.TGZ"):
                with self.subTest(name=name):
                    self.assertEqual(self.read(zipped((f"hw/{name}", content))).files, {NAME: MODULE})
                    self.assertEqual(self.read(tar((name, content), ("note.txt", b""))).files, {NAME: MODULE})
        folder = self.lay("Anna_123_assignsubmission_file_/hw2.zip", content=inner[0])
        self.assertEqual(read(folder, LAB).files, {NAME: MODULE})
        self.assertIn("a.zip", self.refusal(zipped(("b.zip", zipped(("a.zip", inner[1]))))))

    def test_what_gradescope_unpacks_beside_the_package(self) -> None:
        self.assertEqual(read(self.lay("lab2-anna.tar.gz", content=tar(
            ("handin.json", b'{"lab": 2, "kit": "1.0-abc"}'), (IN_FOLDER, MODULE))), LAB).kit, "1.0-abc")

    def test_capitals(self) -> None:
        self.assertEqual(self.read(zipped(("HYPERCALL.C", MODULE))).files, {NAME: MODULE})
        self.assertEqual(self.read(zipped(("HYPERCALL.C", b"old"), (NAME, MODULE))).files, {NAME: MODULE})

    def test_a_whole_kit(self) -> None:
        kit = [f"kit/labs/{IN_FOLDER}", "kit/Makefile", "kit/handin.c"]
        others = [f"kit/solutions/{IN_FOLDER}", f"kit/build/{IN_FOLDER}", f"kit/.git/{IN_FOLDER}",
                  f"kit/grader/labs/{LAB.folder}/units/{NAME}", f"kit/backup/{NAME}", f"__MACOSX/{NAME}",
                  f"kit/labs/{LAB.folder}/._{NAME}"]
        objects = [(f"kit/build/objects/{number}.o", bytes(2000)) for number in range(2445)]
        entries = [(name, MODULE) for name in kit] + [(name, b"int other;") for name in others] + objects
        self.assertEqual(self.read(tar(*entries)).files, {NAME: MODULE})
        self.assertEqual(self.read(zipped(*entries)).files, {NAME: MODULE})
        self.assertEqual(self.read(tar(*entries, mode="w")).files, {NAME: MODULE})
        self.lay(*others, content=b"int other;")
        self.assertEqual(read(self.lay(*kit), LAB).files, {NAME: MODULE})

    def test_headers_beside_the_module(self) -> None:
        found = self.read(tar((f"a/{NAME}", MODULE), ("a/helper.h", b"int help;"), ("b/other.h", b"no")))
        self.assertEqual((found.files, found.headers), ({NAME: MODULE}, {"helper.h": b"int help;"}))

    def test_headers_that_no_machine_could_store(self) -> None:
        for name in ("h" * 300 + ".h", os.fsdecode(b"ren\xe9.h"), "$(touch x)\n.h"):
            with self.subTest(name=name[:20]):
                found = self.read(tar((NAME, MODULE), ("helper.h", b"int help;"), (name, b"no")))
                self.assertEqual(found.headers, {"helper.h": b"int help;"})
        many = [(f"a{number}.h", b"int a;") for number in range(101)]
        self.assertIn("more than 100 headers", self.refusal(tar((NAME, MODULE), *many)))

    def test_both_files_of_a_lab(self) -> None:
        path = self.folder / "x.zip"
        path.write_bytes(zipped(("boot.c", b"int a;"), ("sched.zip", zipped(("sched.c", b"int b;")))))
        self.assertEqual(read(Submission("x", path), LABS[6]).files,
                         {"boot.c": b"int a;", "sched.c": b"int b;"})

    def test_a_description_that_makes_no_sense_is_passed_over(self) -> None:
        for text in (b'{"kit": "\\ud800", "lab": 2}', b'{"lab": "\\ud800"}', b"[1]", b"{", b"\xff",
                     b'{"lab": [2]}', b"[" * 100_000, b'{"lab": 1' + b"0" * 10_000 + b"}"):
            with self.subTest(text=text[:20]):
                content = tar(("handin.json", text), (NAME, MODULE))
                try:
                    self.assertEqual(self.read(content).files, {NAME: MODULE})
                except Refused as refused:
                    self.assertIn("packed for lab 10", str(refused))


class Names(ReaderCase):
    def test_names_that_are_not_utf_8(self) -> None:
        latin = os.fsdecode(b"ren\xe9.c")
        (self.folder / latin).write_bytes(MODULE)
        [submission] = find(self.folder)
        self.assertEqual(read(submission, LAB).files, {NAME: MODULE})
        (self.folder / latin).unlink()
        self.assertEqual(read(self.lay(NAME, latin), LAB).files, {NAME: MODULE})
        for content in (tar((NAME, MODULE), (latin, b"")), tar((latin, b""), mode="w")):
            try:
                self.assertEqual(self.read(content).files, {NAME: MODULE})
            except Refused as refused:
                self.assertIn("ren", str(refused))

    def test_files_that_systems_leave_behind_are_not_submissions(self) -> None:
        for name in ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden", "anna.c"):
            (self.folder / name).write_text("")
        self.assertEqual([submission.name for submission in find(self.folder)], ["anna"])

    def test_no_two_submissions_have_one_name(self) -> None:
        for name in ("anna.c", "anna.zip", "bert.c", "al.zip.c", "al.c", "al.zip", "al", "b.tar.gz", "b.tar"):
            (self.folder / name).write_text("")
        names = [submission.name for submission in find(self.folder)]
        self.assertEqual(len(set(names)), 9, names)
        self.assertIn("bert", names)


class Hostile(ReaderCase):
    def test_what_is_refused_and_why(self) -> None:
        link, device = (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.CHRTYPE, "")
        cases = {
            "leads out": tar((f"../{NAME}", b"")), "leads out of": tar((f"/tmp/{NAME}", b"")),
            "is a link": tar(hypercall_c=link), "a device": tar(hypercall_c=device),
            "is not in it": tar(("vm.c", b"")),
            "a/hypercall.c, b/hypercall.c": tar((f"a/{NAME}", b"1;"), (f"b/{NAME}", b"2;")),
            "neither an archive": b"Rar!", "can't be read": b"\x1f\x8b\x08garbage", "for lab 3": tar(
                ("handin.json", b'{"lab": 3}'), (NAME, b"")),
            "not text": tar((NAME, b"\0")), "KB": tar((NAME, b"x" * (FILE_MAX + 1))),
            "UTF-16": tar((NAME, "int x;".encode("utf-16"))), "link or": zipped(
                (NAME, b"/etc/passwd"), mode=stat.S_IFLNK | 0o777),
            "folders in one another": tar(("/".join("x" * 50), b"")),
            "a name of more than": tar(("y" * 2000, b"")), "it is empty": zipped(("", b"")),
        }
        for words, content in cases.items():
            with self.subTest(words=words):
                self.assertIn(words.partition(" of")[0], self.refusal(content))

    def test_the_message_names_what_was_found(self) -> None:
        content = zipped(("notes/todo.txt", b""), ("hw.zip", b"Rar!"))
        self.assertIn("hw.zip, notes/todo.txt", self.refusal(content))

    def test_damage_is_refused(self) -> None:
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            whole = bytearray(zipped((NAME, os.urandom(3000).hex().encode()), method=method))
            whole[60:80] = bytes(20)
            with self.subTest(method=method):
                self.assertIn("can't be read", self.refusal(bytes(whole)))
        encrypted = bytearray(zipped((NAME, MODULE)))
        encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
        self.assertIn("encrypted", self.refusal(bytes(encrypted)))
        self.assertIn("can't be read", self.refusal(tar((NAME, os.urandom(3000).hex().encode()))[:1000]))

    def test_folders(self) -> None:
        (self.folder / "bert").mkdir()
        (self.folder / "bert" / NAME).symlink_to("/etc/passwd")
        (self.folder / "carl").symlink_to("anna")
        (self.folder / "dora").mkdir()
        os.mkfifo(self.folder / "dora" / NAME)
        os.mkfifo(self.folder / "emil.c")
        for submission in find(self.folder):
            with self.subTest(name=submission.name), self.assertRaisesRegex(Refused, "link|neither"):
                read(submission, LAB)


class Bounds(ReaderCase):
    """What exceeds a bound is refused, within its memory. The bounds are smaller here, to be quick."""

    UNPACKED, KEPT, ENTRIES, HEADER = 24 << 20, 4 << 20, 500, 40_000
    SCRIPT = ("import resource, sys; from pathlib import Path; from grader.classroom import archives\n"
              "from grader.classroom.submissions import *; from grader.course import LABS\n"
              "for name, value in zip(('UNPACKED', 'KEPT', 'ENTRIES', 'HEADER'), sys.argv[2:]):\n"
              "    setattr(archives, f'{name}_MAX', int(value))\n"
              "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
              "try: print(read(Submission('x', Path(sys.argv[1])), LABS[2]))\n"
              "except Refused as error: print(error)\n"
              "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n")

    def bounded(self, content: bytes, words: str) -> None:
        path = self.folder / "x"
        path.write_bytes(content)
        bounds = (self.UNPACKED, self.KEPT, self.ENTRIES, self.HEADER)
        done = subprocess.run([sys.executable, "-c", self.SCRIPT, str(path), *map(str, bounds)], cwd=ROOT,
                              env=clean_environment(), text=True, stdout=subprocess.PIPE, check=True)
        said, kilobytes = done.stdout.splitlines()
        self.assertIn(words, said)
        self.assertLess(int(kilobytes) << 10, self.UNPACKED)

    def test_many_files(self) -> None:
        files = [(f"{number}/{NAME}", b"a" * FILE_MAX) for number in range(40)]
        self.bounded(zipped(*files), "sources and archives")
        self.bounded(tar(*files), "sources and archives")

    def test_one_large_file_in_each_compression(self) -> None:
        large = b"\0" * (self.UNPACKED // 2)
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            with self.subTest(method=method):
                self.bounded(zipped((NAME, large), method=method), "KB")
                content = bytearray(zipped((NAME, large), method=method))
                at = content.index(b"PK\1\2") + 24
                content[at:at + 4] = (100).to_bytes(4, "little")     # the directory lies about its size
                self.bounded(bytes(content), "KB")
        for mode in ("w:gz", "w:bz2", "w:xz"):
            self.bounded(tar(("a", large), ("b", large), ("c", large), mode=mode), "unpacks to more than")

    def test_entries(self) -> None:
        many = self.ENTRIES + 2
        self.bounded(tar(*((f"{number}", b"") for number in range(many))), "entries")
        self.bounded(zipped(*((f"{number}", b"") for number in range(many))), "entries")
        self.bounded(gzip.compress(b"") * many, "entries")
        directory = (b"PK\1\2" + bytes(42)) * (self.HEADER // 46 + 2)
        self.bounded(b"PK\3\4" + directory + b"PK\5\6" + bytes(4) + b"\xff" * 4
                     + len(directory).to_bytes(4, "little") + bytes(6), "directory of too many entries")

    def test_an_endless_pax_header(self) -> None:
        entry = tarfile.TarInfo("x")
        entry.type, entry.size = tarfile.XHDTYPE, 1 << 40
        self.bounded(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), "header")
        records = b"5 a=\n" * (self.HEADER // 5 - 1)
        entry.size = len(records)
        content = entry.tobuf(tarfile.GNU_FORMAT) + records + bytes(-len(records) % 512 + 512)
        self.bounded(content, "it is empty")

    def test_time(self) -> None:
        with mock.patch.object(archives, "SECONDS_MAX", -1.0):
            self.assertIn("seconds", self.refusal(tar((NAME, MODULE))))


class ThisMachinesFault(ReaderCase):
    def as_nobody(self, action: Callable[[], None]) -> None:
        """Does it as a user who has no rights, in a process of its own."""
        child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setresuid(65534, 65534, 65534)
                action()
                os._exit(0)
            except BaseException:
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_what_may_not_be_read(self) -> None:
        place = Path(mkdtemp(prefix="mini-kvm-test-"))
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        (place / "anna.c").write_bytes(MODULE)
        (place / "bert").mkdir()
        (place / "carl").mkdir()
        (place / "carl" / NAME).write_bytes(MODULE)
        place.chmod(0o755)
        for path, mode in (("anna.c", 0), ("bert", 0), (f"carl/{NAME}", 0)):
            (place / path).chmod(mode)

        def check() -> None:
            for submission in find(place):
                with self.assertRaisesRegex(CannotGrade, "can't be read: Permission denied"):
                    read(submission, LAB)
        self.as_nobody(check)

    def test_a_folder_that_may_not_be_read_beside_the_file(self) -> None:
        place = Path(mkdtemp(prefix="mini-kvm-test-"))
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        (place / "anna/notes").mkdir(parents=True)
        (place / "anna" / NAME).write_bytes(MODULE)
        place.chmod(0o755)
        (place / "anna/notes").chmod(0)

        def check() -> None:
            self.assertEqual(read(Submission("anna", place / "anna"), LAB).files[NAME], MODULE)
        self.as_nobody(check)

    def test_an_error_of_the_disk(self) -> None:
        with mock.patch("os.open", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))):
            with self.assertRaises(CannotGrade):
                read(Submission("x", self.folder / "x"), LAB)


class Fuzz(ReaderCase):
    def test_a_part_of_the_fuzzing(self) -> None:
        """All of it, 20,000: python3 -m grader.quality.fuzz_reader"""
        self.assertEqual(fuzz_reader.fuzz(self.folder, MUTATIONS, seed=1), [])


if __name__ == "__main__":
    unittest.main()
