"""Wrong modules that the grader must see through: each patch of a lab's mutants/ is a solution with a
mistake that learners make.

    # what: the API version is not checked
    # fails: 1.1-version
    # hint: KVM_API_VERSION
    --- a/solutions/lab1-real-mode/vm.c
    ...

`fails` names exercises or tests: all failing tests must be among these, and each must be hit. A line `# may:`
names those that fail on one back end and not on another, or now and then. The words of `hint` must be in what
the learner reads about one of the failed tests.
"""

from __future__ import annotations

from collections.abc import Mapping

from grader.core.grading import Report
from grader.core.judge import Kind


def complaints(mutant: Mapping[str, str], report: Report) -> list[str]:
    """Compares what failed with what must fail."""
    if report.build_error:
        return [f"it does not compile:\n{report.build_error}"]
    fails, hint = mutant["fails"].split(), mutant["hint"]
    known = {*fails, *mutant.get("may", "").split()}
    failed = [v for v in report.verdicts if v.kind is Kind.FAILED]
    found = [f"{v.test.id} is {v.kind.value}" for v in report.verdicts if v.kind in (Kind.TODO, Kind.CANNOT)]
    found += [f"{v.test.id} failed, too: {v.text}" for v in failed
              if not {v.test.id, v.test.exercise} & known]
    found += [f"{wanted} did not fail" for wanted in fails
              if not any(wanted in (v.test.id, v.test.exercise) for v in failed)]
    if failed and not any(hint in v.text for v in failed):
        found.append(f"no hint has the words {hint!r}: " + " / ".join((v.text for v in failed)))
    return found
