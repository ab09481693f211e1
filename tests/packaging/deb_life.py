"""`make deb-test`: the package's life in a bare Debian 12 tree: install, upgrade, downgrade, remove, purge.

`python -m tests.packaging.deb_life OLD.deb NEW.deb`; needs root. No systemd runs in the tree (under a real one:
`make package-test`), and no network: each dpkg works in a network namespace of its own. Prints each step; the first
that does not hold ends it.

1. What is installed belongs to root, can be changed by root alone, and is what the package's checksums say: also after
   root has used it, as bytecode is part of it.
2. Settings, keys and state pass all of it unchanged; purging takes them only when told to.
3. Back to an older version only while that can read the journals.
4. After a purge nothing is there that was not there before.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.packaging.package_test.machine import bootstrap

KEPT = ("etc/gpupool", "var/lib/gpupool")
SETTINGS = 'data_dir = "/srv/journals"\n'
UNIT_LINK = "etc/systemd/system/multi-user.target.wants/gpupool-agent.service"
USERS = {f"etc/{name}{suffix}" for name in ("passwd", "group", "shadow", "gshadow") for suffix in ("", "-")}
"""Debian keeps a package's system user when the package goes."""
BOOKS = ("var/lib/dpkg/", "var/log/", "var/cache/", "run/", "tmp/", "dev/", "proc/", "sys/")

_JOURNAL = """
import os, sqlite3, sys
path, schema = sys.argv[1:]
fresh = not os.path.exists(path)
database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
if fresh:
    database.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID")
database.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (schema.encode(),))
os._exit(0)  # as a kill leaves it: what was written stands in the log beside the file
"""


