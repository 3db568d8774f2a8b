"""The lab VM's kernel: from Debian's package without installing it, or from two paths that the user names."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from grader.runs import CannotGrade

PACKAGE = "linux-image-cloud-amd64"

# What the VM needs as modules, where the kernel does not have it built in: the channel, and KVM.
WANTED = ("virtio_pci", "virtio_console", "kvm_amd")

BY_HAND = (
    "name two things yourself: LABVM_KERNEL=<a vmlinuz for x86-64> and "
    f"LABVM_MODULES=<its folder of modules>; they are in the package that Debian's {PACKAGE} depends on "
    "(unpack it with `dpkg -x`, or `ar x` and `tar`), below boot/ and lib/modules/"
)


@dataclass(frozen=True)
class Kernel:
    """A kernel image and the folder below which its modules lie."""

    image: Path
    modules: Path

    def module_files(self) -> List[Tuple[str, Path]]:
        """The wanted modules and what they depend on, as (name, file), in the order to load them."""
        available = {_module_name(path): path for path in sorted(self.modules.rglob("*.ko*"))}
        ordered: Dict[str, Path] = {}

        def add(name: str) -> None:
            if name in ordered or name not in available:  # not there: built in; init says if it is missed
                return
            for dependency in _dependencies(module_content(available[name])):
                add(dependency)
            ordered[name] = available[name]

        for wanted in WANTED:
            add(wanted)
        if "kvm_amd" not in ordered:
            raise CannotGrade(f"there is no kvm-amd module below {self.modules}", BY_HAND)
        return list(ordered.items())


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def module_content(path: Path) -> bytes:
    """A module's bytes, unpacked."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix != ".ko":
        raise CannotGrade(f"can't unpack the module {path}", f"unpack it beside itself: zstd -d {path}")
    return data


def _dependencies(module: bytes) -> List[str]:
    """The names in the module's .modinfo, which is text with zero bytes between (modinfo(8))."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found.group(1).decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def find_kernel(cache: Path, progress: Callable[[str], None]) -> Kernel:
    """The kernel to boot; fetched into `cache`/kernel at first use. The caller holds the cache's lock."""
    image, modules = os.environ.get("LABVM_KERNEL"), os.environ.get("LABVM_MODULES")
    if image or modules:
        if not image or not modules or not Path(image).is_file() or not Path(modules).is_dir():
            raise CannotGrade(f"LABVM_KERNEL={image} and LABVM_MODULES={modules} "
                              "are not a file and a folder", BY_HAND)
        return Kernel(Path(image).resolve(), Path(modules).resolve())
    folder = cache / "kernel"
    if not folder.exists():
        progress(f"fetching Debian's {PACKAGE} (30 MB; nothing is installed)")
        with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as partial:
            _fetch(Path(partial))
            _keep_needed(Path(partial))
            os.rename(Path(partial) / "kernel", folder)
    return Kernel(folder / "vmlinuz", folder / "modules")


def _call(argv: List[str], cwd: Path) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotGrade(f"{argv[0]}: {error.strerror}", BY_HAND) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise CannotGrade(f"`{' '.join(argv)}` failed: {said[-1] if said else done.returncode}",
                          f"mend that (sudo apt-get update?), or {BY_HAND}")
    return done.stdout


def _fetch(folder: Path) -> None:
    """Unpack the kernel package below `folder`."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise CannotGrade("the lab VM's kernel comes by apt, which is not here", BY_HAND)
    try:
        depends = _call(["apt-cache", "depends", PACKAGE], folder)
    except CannotGrade:
        if os.geteuid() != 0:
            raise
        _call(["apt-get", "update"], folder)  # a container's image comes without package lists
        depends = _call(["apt-cache", "depends", PACKAGE], folder)
    names = re.findall(r"Depends: (linux-image-\S+)", depends)
    if not names:
        raise CannotGrade(f"apt knows no kernel behind {PACKAGE}", BY_HAND)
    _call(["apt-get", "download", names[0]], folder)
    packages = list(folder.glob("linux-image-*.deb"))
    _call(["dpkg", "-x", str(packages[0]), "."], folder)


def _keep_needed(folder: Path) -> None:
    """Of the unpacked package, keep in kernel/ the image and the modules that are loaded."""
    images = list(folder.glob("boot/vmlinuz-*"))
    if not images:
        raise CannotGrade("the kernel package has no boot/vmlinuz", BY_HAND)
    kept = folder / "kernel"
    (kept / "modules").mkdir(parents=True)
    for _, path in Kernel(images[0], folder).module_files():
        shutil.copy(path, kept / "modules")
    shutil.copy(images[0], kept / "vmlinuz")
