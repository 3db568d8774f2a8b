"""Classroom 50's autograder for a lab: grades the student's checkout and writes ./result.json.

The contract is that of the page "Advanced Autograding" in foundation50/classroom50's wiki: this is started in
the checkout, with kit.tar.gz and lab beside it; exit status 0 when it has graded, whatever the score; any
other is an infrastructure error, and there is no result.json then. All of the checkout is the student's, so
only result.json is written there, last, in the place of whatever the student has under this name.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = Path.cwd()
RESULT = CHECKOUT / "result.json"

if RESULT.is_dir() and not RESULT.is_symlink():
    shutil.rmtree(RESULT)
elif RESULT.is_symlink() or RESULT.exists():
    RESULT.unlink()
with tempfile.TemporaryDirectory(prefix="mini-kvm-") as name:
    with tarfile.open(HERE / "kit.tar.gz") as archive:
        archive.extractall(name)  # made by `make adapters`
    kit, results = Path(name) / "kit", Path(name) / "results"
    results.mkdir()
    subprocess.run(["sh", "grader/setup.sh", "build", "grade", "vm"], cwd=kit, check=True)
    python = subprocess.run(["sh", "grader/setup.sh", "--python"], cwd=kit, text=True, stdout=subprocess.PIPE,
                            check=True).stdout.strip()
    lab = (HERE / "lab").read_text().strip()
    command = [python, "-m", "grader.classroom.adapters.submission", "--lab", lab,
               "--submission", str(CHECKOUT), "--results", str(results),
               "--classroom50", str(results / "result.json")]
    status = subprocess.run(command, cwd=kit).returncode
    if status == 0:
        with open(RESULT, "x") as target:  # "x" follows no link
            target.write((results / "result.json").read_text())
sys.exit(status)
