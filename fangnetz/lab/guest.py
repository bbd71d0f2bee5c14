"""The guest's kernel and init ramdisk, built once per kernel and kept in the cache. Never changes /boot.

The guest boots in under two seconds without KVM, because recovery times are what the lab measures: the kernel is
unpacked here and not in the guest, PID 1 is one static program, and only the disk's drivers come before the
first write.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fangnetz.lab.errors import LabError
from fangnetz.lab.names import CACHE
from fangnetz.lab.run import run

COMMAND_LINE = (
    "console=ttyS0 quiet panic=5 nokaslr mitigations=off no_timer_check tsc=reliable lpj=4000000 "
    "cryptomgr.notests=1 lsm= audit=0 noreplace-smp"
)
_SOURCE = Path(__file__).parent / "guest" / "guest.c"
_BEFORE_FIRST_WRITE = ("virtio_pci", "virtio_blk")
_AFTER_FIRST_WRITE = ("button", "evdev")
_UNPACK: Sequence[tuple[bytes, tuple[str, ...]]] = (
    (b"\x02\x21\x4c\x18", ("lz4", "-dc")),
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dc")),
    (b"\xfd7zXZ\x00", ("xz", "-dc")),
    (b"\x1f\x8b", ("gzip", "-dc")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    """What a VM of the lab boots."""

    kernel: Path
    initrd: Path


def guest_image() -> GuestImage:
    """Return the cached image, building it first if there is none for the newest kernel of this machine."""
    kernel = _newest_kernel()
    version = kernel.name.removeprefix("vmlinuz-")
    key = hashlib.sha256(_SOURCE.read_bytes() + Path(__file__).read_bytes() + str(kernel.stat()).encode()).hexdigest()[
        :12
    ]
    CACHE.mkdir(parents=True, exist_ok=True)
    place = CACHE / f"guest-{version}-{key}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                _build(kernel, version, Path(scratch))
                for old in CACHE.glob("guest-*"):
                    if old.name.startswith(f"guest-{version}-"):
                        continue  # another checkout's, perhaps in use
                    shutil.rmtree(old, ignore_errors=True)
                ready = Path(scratch) / "ready"
                ready.rename(place)
    return GuestImage(kernel=place / "kernel", initrd=place / "initrd")


def _newest_kernel() -> Path:
    kernels = [
        path
        for path in Path("/boot").glob("vmlinuz-*")
        if (Path("/lib/modules") / path.name.removeprefix("vmlinuz-")).is_dir()
    ]
    small = [
        path for path in kernels if "cloud" in path.name or "virtual" in path.name or "kvm" in path.name
    ] or kernels
    if not small:
        raise LabError(
            "no kernel for the guests: run `apt-get install --no-install-recommends linux-image-cloud-amd64`"
        )
    return max(small, key=lambda path: path.stat().st_mtime)


def _build(kernel: Path, version: str, scratch: Path) -> None:
    ready, tree = scratch / "ready", scratch / "tree"
    ready.mkdir()
    (tree / "modules").mkdir(parents=True)
    run("gcc", "-O2", "-static", "-s", "-o", tree / "init", _SOURCE, timeout_s=120)
    modules = Path("/lib/modules") / version
    done: set[str] = set()
    for name, wanted in (("modules.disk", _BEFORE_FIRST_WRITE), ("modules.late", _AFTER_FIRST_WRITE)):
        lines = []
        for module in _load_order(modules, wanted):
            if module.name not in done:
                done.add(module.name)
                plain = module.name.split(".ko")[0] + ".ko"
                (tree / "modules" / plain).write_bytes(_unpacked(module.read_bytes()))
                lines.append(f"/modules/{plain}\n")
        (tree / name).write_text("".join(lines))
    listing = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))) + "\n"
    with (ready / "initrd").open("wb") as image:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], input=listing.encode(), cwd=tree, stdout=image, check=True
        )
    unpacked = _unpacked_kernel(kernel.read_bytes())
    (ready / "kernel").write_bytes(unpacked if unpacked is not None else kernel.read_bytes())


def _load_order(modules: Path, wanted: Sequence[str]) -> Iterator[Path]:
    """Yield module files, each after those it needs. One built into the kernel is simply not listed."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path.rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")] = [*reversed(rest.split()), path]
    for module in wanted:
        for path in needs.get(module, []):
            yield modules / path


def _unpacked_kernel(image: bytes) -> bytes | None:
    """Return the ELF image inside a bzImage (payload_offset of the boot protocol), None if there is none."""
    if image[0x202:0x206] == b"" or image[0x1FE:0x200] != b"\x55\xaa":
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (setup_sectors + 1) * 512 + offset
    unpacked = _unpacked(image[begin : begin + length])
    # PVH boots an ELF image directly; its entry is told in a Xen note.
    return unpacked if unpacked.startswith(b"\x7fELF") and b"Xen\x00" in unpacked else None


def _unpacked(packed: bytes) -> bytes:
    """Return what a compressed file holds, or the file itself. What follows the data (a kernel's size) is ignored."""
    for magic, command in _UNPACK:
        if packed.startswith(magic) and shutil.which(command[0]):
            return subprocess.run(
                command, input=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, env=os.environ
            ).stdout
    return packed
