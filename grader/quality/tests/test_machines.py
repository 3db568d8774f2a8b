"""`make machines`: the namespaces of enter.sh, and how a row is reported."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from grader.course import BUILD, LABS, ROOT
from grader.quality.machines import ROWS, main, summary

# Enters a throw-away copy of this machine's own root.
ENTERS = """
import sys
from pathlib import Path
from grader.quality.machines import enter
sys.exit(enter(Path("/"), sys.argv[2:], scratch=sys.argv[1]))
"""


# What enter.sh needs: root's rights, which a container may lack, and overlayfs over this machine's root.
MOUNTS = ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", """
    mount -t tmpfs none /mnt
    mkdir /mnt/changes /mnt/work /mnt/root
    mount -t overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work none /mnt/root
"""]


class Enter(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        done = subprocess.run(MOUNTS, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise unittest.SkipTest("overlayfs can't be mounted here: " + done.stdout.strip())

    def setUp(self) -> None:
        BUILD.mkdir(exist_ok=True)
        self.scratch = tempfile.mkdtemp(dir=BUILD)
        self.addCleanup(os.rmdir, self.scratch)

    def start(self, script: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", ENTERS, self.scratch, "sh", "-c", script], cwd=ROOT,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def test_the_root_is_a_copy_with_devices_and_processes_of_its_own(self) -> None:
        written = Path("/written-by-test-machines")
        process = self.start(f"""set -e
            echo > {written}
            test -c /dev/null
            test ! -e /dev/kvm
            unshare --user true
            ls -d /proc/[0-9]* | wc -l
            exit 7""")
        output, _ = process.communicate()
        self.assertEqual(process.returncode, 7, output)
        self.assertLess(int(output), 12)
        self.assertFalse(written.exists())
        self.assertNotIn(self.scratch, Path("/proc/self/mounts").read_text())

    def test_it_ends_when_its_parent_is_killed(self) -> None:
        process = self.start("setsid sh -c 'echo started; exec sleep 1000'")
        assert process.stdin and process.stdout
        self.assertEqual(process.stdout.readline(), "started\n")
        process.kill()
        self.assertEqual(process.stdout.read(), "")     # comes when the last process inside is gone
        process.wait()
        process.stdin.close()
        process.stdout.close()


class Report(unittest.TestCase):
    def test_a_rows_output_comes_to_a_line(self) -> None:
        labs = len(LABS)
        self.assertEqual(summary("Score: 100 of 100\n" * (labs - 1) + "Score: 97 of 100\n"
                                 "[1/3] ok   a.py  1 passed  1.0 s\n"
                                 "[2/3] FAIL b.py  2 passed, 1 failed  2.0 s\n[3/3] ERR  c.py  1 passed\n"
                                 "4 passed, 1 failed, 2 skipped\n"),
                         f"{labs - 1} of {labs} solutions have 100; "
                         "4 passed, 1 failed, 2 skipped (b.py, c.py)")
        self.assertEqual(summary("cannot grade\n"), f"0 of {labs} solutions have 100; make test did not end")

    def test_an_unknown_row_is_named(self) -> None:
        done = subprocess.run([sys.executable, "-m", "grader.quality.machines", "debian99"], cwd=ROOT,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown row debian99", done.stdout)
        for name in ROWS:
            self.assertIn(name, done.stdout)

    def test_a_missing_tool_is_no_failure_of_a_row(self) -> None:
        with mock.patch("os.geteuid", return_value=0), mock.patch("shutil.which", return_value=None), \
                contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(main(["debian13"]), 2)
        self.assertIn("apt-get install debootstrap", said.getvalue())


if __name__ == "__main__":
    unittest.main()
