"""The lab VM's kernel: from a Debian package that is not installed, or from two paths given by the user."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.execution.c_tools import install_command
from grader.execution.runs import CannotGrade

# The kernel packages of Debian and Ubuntu; apt knows one of them.
PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")
# Its direct and indirect dependencies that hold the kernel: one package (Debian 12, 13), two (Ubuntu: image
# and modules), or three (later Debian: an empty image package, binary and modules).
_PART = re.compile(r"^\s*\|?Depends: (linux-(?:image|binary|modules)-\S+)$", re.M)

# The modules that the VM needs, unless they are built into the kernel: the channel and KVM.
WANTED = ("virtio_pci", "virtio_console", "kvm_amd")

BY_HAND = (
    "name both once: make fetch LABVM_KERNEL=<a vmlinuz for x86-64> LABVM_MODULES=<its folder of "
    f"modules>; they are in the packages that Debian's {PACKAGES[0]} depends on (unpack them with `dpkg -x`, "
    "or `ar x` and `tar`): boot/vmlinuz-VERSION and lib/modules/VERSION (Debian 12), boot/vmlinuz-VERSION "
    "and usr/lib/modules/VERSION (Debian 13), or usr/lib/modules/VERSION/vmlinuz next to its modules (later)"
)


@dataclass(frozen=True)
class Kernel:
    """A kernel image and the folder that contains its modules."""

    image: Path
    modules: Path

    def module_files(self) -> list[tuple[str, Path]]:
        """The wanted modules and their dependencies as (name, file), in load order."""
        available = {_module_name(path): path for path in sorted(self.modules.rglob("*.ko*"))}
        ordered: dict[str, Path] = {}

        def add(name: str) -> None:
            if name in ordered or name not in available:  # built in; init reports it if not
                return
            for dependency in _dependencies(module_content(available[name])):
                add(dependency)
            ordered[name] = available[name]

        for wanted in WANTED:
            add(wanted)
        if "kvm_amd" not in ordered:
            raise CannotGrade(f"no kvm-amd module in {self.modules}", BY_HAND)
        return list(ordered.items())

    def check(self) -> None:
        """Raises CannotGrade unless this is a kernel for x86-64 with its own modules."""
        try:
            version = _image_version(self.image)
        except OSError as error:
            raise CannotGrade(f"can't read {self.image}: {error.strerror}",
                              "make a readable copy (sudo install -m 644) and name that") from error
        if version is None:
            raise CannotGrade(f"{self.image} is not a Linux kernel for x86-64 (a bzImage)", BY_HAND)
        for name, path in self.module_files():
            built_for = _info(module_content(path), b"vermagic").split(" ")[0]
            if built_for != version:
                raise CannotGrade(f"the module {name} in {self.modules} is for Linux {built_for}, "
                                  f"but {self.image} is Linux {version}", BY_HAND)


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def module_content(path: Path) -> bytes:
    """A module's bytes, decompressed."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return _unpack_zstd(path)
    return data


