"""Classroom 50's autograder for a lab: grades the student's checkout and writes ./result.json.

The contract is that of the page "Advanced Autograding" in foundation50/classroom50's wiki: it is started in
the checkout, with kit.tar.gz and lab beside it; exit status 0 when it has graded, whatever the score; any
other is an infrastructure error, and there is no result.json then.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUTPUT_MAX = 2000      # characters of what is said about one test
GRADED, REFUSED = 0, 1


def result(results: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """result.json, from the kit's results.json. Owner and type of assignment are the runner's to fill in."""
    tests = [{"test-name": test["name"], "passed": test["score"] == test["max_score"],
              "score": int(test["score"]), "max-score": int(test["max_score"]),
              "output": test["output"][:OUTPUT_MAX]} for test in results["tests"]]
    return {
        "schema": "classroom50/result/v1",
        "classroom": environment["CLASSROOM"],
        "assignment": environment["ASSIGNMENT"],
        "submission": environment["SUBMISSION_TAG"],
        "commit": environment["COMMIT_URL"],
        "release": environment["RELEASE_URL"],
        "review": environment.get("REVIEW_URL") or environment["COMMIT_URL"],
        "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "score": sum(test["score"] for test in tests),
        "max-score": sum(test["max-score"] for test in tests),
        "tests": tests,
    }


def main() -> int:
    checkout, lab = Path.cwd(), (HERE / "lab").read_text().strip()
    with tempfile.TemporaryDirectory(prefix="mini-kvm-") as name:
        with tarfile.open(HERE / "kit.tar.gz") as archive:
            archive.extractall(name)  # made by `make adapters`
        kit, results = Path(name) / "kit", Path(name) / "results"
        results.mkdir()
        subprocess.run(["sh", "grader/setup.sh", "build", "grade", "vm"], cwd=kit, check=True)
        python = subprocess.run(["sh", "grader/setup.sh", "--python"], cwd=kit, text=True,
                                stdout=subprocess.PIPE, check=True).stdout.strip()
        command = [python, "-m", "grader.classroom.adapters.submission", "--lab", lab,
                   "--submission", str(checkout), "--results", str(results)]
        status = subprocess.run(command, cwd=kit).returncode
        if status not in (GRADED, REFUSED):
            return status
        found = json.loads((results / "results.json").read_text())
    (checkout / "result.json").write_text(json.dumps(result(found, os.environ), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
