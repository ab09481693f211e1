"""An agent on disk with a policy, a backup of it, and who can open that."""

from __future__ import annotations

from pathlib import Path

import pyrage
from journal_scene import own_config
from pool_fixture import POLICY_TEXT

from agent.cli import main
from agent.config import Config

OWNER = pyrage.x25519.Identity.generate()
TO_OWNER = f"--recipient={OWNER.to_public()}"


def agent_with_policy(folder: Path) -> Config:
    config = own_config(folder)
    (folder / "policy.toml").write_text(POLICY_TEXT)
    return config


def identity_file(path: Path) -> Path:
    path.touch(0o600)
    path.write_text(f"# made for this test\n{OWNER}\n")
    return path


def back_up(config: Config, path: Path) -> Path:
    assert main(["keys", "backup", str(path), "--config", str(config.path), TO_OWNER]) == 0
    return path


def restore(backup: Path, identity: Path, folder: Path, *more: str) -> int:
    """The exit code of `gpupool keys restore`."""
    return main(["keys", "restore", str(backup), f"--identity={identity}", f"--dir={folder}", *more])
