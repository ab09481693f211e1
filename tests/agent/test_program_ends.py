"""However the program ends, there is one line and an exit code, and no traceback: as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TRACEBACK = "Traceback (most recent call last)"
KEY = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="
SHOWS = "(`gpupool --debug` shows where)"


def program(
    before: str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `before`, then the command, in a process of their own."""
    text = f"import sys\n{before}\nfrom agent.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", text, *arguments]
    environment = os.environ | (environment or {})
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, errors="replace")


INTERRUPT = """
class Finder:
    def find_spec(name, path, target=None):
        if name == "agent.command_line":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder)
"""
AFTER_MAIN = """
import agent.about
def version(options):
    {}
    return 0
agent.about.version = version
"""
THREAD = AFTER_MAIN.format("import threading; t = threading.Thread(target=lambda: 1 // 0); t.start(); t.join()")
AT_EXIT = AFTER_MAIN.format("import atexit; atexit.register(lambda: 1 // 0)")
FINALIZER = AFTER_MAIN.format("type('F', (), {'__del__': lambda self: 1 // 0})()")
LOG = AFTER_MAIN.format(
    "import logging; logging.getLogger('library').error('it broke', exc_info=ValueError('x\\\\ny'))"
)
WARNING = AFTER_MAIN.format("import warnings; warnings.warn('old')")
GROUP = AFTER_MAIN.format("raise BaseExceptionGroup('nursery', [ExceptionGroup('inner', [ZeroDivisionError('no')])])")
RECURSION = AFTER_MAIN.format("f = lambda: f(); f()")
MEMORY = AFTER_MAIN.format("raise MemoryError")


@pytest.mark.parametrize(
    ("before", "code", "said"),
    [
        (INTERRUPT, 130, ""),
        ("sys.modules['agent.doctor.parser'] = None", 70, "gpupool: unexpected ModuleNotFoundError: import of agent."),
        (THREAD, 0, f"gpupool: unexpected ZeroDivisionError: integer division or modulo by zero {SHOWS}\n"),
        (AT_EXIT, 0, f"gpupool: unexpected ZeroDivisionError: integer division or modulo by zero {SHOWS}\n"),
        (FINALIZER, 0, f"gpupool: unexpected ZeroDivisionError: integer division or modulo by zero {SHOWS}\n"),
        (LOG, 0, "gpupool: it broke\n"),
        (WARNING, 0, ""),
        (GROUP, 70, f"gpupool: unexpected ZeroDivisionError: no {SHOWS}\n"),
        (RECURSION, 70, "gpupool: unexpected RecursionError: maximum recursion depth exceeded"),
        (MEMORY, 70, f"gpupool: unexpected MemoryError:  {SHOWS}\n"),
    ],
    ids=["interrupt", "import", "thread", "exit", "finalizer", "log", "warning", "group", "recursion", "memory"],
)
def test_no_end_shows_a_traceback(before: str, code: int, said: str) -> None:
    done = program(before, "version")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


@pytest.mark.parametrize("before", [THREAD, AT_EXIT, FINALIZER, GROUP])
def test_debug_shows_it(before: str) -> None:
    assert TRACEBACK in program(before, "--debug", "version").stderr


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C"}])
def test_a_locale_without_letters(tmp_path: Path, locale: dict[str, str]) -> None:
    done = program("", "status", "--config", str(tmp_path / "größe.toml"), "--json", environment=locale)
    assert done.returncode == 2
    assert "gr" in done.stderr
    assert "missing" in done.stdout
    assert TRACEBACK not in done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("<&-", "gpupool: -: cannot be read: standard input is closed\n"),
        ("0>/dev/null", "gpupool: -: cannot be read: "),
    ],
)
def test_a_standard_input_that_cannot_be_read(source: str, said: str) -> None:
    command = f"{sys.executable} -m agent attest show - {source}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert TRACEBACK not in done.stderr


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-", ">&-", "<&-"])
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path, closed: str) -> None:
    code = (
        "import os, pathlib, sys; from agent import about, cli; p = pathlib.Path('fd');"
        "about.version = lambda _: p.write_text(str(p.open('a').fileno())) and 0; sys.exit(cli.main())"
    )
    command = f'{sys.executable} -c "{code}" version {closed}'
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True, env=environment)
    assert int((tmp_path / "fd").read_text()) > 2


def test_an_interrupt_while_it_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = ["--liteserver", f"127.0.0.1:{server.getsockname()[1]}:{KEY}", "--network", "-217"]
        command = [sys.executable, "-m", "agent", "pool", "status", "--pool", "0:" + "ab" * 32, *reach]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate()
            connection.close()
    assert (process.returncode, out, errors) == (130, "", "")
