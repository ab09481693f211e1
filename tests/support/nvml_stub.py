"""The C stand-in for NVIDIA's library: compiled where a compiler is at hand, loaded by pynvml as the real one is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_stub.c")
LIBRARY = "libnvidia-ml.so.1"
COMPILER = shutil.which("cc") or shutil.which("gcc")
STATE_BYTES = 8192
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler here: NVIDIA's library has no stand-in")


def build(folder: Path) -> Path:
    """Compile the library into `folder`; needs `COMPILER`."""
    assert COMPILER is not None
    library = folder / LIBRARY
    # By this name, a process that has it already gives it to whoever asks for NVIDIA's.
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([COMPILER, *options, "-o", str(library), str(SOURCE)], check=True)
    return library


class Stub:
    """The state of the driver of all processes that find it (`environment`); keys and values are in the C file."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._path = folder / "nvml.state"
        self._values: dict[str, int | str] = {}
        self.environment = {"LD_LIBRARY_PATH": str(library.parent), "NVML_STUB": str(self._path)}
        self._path.write_bytes(bytes(STATE_BYTES))

    def set(self, **values: int | str | None) -> None:
        """Change values, from now on and in running processes too; `__` stands for a dot, None removes one."""
        for name, value in values.items():
            key = name.replace("__", ".")
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        text = "".join(f"{key}={value}\n" for key, value in self._values.items()).encode("latin-1")
        assert len(text) < STATE_BYTES
        # In place: the processes have the file mapped.
        with self._path.open("r+b") as file:
            os.pwrite(file.fileno(), text.ljust(STATE_BYTES, b"\0"), 0)
