"""What autograders read, by their published field lists, for the tests of what the kit writes.

Gradescope: gradescope-autograders.readthedocs.io, "Autograder Specifications", output format.
JUnit: the elements and attributes of the "JUnit 5 legacy" schema (Jenkins' junit-10.xsd).
Autolab: docs.autolabproject.com, "Guide for Lab Authors", the autograder's last line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

NUMBER = (int, float)
FORMATS = {"text", "html", "simple_format", "md", "ansi"}
VISIBILITIES = {"hidden", "after_due_date", "after_published", "visible"}
_OF_RESULTS = {"score": NUMBER, "execution_time": NUMBER, "output": str, "output_format": FORMATS,
               "test_output_format": FORMATS, "test_name_format": FORMATS, "visibility": VISIBILITIES,
               "stdout_visibility": VISIBILITIES, "extra_data": dict, "tests": list, "leaderboard": list}
_OF_TEST = {"score": NUMBER, "max_score": NUMBER, "status": {"passed", "failed"}, "name": str,
            "name_format": FORMATS, "number": str, "output": str, "output_format": FORMATS, "tags": list,
            "visibility": VISIBILITIES, "extra_data": dict}
_OF_SUITE = {"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname",
             "id", "package", "group"}
_OF_CASE = {"name", "classname", "time", "assertions", "status", "class", "file", "line", "group"}


def gradescope_faults(results: Any) -> list[str]:
    """What is wrong with the content of a results.json."""
    if not isinstance(results, dict):
        return ["not an object"]
    found = list(_fields(results, _OF_RESULTS, "results"))
    if "score" not in results and "tests" not in results:
        found.append("either score or tests is needed")
    for place, test in enumerate(results.get("tests", [])):
        found += _fields(test, _OF_TEST, f"test {place}")
        if test.get("score", 0) > test.get("max_score", 0):
            found.append(f"test {place} has more than its points")
    return found


def _fields(given: dict[str, Any], known: dict[str, Any], what: str) -> Iterator[str]:
    for name, value in given.items():
        wanted = known.get(name)
        if wanted is None:
            yield f"{what}: no such field: {name}"
        elif isinstance(wanted, set):
            if value not in wanted:
                yield f"{what}: {name} is {value!r}"
        elif not isinstance(value, wanted) or isinstance(value, bool):
            yield f"{what}: {name} is a {type(value).__name__}"


def junit_faults(text: str) -> list[str]:
    """What is wrong with a JUnit report."""
    root = ElementTree.fromstring(text)
    found = [] if root.tag == "testsuites" else [f"the root is {root.tag}"]
    for suite in root:
        cases = suite.findall("testcase")
        if suite.tag != "testsuite":
            found.append(f"{suite.tag} in {root.tag}")
        found += [f"testsuite: no such attribute: {name}" for name in set(suite.attrib) - _OF_SUITE]
        for name, count in (("tests", len(cases)), ("failures", len(suite.findall("testcase/failure"))),
                            ("errors", len(suite.findall("testcase/error")))):
            if suite.get(name) != str(count):
                found.append(f"{name} is {suite.get(name)}, and there are {count}")
        for case in cases:
            found += [f"testcase: no such attribute: {name}" for name in set(case.attrib) - _OF_CASE]
            found += [f"testcase lacks {name}" for name in {"name", "classname"} - set(case.attrib)]
            found += [f"{child.tag} in testcase" for child in case
                      if child.tag not in ("failure", "error", "skipped", "system-out", "system-err")]
            float(case.get("time", "0"))
    return found


def autolab_faults(line: str) -> list[str]:
    """What is wrong with the last line that an Autolab autograder prints."""
    try:
        scores = json.loads(line)["scores"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"no scores: {error}"]
    return [f"{name}: {value!r}" for name, value in scores.items()
            if not isinstance(value, NUMBER) or isinstance(value, bool)]
