"""The files for editors, containers and workflows: what they name exists."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

from grader.core.building import ADDR_NO_RANDOMIZE, clean_environment
from grader.course import LABS, ROOT

DEVCONTAINER = ROOT / ".devcontainer/devcontainer.json"
DOCKERFILE = ROOT / ".devcontainer/Dockerfile"
TASKS, LAUNCH = ROOT / ".vscode/tasks.json", ROOT / ".vscode/launch.json"
WORKFLOWS = (ROOT / ".github/workflows/test.yml", ROOT / "grader/classroom/adapters/github/grade.yml")
FILES = (DEVCONTAINER, DOCKERFILE, TASKS, LAUNCH, *WORKFLOWS)


def read_json(path: Path) -> Any:
    """A JSON file with comments on lines of their own."""
    return json.loads(re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M))


def text(path: Path) -> str:
    """A file without its comments, for lab 1."""
    lines = [line for line in path.read_text().splitlines() if not re.match(r"\s*(#|//)", line)]
    return re.sub(r"\$\{input:lab\}|@LAB@|\$lab\b", "1", "\n".join(lines))


class Environments(unittest.TestCase):
    def test_every_target_of_make_exists(self) -> None:
        calls = re.findall(r"(?<![\w-])make ([\w=][\w=/ -]*)", "\n".join(map(text, FILES)))
        found = {words for words in calls if not words.startswith("patch ")}    # that is the package
        self.assertGreater(len(found), 6)
        for words in found:
            with self.subTest(words=words):
                done = subprocess.run(["make", "-n", *words.split()], cwd=ROOT, env=clean_environment(),
                                      text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_part_of_setup_exists(self) -> None:
        parts = re.findall(r"^        (\w+)\)$", (ROOT / "grader/setup.sh").read_text(), re.M)
        calls = [words for path in FILES for words in re.findall(r"sh \S*setup\.sh ([\w ]+)", text(path))]
        self.assertEqual(len(calls), 2)
        for words in calls:
            self.assertLessEqual(set(words.split()), set(parts))

    def test_every_python_module_exists(self) -> None:
        for module in [name for path in FILES for name in re.findall(r"python3 -m (\S+)", text(path))]:
            self.assertIsNotNone(importlib.util.find_spec(module), module)

    def test_the_container_is_built_from_files_that_exist(self) -> None:
        build = read_json(DEVCONTAINER)["build"]
        self.assertEqual(DEVCONTAINER.parent / build["dockerfile"], DOCKERFILE)
        copied = re.findall(r"^COPY (\S+) ", DOCKERFILE.read_text(), re.M)
        self.assertTrue(copied)
        for name in copied:
            self.assertTrue((DEVCONTAINER.parent / build["context"] / name).exists(), name)
        self.assertIn(f"USER {read_json(DEVCONTAINER)['remoteUser']}\n", DOCKERFILE.read_text())

    def test_questions_of_the_editor_are_defined_and_asked_once(self) -> None:
        for path in (TASKS, LAUNCH):
            options = {entry["id"]: entry.get("options") for entry in read_json(path)["inputs"]}
            self.assertLessEqual(set(re.findall(r"\$\{input:(\w+)\}", path.read_text())), set(options))
            self.assertEqual(options["lab"], [str(number) for number in LABS])
        tasks = {task["label"]: task for task in read_json(TASKS)["tasks"]}
        for launch in read_json(LAUNCH)["configurations"]:
            # Each file asks its own questions (microsoft/vscode#95158): the answers could differ.
            self.assertNotIn("${input:", json.dumps(tasks[launch["preLaunchTask"]]))

    def test_before_debugging_every_lab_is_built(self) -> None:
        [build] = [task for task in read_json(TASKS)["tasks"] if task["label"] == "build"]
        self.assertIn(f"for lab in {' '.join(map(str, LABS))};", build["args"][1])
        # In a folder that does not depend on the compiler.
        [folder] = re.findall(r" OUT=(\S+)", build["args"][1])
        program = "${workspaceFolder}/" + folder.replace("$lab", "${input:lab}") + "/vmm"
        self.assertEqual([launch["program"] for launch in read_json(LAUNCH)["configurations"]], [program])

    def test_the_container_has_the_compiler_of_the_handouts(self) -> None:
        self.assertIn("gcc", DOCKERFILE.read_text().split())


class Addresses(unittest.TestCase):
    def personality(self, sanitize: str) -> int:
        """personality(2) of a program that is started once a VMM has been built."""
        script = ("import subprocess; from grader.core.building import build_vmm; "
                  f"build_vmm(1, solution=True, sanitize={sanitize!r}); "
                  "subprocess.run(['cat', '/proc/self/personality'], check=True)")
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=clean_environment(), text=True,
                              check=True, stdout=subprocess.PIPE)
        return int(done.stdout, 16)

    def test_none_is_random_for_a_thread_sanitizer(self) -> None:
        if subprocess.run(["setarch", "-R", "true"]).returncode != 0:
            self.skipTest("no program can get fixed addresses here")
        self.assertTrue(self.personality("thread") & ADDR_NO_RANDOMIZE)
        self.assertFalse(self.personality("") & ADDR_NO_RANDOMIZE)


if __name__ == "__main__":
    unittest.main()
