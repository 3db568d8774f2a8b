"""Checks of the handouts that run no guest. Each check yields one sentence per error, so that all errors are
reported at once."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grader.course import LABS, ROOT, Lab
from grader.handouts.text import FOLDER, Document, Fence, slug
from grader.core.exercises import exercises

KINDS = ("console", "c", "nasm", "text")
TOP_LEVEL = ("common", "guests", "grader", "handouts", "labs", "os-1k", "solutions")
KVM_HEADERS = [Path("/usr/include/linux/kvm.h"), Path("/usr/include/x86_64-linux-gnu/asm/kvm.h")]

# Sections of Documentation/virt/kvm/api.rst, as in Linux 6.1. They have been stable for many years.
API_SECTIONS = {
    "KVM_GET_API_VERSION": "4.1", "KVM_CREATE_VM": "4.2", "KVM_CHECK_EXTENSION": "4.4",
    "KVM_GET_VCPU_MMAP_SIZE": "4.5", "KVM_CREATE_VCPU": "4.7", "KVM_RUN": "4.10", "KVM_GET_REGS": "4.11",
    "KVM_SET_REGS": "4.12", "KVM_GET_SREGS": "4.13", "KVM_SET_SREGS": "4.14", "KVM_TRANSLATE": "4.15",
    "KVM_INTERRUPT": "4.16", "KVM_GET_MSRS": "4.18", "KVM_SET_MSRS": "4.19", "KVM_SET_CPUID": "4.20",
    "KVM_SET_CPUID2": "4.20", "KVM_SET_SIGNAL_MASK": "4.21", "KVM_CREATE_IRQCHIP": "4.24",
    "KVM_GET_VCPU_EVENTS": "4.31", "KVM_SET_USER_MEMORY_REGION": "4.35", "KVM_SET_TSS_ADDR": "4.36",
    "KVM_SET_IDENTITY_MAP_ADDR": "4.40", "KVM_GET_SUPPORTED_CPUID": "4.46", "KVM_GET_TSC_KHZ": "4.56",
    "KVM_IOEVENTFD": "4.59", "KVM_IRQFD": "4.75", "KVM_SET_GUEST_DEBUG": "4.87", "KVM_GET_STATS_FD": "4.133",
    "KVM_CAP_SYNC_REGS": "6.74",
}

# A comment in a solution, unless it marks an exercise's answer.
_COMMENT = re.compile(r"/\*(?! (?:answer|end) \d\.\d \*/).*?\*/", re.S)

# Commands of other programs whose options a handout may name.
FOREIGN = ("man", "git", "gdb", "strace", "objdump", "nasm", "readelf", "apt-get", "sudo", "usermod")


def check_fences(document: Document) -> Iterator[str]:
    """Every block has a kind that is checked, or a reason why it can't be."""
    for fence in document.fences():
        if fence.kind not in KINDS:
            yield f"{fence.where}: a block must be one of {', '.join(KINDS)}, not {fence.kind or 'nothing'!r}"
        elif fence.kind == "text" and not fence.words.get("why"):
            yield f"{fence.where}: a text block needs why=\"...\": the reason why it can't be checked"
        elif "from" in fence.words:
            yield from _check_excerpt(fence)
        elif fence.kind == "c":
            yield from _check_compiled(fence)
        elif fence.kind == "nasm":
            yield from _check_assembled(fence)


def _check_excerpt(fence: Fence) -> Iterator[str]:
    path = ROOT / fence.words["from"]
    if not path.exists():
        yield f"{fence.where}: {fence.words['from']} does not exist"
        return
    text = "\n".join(line.strip() for line in path.read_text().splitlines())
    place = 0
    for part in "\n".join(line.strip() for line in fence.body).split("\n...\n"):
        place = text.find(part, place)
        if place < 0:
            yield f"{fence.where}: {fence.words['from']} does not have these lines: {part[:60]!r}"
            return
        place += len(part)


def _check_compiled(fence: Fence) -> Iterator[str]:
    body = "\n".join(fence.body)
    source = f'#include <errno.h>\n#include <string.h>\n#include <sys/ioctl.h>\n#include "lab6.h"\n' \
        f"int handout(struct vcpu *vcpu, struct kvm_run *run);\n" \
        f"int handout(struct vcpu *vcpu, struct kvm_run *run)\n{{\n{body}\nreturn 0;\n}}\n"
    done = subprocess.run(["gcc", "-std=gnu11", "-fsyntax-only", "-Wall", "-Wno-unused", "-Icommon/contract",
                           "-x", "c", "-"], cwd=ROOT, input=source, text=True, capture_output=True)
    if done.returncode != 0 or done.stderr:
        yield f"{fence.where}: does not compile:\n{done.stderr}"


def _check_assembled(fence: Fence) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "handout.asm"
        source.write_text("\n".join(fence.body) + "\n")
        done = subprocess.run(["nasm", "-f", "bin", "-Ibuild/", "-Iguests/", str(source), "-o",
                               f"{folder}/image"], cwd=ROOT, text=True, capture_output=True)
    if done.returncode != 0 or done.stderr:
        yield f"{fence.where}: does not assemble:\n{done.stderr}"


def check_links(document: Document, all_documents: dict[Path, Document]) -> Iterator[str]:
    """Internal links have a target, pictures have an alternative text."""
    for is_image, label, target in re.findall(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)",
                                              document.prose()):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        path = (document.path.parent / file).resolve() if file else document.path
        if is_image and len(label) < 20:
            yield f"{document.name}: the picture {target} needs an alternative text"
        if not path.exists():
            yield f"{document.name}: the link to {target} is broken"
        elif anchor and path in all_documents and anchor not in all_documents[path].anchors():
            yield f"{document.name}: no heading for {target}"


