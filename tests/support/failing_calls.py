"""System calls that fail, for a child process: a seccomp filter answers them with an error of the disk."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Sequence

import pytest

CALLS = {"pread64": 17, "pwrite64": 18, "fsync": 74, "fdatasync": 75}
"""Numbers on x86-64."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

needs_filter = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="call numbers are those of Linux on x86-64"
)


def fail_from_now_on(calls: Sequence[str], code: int = errno.EIO) -> None:
    """Let these system calls of this process fail with `code`, for ever."""
    program = [(_LOAD, 0, 0, 0)]  # the call's number is the first word of what a filter sees
    for call in calls:
        program += [(_JUMP_IF_EQUAL, 0, 1, CALLS[call]), (_RETURN, 0, 0, _ERRNO | code)]
    program.append((_RETURN, 0, 0, _ALLOW))
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(filters)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)):
        if prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
