"""What learners get: no answer in it, and all that they need."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import unittest
from pathlib import Path
from tempfile import mkdtemp
from unittest import mock

from grader.core.building import clean_environment
from grader.commands import handin
from grader.classroom.answers import leaks
from grader.classroom.release import make_release, pack_plain, released_files, stage
from grader.classroom.release_check import check
from grader.classroom.submissions import Submission, read
from grader.core.readable import file_name
from grader.core.version import blob_hash, kit_files, kit_version, tracked_files
from grader.course import BUILD, LABS, ROOT
from grader.core.exercises import skeleton


class ReleaseCase(unittest.TestCase):
    def setUp(self) -> None:
        if not tracked_files():
            self.skipTest("not a clone: git can't list the kit's files")
        (BUILD / "tests").mkdir(parents=True, exist_ok=True)
        self.folder = Path(mkdtemp(dir=BUILD / "tests"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def make(self, *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *words], cwd=folder, env=clean_environment(), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


class Release(ReleaseCase):
    def test_it_passes_its_own_check(self) -> None:
        tarball = make_release(list(LABS), "")
        with tarfile.open(tarball) as archive:
            names = archive.getnames()
        self.assertFalse([name for name in names if "mutants" in name or "cheats" in name or ".git/" in name])
        for lab in LABS.values():
            for path in lab.solution_files():
                place = path.with_suffix(".o").relative_to(ROOT)
                self.assertTrue([name for name in names if name.endswith(str(place))], place)

    def test_a_learner_who_is_stuck_goes_on_with_the_next_lab(self) -> None:
        kit = self.folder / "kit"
        stage(kit, "1.0-test")
        done = self.make("vmm", "LAB=3", folder=kit)
        self.assertEqual(done.returncode, 0, done.stdout)
        done = self.make("vmm", "LAB=3", "FROM=mine", folder=kit)
        self.assertEqual(done.returncode, 0, done.stdout)
        for target in ("kernel", "archive"):
            done = self.make(target, folder=kit)
            self.assertEqual(done.returncode, 0, done.stdout)
        shutil.rmtree(kit / "solutions" / LABS[3].folder)
        done = self.make("vmm", "LAB=3", folder=kit)
        self.assertEqual(done.returncode, 0, done.stdout)
        done = self.make("lab4", folder=kit)
        self.assertIn("vcpus.c is not here, nor its object", done.stdout)
        for words in (("diff", "LAB=2"), ("test",)):
            done = self.make(*words, folder=kit)
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn("elease", done.stdout)

    def test_no_link_is_dead(self) -> None:
        kit = self.folder / "kit"
        stage(kit, "1.0-test")
        texts = [kit / "README.md", *kit.glob("handouts/**/*.md")]
        self.assertIn("the instructor's guide", texts[0].read_text())
        for path in texts:
            for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
                place = target.partition("#")[0]
                self.assertTrue("://" in target or (path.parent / place).exists(), f"{path.name}: {target}")

    def test_the_same_files_make_the_same_tarball(self) -> None:
        for name in ("one", "two"):
            (self.folder / name / "kit").mkdir(parents=True)
            (self.folder / name / "kit" / "file").write_text("text")
        self.assertEqual(pack_plain(self.folder / "one" / "kit"), pack_plain(self.folder / "two" / "kit"))

    def test_the_check_finds_forbidden_files(self) -> None:
        kit = self.folder / "kit"
        stage(kit, "1.0-test")
        self.assertEqual(leaks(kit), [])
        solution = LABS[3].solution_files()[0]
        for name, text in (("handouts/notes.md", solution.read_text()),
                           ("grader/old.txt", "\n\n".join(solution.read_text().splitlines())),
                           ("guests/x.c", "    /* answer 3.1 */\n")):
            (kit / name).write_text(text)
            self.assertTrue([fault for fault in leaks(kit) if fault.startswith(name)], name)
            (kit / name).unlink()
        (kit / "solutions" / "x.c").write_text("")
        (kit / ".git").mkdir()
        tarball = self.folder / "kit.tar"
        tarball.write_bytes(pack_plain(kit))
        found = "\n".join(check(tarball, [], ""))
        for words in (".git does not belong", "x.c is a solution's source"):
            self.assertIn(words, found)

    def test_every_tracked_file_is_known_to_the_release(self) -> None:
        """Each new folder of the grader needs a decision here: is it for learners?"""
        folders = {name.split("/")[1] for name in released_files() if name.count("/") > 1
                   and name.startswith("grader/")}
        for_learners = {"core", "execution", "labs", "report", "commands", "handouts"}
        self.assertEqual(folders - for_learners, set())
        variants = [name for name in released_files() if "/mutants/" in name or "/alternatives/" in name]
        self.assertEqual(variants, [])


class Packages(ReleaseCase):
    def test_a_class_grading_reads_what_is_packed(self) -> None:
        target = self.folder / "anna.tar.gz"
        graded = {"score": 41, "tests": [{"name": "2.1-decode: x", "score": 6}], "extra_data": {"seed": 7}}
        handin.pack(LABS[2], target, handin.about(LABS[2], "anna", graded))
        taken = read(Submission("anna", target), LABS[2])
        self.assertEqual(taken.kit, kit_version())
        self.assertEqual(taken.files, {"hypercall.c": LABS[2].learner_files()[0].read_bytes()})
        with tarfile.open(target) as archive:
            self.assertEqual(sorted(archive.getnames()), ["handin.json", "lab2-hypercalls/hypercall.c"])
            file = archive.extractfile("handin.json")
            assert file
            told = json.load(io.TextIOWrapper(file))
        self.assertEqual((told["score"], told["seed"], told["lab"]), (41, 7, 2))

    def test_what_the_files_include_is_packed_and_graded(self) -> None:
        kit = self.folder / "kit"
        for folder in ("labs/lab2-hypercalls", "common/contract"):
            (kit / folder).mkdir(parents=True)
        module = kit / "labs/lab2-hypercalls/hypercall.c"
        module.write_text('#include "lab2.h"\n#include "helper.h"\n # include "mine.h"\n#include "none.h"\n')
        (module.parent / "helper.h").write_text('#include "deeper.h"\n')
        (module.parent / "deeper.h").write_text("#define DEEPER 1\n")
        (kit / "common/contract/mine.h").write_text("#define MINE 1\n")
        (kit / "common/contract/lab2.h").write_text("#define CHANGED 1\n")
        lab = mock.Mock(wraps=LABS[2], folder=LABS[2].folder, number=2, learner_files=lambda: [module])
        target = self.folder / "anna.tar.gz"
        with mock.patch("grader.commands.handin.ROOT", kit):
            handin.pack(lab, target, {})
            notes = handin.own_headers(lab)[1]
        self.assertEqual(read(Submission("anna", target), LABS[2]).headers, {
            "helper.h": b'#include "deeper.h"\n', "deeper.h": b"#define DEEPER 1\n",
            "mine.h": b"#define MINE 1\n"})
        self.assertEqual(len(notes), 1)
        self.assertIn("common/contract/lab2.h was changed here", notes[0])

    def test_a_release_knows_its_headers(self) -> None:
        kit = self.folder / "kit"
        stage(kit, "1.0-test")
        with mock.patch("grader.core.version.HASHES", kit / "grader/HEADERS"):
            found = kit_files()
        self.assertEqual(found["common/contract/lab2.h"],
                         blob_hash((ROOT / "common/contract/lab2.h").read_bytes()))
        self.assertTrue(all((kit / name).exists() for name in found))

    def test_no_two_names_have_one_package(self) -> None:
        self.assertEqual(len({file_name(name) for name in ("李明", "王芳", "A b", "A-b", "")}), 5)

    def test_the_command(self) -> None:
        command = [sys.executable, "-m", "grader.commands.handin", "--lab", "2", "--name", "A b/../c"]
        done = subprocess.run(command, cwd=ROOT, env=clean_environment(), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        target = BUILD / "handin" / f"lab2-{file_name('A b/../c')}.tar.gz"
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn(f"{target.name} holds hypercall.c\n", done.stdout)
        self.assertTrue(target.exists())
        target.unlink()

    def test_skeletons_of_a_release_are_fresh(self) -> None:
        kit = self.folder / "kit"
        stage(kit, "1.0-test")
        for lab in LABS.values():
            for solution, learner in zip(lab.solution_files(), lab.learner_files()):
                self.assertEqual((kit / learner.relative_to(ROOT)).read_text(),
                                 skeleton(solution.read_text(), solution.name))


if __name__ == "__main__":
    unittest.main()