def _unpack_zstd(path: Path) -> bytes:
    try:
        return subprocess.run(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotGrade(f"can't decompress the module {path}", install_command("zstd")) from error


def _info(module: bytes, key: bytes) -> str:
    """A value from the module's .modinfo: strings separated by zero bytes (modinfo(8))."""
    found = re.search(rb"\0" + key + rb"=([^\0]*)\0", module)
    return found.group(1).decode("utf-8", "replace") if found else ""


def _dependencies(module: bytes) -> list[str]:
    return [name.replace("-", "_") for name in _info(module, b"depends").split(",") if name]


def _image_version(image: Path) -> str | None:
    """The version of a bzImage (Linux: arch/x86/boot.rst, kernel_version); None: not a bzImage."""
    with open(image, "rb") as file:
        start = file.read(1 << 16)
    if start[0x202:0x206] != b"HdrS":
        return None
    at = 0x200 + int.from_bytes(start[0x20e:0x210], "little")
    return start[at:at + 256].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")


def find_kernel(cache: Path, progress: Callable[[str], None]) -> Kernel:
    """The kernel to boot. A fetched kernel, or one named by the user, is kept in `cache`/kernel. The caller
    holds the cache's lock."""
    folder = cache / "kernel"
    named = _named_kernel()
    if named:
        _keep_named(named, folder)
    elif not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as partial:
            _fetch(Path(partial), progress)
            _keep_needed(unpacked_kernel(Path(partial)), folder)
    return Kernel(folder / "vmlinuz", folder / "modules")


def _named_kernel() -> Kernel | None:
    """The kernel that the user named with this command, if any."""
    image, modules = os.environ.get("LABVM_KERNEL"), os.environ.get("LABVM_MODULES")
    if not image and not modules:
        return None
    if not image or not modules:
        given, missing = ("LABVM_KERNEL", "LABVM_MODULES") if image else ("LABVM_MODULES", "LABVM_KERNEL")
        raise CannotGrade(f"{given} is set but {missing} is not: the lab VM needs both", BY_HAND)
    if not Path(image).is_file():
        raise CannotGrade(f"LABVM_KERNEL={image} is not a file", BY_HAND)
    if not Path(modules).is_dir():
        raise CannotGrade(f"LABVM_MODULES={modules} is not a folder", BY_HAND)
    return Kernel(Path(image).resolve(), Path(modules).resolve())


def _keep_named(kernel: Kernel, folder: Path) -> None:
    """Keep a kernel that the user named, unless it is kept already."""
    status = kernel.image.stat()
    source = json.dumps([str(kernel.image), status.st_size, status.st_mtime_ns, str(kernel.modules)])
    mark = folder / "source.json"
    if mark.exists() and mark.read_text() == source:
        return
    kernel.check()
    shutil.rmtree(folder, ignore_errors=True)
    _keep_needed(kernel, folder)
    mark.write_text(source)


def _call(argv: list[str], cwd: Path) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, env={**os.environ, "LC_ALL": "C"}, capture_output=True,
                              text=True, errors="replace", check=False)
    except OSError as error:
        raise CannotGrade(f"{argv[0]}: {error.strerror}", BY_HAND) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise CannotGrade(f"`{' '.join(argv)}` failed: {said[-1] if said else done.returncode}",
                          f"fix that (sudo apt-get update?), or {BY_HAND}")
    return done.stdout


def _fetch(folder: Path, progress: Callable[[str], None]) -> None:
    """Unpack the kernel's packages below `folder`."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise CannotGrade("the lab VM's kernel is fetched with apt, which is not installed", BY_HAND)
    package = _known_package(folder)
    progress(f"fetching {package} (some 40 MB; nothing is installed)")
    names = kernel_packages(package, lambda name: _call(["apt-cache", "depends", name], folder))
    unpack_packages(names, folder)


def unpack_packages(names: Sequence[str], folder: Path) -> None:
    """Download packages with apt and unpack them below `folder`."""
    _call(["apt-get", "download", *names], folder)
    for file in sorted(folder.glob("*.deb")):
        _call(["dpkg", "-x", str(file), "."], folder)


def _known_package(folder: Path) -> str:
    """The first of PACKAGES that apt knows; if it knows none, its lists may be missing."""
    for last_try in (False, True):
        for package in PACKAGES:
            try:
                _call(["apt-cache", "show", package], folder)
                return package
            except CannotGrade:
                continue
        if last_try or os.geteuid() != 0:
            break
        _call(["apt-get", "update"], folder)  # container images come without package lists
    raise CannotGrade(f"apt knows neither {' nor '.join(PACKAGES)}",
                      f"sudo apt-get update, with a network; or {BY_HAND}")


def kernel_packages(package: str, depends: Callable[[str], str]) -> list[str]:
    """The packages with the kernel of `package`; `depends` returns apt-cache's output for one package."""
    found: list[str] = []
    waiting = [package]
    while waiting:
        for name in _PART.findall(depends(waiting.pop(0))):
            if name not in found:
                found.append(name)
                waiting.append(name)
    if not found:
        raise CannotGrade(f"{package} does not depend on a kernel package", BY_HAND)
    return found


def unpacked_kernel(folder: Path) -> Kernel:
    """The kernel of packages that are unpacked in `folder`."""
    for pattern in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"):
        for image in sorted(folder.glob(pattern)):
            return Kernel(image, folder)
    raise CannotGrade("the kernel's packages have neither boot/vmlinuz-VERSION nor "
                      "usr/lib/modules/VERSION/vmlinuz", BY_HAND)


def _keep_needed(kernel: Kernel, folder: Path) -> None:
    """Keep in `folder` the image and the modules that are loaded, all or nothing."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as name:
        kept = Path(name) / "kernel"
        (kept / "modules").mkdir(parents=True)
        for _, path in kernel.module_files():
            shutil.copy(path, kept / "modules")
        shutil.copy(kernel.image, kept / "vmlinuz")
        os.rename(kept, folder)
