"""A host's disk: a sparse image of the size that the host may use, with ext4 in it.

The image is a private file, mounted where only the host's own processes see it, so no other
user of the machine can enter what a host wrote, and what a host writes ends at the image's
size.  The loop device goes away with the last mount: a killed host leaves none.

Project quotas would take no device, but many kernels and file systems have none; a tmpfs
would hold disks in memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import time
from pathlib import Path

from discovery_xp import files
from discovery_xp.errors import Failed, Refused
from discovery_xp.providers.local.run import run

# What hosts are given where the topology has no `disk`; images of a deployment and its load
# take under 3 GiB.  A host gets no more than half of what is free, so that it can't fill it.
DEFAULT_BYTES = {"master": 20 * 2**30, "data": 20 * 2**30}
DEFAULT_OTHERS_BYTES = 10 * 2**30
LEAST_BYTES = 64 * 2**20
# discard: what a host deletes is the machine's again. Nothing on the image itself is run.
MOUNT_OPTIONS = "noinit_itable,discard,nosuid,nodev"

_LOOP_CONTROL = Path("/dev/loop-control")
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_AUTOCLEAR, _DIRECT_IO = 4, 16
_BUSY_TRIES = 1000


def check() -> None:
    """Raise Refused where this kernel has no loop devices."""
    try:
        os.close(os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Refused(
            f"this kernel has no loop devices for the hosts' disks ({error.strerror})",
            "load the module: 'modprobe loop'",
        ) from None


def size_bytes(limit_bytes: int | None, roles: tuple[str, ...], place: Path) -> int:
    """The size of a new host's disk, at least 64 MiB; `place` is on the disk that holds it."""
    if limit_bytes is not None:
        return max(LEAST_BYTES, limit_bytes)
    usual = max(DEFAULT_BYTES.get(role, DEFAULT_OTHERS_BYTES) for role in roles)
    return max(LEAST_BYTES, min(usual, shutil.disk_usage(place).free // 2))


def make(image: Path, size: int) -> None:
    """Make an image of `size` bytes, unless it is there; raises Failed where it can't be.

    It takes some 200 KB of disk, and what the host writes.  The small journal lets it be
    mounted after the machine lost its power.
    """
    if image.exists():
        return
    unfinished = image.with_name(f".{image.name}")
    unfinished.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, files.PRIVATE_FILE)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-O", "^resize_inode",
         "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", str(unfinished)])  # fmt: skip
    unfinished.rename(image)


def attach(image: Path, wait_s: float = 20.0) -> tuple[int, Path]:
    """Give an image a loop device; returns an open descriptor of it, and its path.

    The device is freed once it is neither open nor mounted.  A killed host's is freed a moment
    after its last process: mounted twice, a disk would be destroyed.  Raises Failed when
    another device has the image after `wait_s`.
    """
    # util-linux' mount can't have the device skip the page cache: it would hold all twice.
    backing = os.open(image, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _hold(backing, image, time.monotonic() + wait_s)
        with _LOOP_CONTROL.open("rb+", buffering=0) as control:
            for _ in range(_BUSY_TRIES):
                number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
                device = Path(f"/dev/loop{number}")
                descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(descriptor, _LOOP_CONFIGURE, _configuration(backing, image))
                except OSError as error:
                    os.close(descriptor)
                    if error.errno == errno.EBUSY:  # somebody was quicker
                        continue
                    raise
                return descriptor, device
    except OSError as error:
        raise Failed(f"{image} can't be attached: {error.strerror}", "see dmesg") from None
    finally:
        os.close(backing)
    raise Failed("no loop device is free", "try again")


def _hold(backing: int, image: Path, deadline: float) -> None:
    """Lock an open image: the device keeps the file open, and so the lock, as long as it is."""
    while True:
        try:
            fcntl.flock(backing, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failed(f"{image} is in use still", "see 'losetup', then try again") from None
            time.sleep(0.02)


def _configuration(backing: int, image: Path) -> bytes:
    """The kernel's `struct loop_config` (linux/loop.h)."""
    name = os.fsencode(image)[-63:]
    info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO,
                       name, b"", b"", 0, 0)  # fmt: skip
    return struct.pack("=2I", backing, 0) + info + bytes(64)


def usage_bytes(image: Path, init: int | None) -> tuple[int, int] | None:
    """What a host has written to its disk, and what it may, without the file system's own tables.

    By the file system while the host's first process, `init`, runs; by the image otherwise.
    None where it has no disk.
    """
    if init is not None:
        with contextlib.suppress(OSError):
            status = os.statvfs(f"/proc/{init}/root")
            # ext4 keeps some of what is free for itself: a full disk has none available.
            reserved = status.f_bfree - status.f_bavail
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            return used, (status.f_blocks - reserved) * status.f_frsize
    with contextlib.suppress(OSError):
        described = image.stat()
        return described.st_blocks * 512, described.st_size
    return None