class Tree:
    """A bare Debian 12 in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the tree, without a network; its output is one text."""
        settings = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root", **environment}
        alone = ["unshare", "--net", "--pid", "--fork", "--mount", f"--mount-proc={self.root / 'proc'}"]
        return subprocess.run(
            [*alone, "chroot", self.root, *command],
            env=settings | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def must(self, *command: str, **environment: str) -> str:
        """Run a command that has to succeed; its output."""
        done = self.run(*command, **environment)
        _check(done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def install(self, package: Path, **environment: str) -> str:
        """Install a package that has to install; what was said."""
        return self.must("dpkg", "--install", self.bring(package), **environment)

    def bring(self, package: Path) -> str:
        """Copy a file in; its path there."""
        shutil.copy(package, self.root / "tmp")
        return f"/tmp/{package.name}"

    def version(self) -> str:
        """The version that is installed, as dpkg and the command itself name it alike."""
        named = self.must("dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", "gpupool-agent")
        said = self.must("gpupool", "version")
        version = named.removesuffix(" installed")
        _check(version in said, f"dpkg has {named}, gpupool says {said}")
        return version

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Every path with mode, owner and group, without what Debian keeps books of."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            for name in (*folders, *names):
                path = Path(folder, name)
                relative = str(path.relative_to(self.root))
                if not relative.startswith(BOOKS) and f"{relative}/" not in BOOKS:
                    status = path.lstat()
                    found[relative] = (status.st_mode, status.st_uid, status.st_gid)
        return found

    def journal(self, path: str, schema: int) -> None:
        """Make a journal of a schema, or let one be of another."""
        self.must("python3", "-I", "-c", _JOURNAL, path, str(schema))

    def belongings(self) -> dict[str, tuple[bytes, int]]:
        """The operator's files: contents and modes."""
        places = (*KEPT, "srv", "etc/systemd/system/gpupool-agent.service.d")
        paths = [path for place in places for path in (self.root / place).rglob("*") if path.is_file()]
        return {
            str(path): (path.read_bytes(), path.stat().st_mode)
            for path in paths
            if not path.name.endswith(("-wal", "-shm"))  # whoever looks into a journal may make them anew
        }


def main() -> None:
    """Run all steps. Raises AssertionError at the first that does not hold."""
    old, new = (Path(each) for each in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="gpupool-tree-") as folder:
        tar, tree = Path(folder, "bare.tar"), Tree(Path(folder, "tree"))
        bootstrap(tar)
        tree.root.mkdir()
        subprocess.run(["tar", "--extract", f"--directory={tree.root}", f"--file={tar}"], check=True)
        before = tree.files()
        steps: tuple[Callable[[], None], ...] = (
            lambda: install(tree, old, before),
            lambda: use(tree),
            lambda: upgrade(tree, old, new),
            lambda: downgrade(tree, old, new),
            lambda: remove(tree, new),
            lambda: purge(tree, new, before),
        )
        for number, step in enumerate(steps, 1):
            step()
            sys.stdout.write(f"step {number} of {len(steps)} held\n")


def install(tree: Tree, package: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Installs without a network, a question or a start; the right owners and modes."""
    said = tree.install(package)
    _check("not started" in said and "gpupool init" in said, said)
    _check(tree.must("dpkg", "--verify", "gpupool-agent") == "", "files are not what was packed")
    user, group = (tree.must("id", flag, "gpupool").strip() for flag in ("--user", "--group"))
    after = tree.files()
    own = {path: after[path] for path in after.keys() - before.keys() - USERS}
    _check(own["etc/gpupool"] == (stat.S_IFDIR | 0o750, 0, int(group)), "mode or owner of /etc/gpupool")
    _check(own["var/lib/gpupool"] == (stat.S_IFDIR | 0o700, int(user), int(group)), "mode or owner of /var/lib/gpupool")
    for path, (mode, owner, group_of) in own.items():
        if path not in KEPT:
            _check((owner, group_of) == (0, 0), f"{path}: belongs to {owner}:{group_of}")
            loose = 0 if stat.S_ISLNK(mode) else mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID)
            _check(not loose, f"{path}: mode {mode:o}")
    _check((tree.root / UNIT_LINK).is_symlink(), "the unit is not enabled")
    _check(tree.must("dpkg-query", "--show", "--showformat=${Conffiles}", "gpupool-agent") == "", "there is a conffile")


def use(tree: Tree) -> None:
    """Works as root and as its user, whatever the environment says; writes nothing beside its files."""
    before = tree.files()
    tree.must("gpupool", "--help", PYTHONPATH="/nowhere", PYTHONHOME="/nowhere")
    tree.must("runuser", "--user", "gpupool", "--", "gpupool", "doctor", "--help")
    for name in ("man/man1/gpupool.1.gz", "bash-completion/completions/gpupool", "gpupool-agent/prometheus"):
        _check((tree.root / "usr/share" / name).exists(), f"/usr/share/{name} is missing")
    made = {path for path in tree.files().keys() - before.keys() if path.startswith("opt/")}
    _check(not made, f"made while in use: {sorted(made)[:5]}")


def upgrade(tree: Tree, old: Path, new: Path) -> None:
    """What the operator wrote stays as it is."""
    _check(tree.version() in old.name, "the old version is not installed")
    for path, text, mode in (
        ("etc/gpupool/agent.toml", SETTINGS, 0o640),
        ("etc/gpupool/node.key", "a key\n", 0o600),
        ("etc/gpupool/second/agent.toml", "", 0o640),
        ("etc/systemd/system/gpupool-agent.service.d/own.conf", "[Service]\nMemoryMax=2G\n", 0o644),
    ):
        file = tree.root / path
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
        file.chmod(mode)
    (tree.root / "srv/journals").mkdir()
    for path in ("/var/lib/gpupool/journal.sqlite", "/srv/journals/journal.sqlite"):
        tree.journal(path, 1)
    before = tree.belongings()
    said = tree.install(new)
    _check("gpupool init" not in said, said)
    _check(tree.version() in new.name, "the new version is not installed")
    _check(tree.belongings() == before, "an upgrade changed the operator's files")
    _check(tree.must("dpkg", "--verify", "gpupool-agent") == "", "files are not what was packed")


def downgrade(tree: Tree, old: Path, new: Path) -> None:
    """Goes back while the old version reads all journals, is refused otherwise, and can be forced."""
    tree.install(old)
    tree.install(new)
    for journal in ("/var/lib/gpupool/journal.sqlite", "/srv/journals/journal.sqlite"):
        tree.journal(journal, 1_000)
        before = tree.belongings()
        refused = tree.run("dpkg", "--install", tree.bring(old))
        _check(refused.returncode != 0, f"went back behind {journal}")
        for told in (journal, "schema 1000", "GPUPOOL_ALLOW_DOWNGRADE=1", "docs/upgrading.md"):
            _check(told in refused.stdout, f"the refusal does not say {told}:\n{refused.stdout}")
        _check(tree.version() in new.name, "the new version did not stay")
        _check(tree.belongings() == before, "a refused downgrade changed the operator's files")
        tree.journal(journal, 1)
    for file in (tree.root / "var/lib/gpupool").glob("journal.sqlite*"):
        file.unlink()
    (tree.root / "var/lib/gpupool/journal.sqlite").write_bytes(b"no database at all, but bytes" * 100)
    refused = tree.run("dpkg", "--install", tree.bring(old))
    _check(refused.returncode != 0 and "not a database" in refused.stdout, "went back behind a journal it cannot read")
    tree.must("dpkg", "--remove", "gpupool-agent")
    refused = tree.run("dpkg", "--install", tree.bring(old))
    _check(refused.returncode != 0, "went back by way of removing")
    tree.install(old, GPUPOOL_ALLOW_DOWNGRADE="1")
    _check(tree.version() in old.name, "the downgrade was not done, though forced")
    tree.install(new)


def remove(tree: Tree, new: Path) -> None:
    """Takes the program, leaves what is the operator's; installing it again finds that."""
    before = tree.belongings()
    tree.must("dpkg", "--remove", "gpupool-agent")
    for gone in ("opt/gpupool-agent", "usr/bin/gpupool", "lib/systemd/system/gpupool-agent.service"):
        _check(not (tree.root / gone).is_symlink() and not (tree.root / gone).exists(), f"/{gone} is still there")
    _check(tree.belongings() == before, "removing changed the operator's files")
    tree.install(new)
    _check(tree.belongings() == before, "installing again changed the operator's files")


def purge(tree: Tree, new: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Leaves keys and journals and says so; takes them only if told to; leaves nothing else."""
    belongings = tree.belongings()
    said = tree.must("dpkg", "--purge", "gpupool-agent")
    _check(all(f"/{place}" in said for place in KEPT) and "GPUPOOL_PURGE_STATE=1" in said, said)
    _check(tree.belongings() == belongings, "purging took what is the operator's")
    own = (*KEPT, "srv/", "etc/systemd/system/gpupool-agent.service.d")
    left = {path for path in tree.files().keys() - before.keys() - USERS if not path.startswith(own)}
    _check(not left, f"left behind: {sorted(left)[:10]}")
    tree.install(new)
    tree.must("dpkg", "--purge", "gpupool-agent", GPUPOOL_PURGE_STATE="1")
    _check(not any((tree.root / place).exists() for place in KEPT), "purging with the state left state")
    _check((tree.root / "srv/journals/journal.sqlite").exists(), "a journal elsewhere was taken")
    after = tree.files()
    kept = {
        path: was for path, was in before.items() if path not in (*USERS, "opt")
    }  # dpkg takes an /opt that is empty
    changed = {path for path, was in kept.items() if after.get(path) != was}
    _check(not changed, f"gone, or of another mode or owner than before: {sorted(changed)[:10]}")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


if __name__ == "__main__":
    main()
