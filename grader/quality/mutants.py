"""Wrong modules that must lose points: each patch in a lab's mutants/ puts one common mistake into a
solution.

    # what: the API version is not checked
    # fails: 1.1-version
    # hint: KVM_API_VERSION
    --- a/solutions/lab1-real-mode/vm.c
    ...

`fails` names exercises or tests: all failing tests must be among these, and each must occur. A line `# may:`
names tests that fail only on some back ends or only sometimes. The words of `hint` must occur in the report
on one of the failed tests.
"""

from __future__ import annotations

from collections.abc import Mapping

from grader.core.grading import Report
from grader.core.judge import Kind


def complaints(mutant: Mapping[str, str], report: Report) -> list[str]:
    """Compares the failed tests with those that must fail."""
    if report.build_error:
        return [f"it does not compile:\n{report.build_error}"]
    fails, hint = mutant["fails"].split(), mutant["hint"]
    known = {*fails, *mutant.get("may", "").split()}
    failed = [v for v in report.verdicts if v.kind is Kind.FAILED]
    found = [f"{v.test.id} is {v.kind.value}" for v in report.verdicts if v.kind in (Kind.TODO, Kind.CANNOT)]
    found += [f"{v.test.id} failed as well: {v.text}" for v in failed
              if not {v.test.id, v.test.exercise} & known]
    found += [f"{wanted} did not fail" for wanted in fails
              if not any(wanted in (v.test.id, v.test.exercise) for v in failed)]
    if failed and not any(hint in v.text for v in failed):
        found.append(f"no hint has the words {hint!r}: " + " / ".join((v.text for v in failed)))
    return found