def check_names(document: Document) -> Iterator[str]:
    """Files, KVM's names, make's targets and the VMM's options exist."""
    header = "".join(path.read_text() for path in KVM_HEADERS) if all(map(Path.exists, KVM_HEADERS)) else ""
    makefile = (ROOT / "Makefile").read_text()
    options = vmm_options()
    prose = re.sub(r"<!--.*?-->", "", document.prose(), flags=re.S)
    for code in re.findall(r"`([^`\n]+)`", prose):
        path = re.sub(r"\blabN\b|\bNAME\b", "*", code)
        if re.fullmatch(rf"({'|'.join(TOP_LEVEL)})/[\w./*-]*", path) and not list(ROOT.glob(path)):
            yield f"{document.name}: {code} does not exist"
        if code.startswith("make "):
            yield from _check_make(document, code, makefile)
        elif re.fullmatch(r"--[a-z-]+(=.*)?", code) and code.split("=")[0] not in options:
            yield f"{document.name}: the VMM has no option {code}"
    if header:
        for name in sorted(set(re.findall(r"\bKVM_[A-Z][A-Z0-9_]+\b(?!\*)", prose))):
            if not name.endswith("_") and not re.search(rf"\b{name}\b", header):
                yield f"{document.name}: linux/kvm.h has no {name}"


def vmm_options() -> set[str]:
    """The options of the VMM and of other programs that a handout describes."""
    text = (ROOT / "common/core/options.c").read_text()
    return {f"--{name}" for name in re.findall(r'^    \{"([a-z-]+)", ', text, re.M)}


def _check_make(document: Document, code: str, makefile: str) -> Iterator[str]:
    for word in re.sub(r'="[^"]*"', "=x", code).split()[1:]:
        name, is_choice, _ = word.partition("=")
        name = re.sub(r"^lab[\dN]$", "lab1", name)
        if is_choice:
            given = " ".join(re.findall(r"^(?:GIVEN|BUILT_WITH) := (.*)$", makefile, re.M)).split()
            known = name in given or name in ("CC", "LABVM_KERNEL", "LABVM_MODULES")
        else:
            known = name == "lab1" or bool(re.search(rf"^\.PHONY:.*\b{re.escape(name)}\b|"
                                                     rf"^(?:[\w-]+ )*{re.escape(name)}(?: [\w-]+)*:",
                                                     makefile, re.M))
        if not known:
            yield f"{document.name}: `{code}`: the Makefile has no {name}"


def check_sections(path: Path) -> Iterator[str]:
    """`4.10 KVM_RUN` names the right section of api.rst, in a handout or in a source."""
    for number, name in re.findall(r"\b([468]\.\d+),? `?(KVM_[A-Z0-9_]+)", path.read_text()):
        if name in API_SECTIONS and API_SECTIONS[name] != number:
            yield f"{path.relative_to(ROOT)}: {name} is section {API_SECTIONS[name]} of api.rst, not {number}"


def check_exercise_numbers(document: Document) -> Iterator[str]:
    """The exercises that a handout names exist."""
    known = {number for lab in LABS.values() for number in lab_exercises(lab)}
    for number in re.findall(r"\b[Ee]xercises? (\d\.\d)\b|T=(\d\.\d)\b", document.prose()):
        name = number[0] or number[1]
        if name not in known and name[0] in {number[0] for number in known}:
            yield f"{document.name}: exercise {name} does not exist"


def lab_exercises(lab: Lab) -> list[str]:
    """All exercises of a lab."""
    return sorted({number for path in lab.solution_files() if path.exists() for number in exercises(path)})


def answer_lines(lab: Lab, number: str) -> int:
    """The number of lines between an exercise's marks in the solution, without blank ones and comments."""
    count = 0
    for path in lab.solution_files():
        inside = False
        for line in _COMMENT.sub("", path.read_text()).splitlines():
            if f"/* answer {number} */" in line or f"/* end {number} */" in line:
                inside = "answer" in line
            else:
                count += inside and bool(line.strip())
    return count


def check_exercises(lab: Lab) -> Iterator[str]:
    """An exercise's section names its functions, its length, its command, and has a hint."""
    sources = "".join(path.read_text() for path in lab.solution_files())
    for section in re.split(r"^### ", lab.handout.read_text(), flags=re.M)[1:]:
        number = section[:3]
        if not re.match(r"\d\.\d ", section):
            continue
        section = re.split(r"^## ", section, flags=re.M)[0]
        place = f"{lab.handout.name}, section {number}"
        if f"make grade LAB={lab.number} T={number}" not in section:
            yield f"{place}: no command to grade just this exercise"
        if "<details>" not in section:
            yield f"{place}: no hint"
        facts = re.search(r"^(`.*?·.*)$", section, re.M)
        if not facts:
            yield f"{place}: no line with function · difficulty · about N lines"
            continue
        for name in re.findall(r"`(\w+)`", facts[1].split("·")[0]):
            if not re.search(rf"\b{name}\(", sources):
                yield f"{place}: function {name} does not exist"
        if not re.search(r"· about \d+ lines? ·", facts[1]):
            yield f"{place}: no length; write `about 1 line`, and `update` writes the number"
        if not re.search(r"· (easy|moderate|hard) ·", facts[1]):
            yield f"{place}: no difficulty (easy, moderate or hard)"


def check_figures(all_documents: list[Document]) -> Iterator[str]:
    """Every figure is shown somewhere."""
    text = "".join(document.text for document in all_documents)
    for figure in sorted((FOLDER / "figures").glob("*.svg")):
        if f"figures/{figure.name}" not in text:
            yield f"figures/{figure.name} is shown in no handout"


def anchors_of(document: Document) -> dict[str, str]:
    """Anchor by heading."""
    return {text: slug(text) for _, text in document.headings()}
