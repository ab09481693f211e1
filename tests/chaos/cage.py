"""A cage for a run: namespaces of its own, in which rooms are made, and of which nothing is left when it ends.

`inside` runs a function in a child that is the first process of a new PID namespace, with mounts and network of its
own. However it ends, by an answer, a signal or SIGKILL, the kernel ends every process in it, and with them go mounts,
devices and network namespaces. Its network reaches nothing but the rooms: no route leads out.

A room is one more network namespace with one TUN device; `enter` is what goes before a command line that shall run
in it. Needs root, and /dev/net/tun.

Source: unshare(2), setns(2), pid_namespaces(7), network_namespaces(7), the kernel's networking/tuntap.rst.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.switch import ADDRESS

MTU = 1500
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x0002_0000, 0x2000_0000, 0x4000_0000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_PR_SET_PDEATHSIG = 1
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x4004_54CA, 0x0001, 0x1000
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A network namespace: its number, address, and the descriptors of the namespace and of its TUN device."""

    number: int
    namespace: int
    device: int

    @property
    def address(self) -> str:
        return ADDRESS.format(self.number + 1)

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command line; the process keeps its id."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self.namespace}", "--")


def hindrance() -> str | None:
    """Why no cage can be made here, in one line; None if one can."""
    missing = [name for name in ("ip", "nsenter", "mount") if shutil.which(name) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        return "needs root and /dev/net/tun"
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    return None


def inside(run: Callable[[], int]) -> int:
    """Run this in a cage; its exit code, or 128 + the signal that ended it. Signals are passed on to it.

    Raises:
        OSError: no namespaces can be made, for all that `hindrance` knows.
    """
    _call(_libc.unshare, _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWNET)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _settle_in()
            code = run()
        except BaseException:  # noqa: BLE001 -- nobody is above it in this process
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _settle_in() -> None:
    # Of its own session: what is typed at the terminal comes once, through the parent.
    os.setsid()
    _call(_libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call(_libc.mount, b"proc", b"/proc", b"proc", 0, None)


def make_room(number: int, *, is_home: bool = False) -> Room:
    """Make room `number`; the home room is the namespace of this process itself. Call it in the main thread.

    Raises:
        OSError, CalledProcessError: the kernel refuses.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if not is_home:
        _call(_libc.unshare, _CLONE_NEWNET)
    try:
        # Which namespace a device belongs to is settled when it is made.
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
        room = Room(
            number=number,
            namespace=os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC),
            device=device,
        )
        for command in (
            "ip link set lo up",
            f"ip address add {room.address}/24 dev tun0",
            f"ip link set tun0 mtu {MTU} up",
        ):
            subprocess.run(command.split(), check=True)
    finally:
        if not is_home:
            _call(_libc.setns, home, _CLONE_NEWNET)
        os.close(home)
    return room


def mount_small_disk(folder: Path, size_bytes: int) -> None:
    """A file system of this size at `folder`, for this cage alone.

    Raises:
        CalledProcessError: it cannot be mounted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "none", str(folder)], check=True)


def remove(directory: Path) -> None:
    """Remove a folder and all that is in it, small disks, too.

    Raises:
        CalledProcessError, OSError: a process still uses one, or something in it cannot be removed.
    """
    mounted = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for folder in mounted:
        if folder.is_relative_to(directory):
            subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(directory)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
