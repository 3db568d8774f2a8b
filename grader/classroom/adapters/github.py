"""The workflow for GitHub Classroom: a step a test, so that each test's result and points show by themselves.

It goes into the template repository as .github/workflows/classroom.yml, beside the release. GitHub's
runners have /dev/kvm, but only for root until the udev rule is there; without it the lab VM is used.
"""

from __future__ import annotations

from grader.core.framework import Lab

_HEAD = """\
# Mini-KVM Labs, lab {number}: {title}. Written by `make adapters LAB={number}`.
name: Autograding Tests
on: [push, repository_dispatch]
permissions:
  checks: write
  actions: read
  contents: read
jobs:
  run-autograding-tests:
    runs-on: ubuntu-latest
    if: github.actor != 'github-classroom[bot]'
    steps:
      - name: Checkout code
        uses: actions/checkout@v4
      - name: Let every user open /dev/kvm
        run: |
          echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' |
            sudo tee /etc/udev/rules.d/99-kvm4all.rules
          sudo udevadm control --reload-rules
          sudo udevadm trigger --name-match=kvm
      - name: Install what the kit needs
        run: sh grader/setup.sh build grade vm
"""
_STEP = """\
      - name: "{name}"
        id: {id}
        uses: classroom-resources/autograding-command-grader@v1
        with:
          test-name: "{name}"
          command: make grade LAB={lab} T={test}
          timeout: 10
          max-score: {points}
"""
_RESULT = '          {variable}_RESULTS: "${{{{steps.{id}.outputs.result}}}}"'
_REPORTER = """\
      - name: Autograding Reporter
        uses: classroom-resources/autograding-grading-reporter@v1
        env:
{results}
        with:
          runners: {ids}
"""


def workflow(lab: Lab) -> str:
    """The workflow file for a lab."""
    parts = [_HEAD.format(number=lab.number, title=lab.title)]
    ids = []
    for test in lab.tests:
        ids.append("t" + "".join(letter if letter.isalnum() else "-" for letter in test.id))
        parts.append(_STEP.format(name=f"{test.exercise} {test.title}".replace('"', "'"), id=ids[-1],
                                  lab=lab.number, test=test.id, points=test.points))
    results = "\n".join(_RESULT.format(id=name, variable=name.upper()) for name in ids)
    parts.append(_REPORTER.format(results=results, ids=",".join(ids)))
    return "".join(parts)
