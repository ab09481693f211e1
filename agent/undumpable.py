"""Keeps keys out of core dumps, and other processes of the same user out of this one's memory.

What crashes says where (Python's fault handler, to standard error; no values); what it held, nobody is told.

Source: prctl(2), PR_SET_DUMPABLE; core(5); Python, "faulthandler".
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Have the kernel write no core of this process, and let nobody but root trace it.

    Raises:
        OSError: the kernel refuses.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if sys.__stderr__ is not None:  # it is closed: then a crash has nowhere to say where
        faulthandler.enable(sys.__stderr__)
