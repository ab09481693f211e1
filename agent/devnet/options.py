"""What the dev network's command line may ask for, and what is refused before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import is_http_url
from agent.devnet.cheats import require_cheat
from agent.devnet.layout import Host, Seat, Tables, slower
from agent.errors import ConfigError

AGENTS_MAX = 25
EPOCHS_MAX = 1000
EPOCH_S_MIN, EPOCH_S_MAX = 15, 86_400
RATE_MAX = 1000.0
COCOON_EPOCHS_MIN = 2
"""The pool counts from its first reading of a worker contract, which ends the first epoch."""
COCOON_EPOCH_S_MIN = 20
"""Of up to eight agents: the proxy pays between that reading and the last windows of the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetOptions:
    """What the command line asks for, and three things for tests alone.

    `agent_arguments` replaces `run --config FILE` where a test needs a liar; `host_of` says where the parts run
    ("chain", "agent-0", ...) where it needs a network of its own; `demands` is what it needs of the policy.
    """

    agents: int = 4
    epochs: int = 3
    epoch_s: int = 25
    directory: Path | None = None
    keep: bool = False
    engine_url: str | None = None
    chaos: str | None = None
    """None, or what breaks: `kill` or `restart` an agent, `chain`."""
    source: str = "engine"
    """What the agents measure: an inference `engine`, or a `cocoon` worker that a proxy pays on chain."""
    receipts: bool = False
    """Whether a gateway signs for what each engine served."""
    cheat: str | None = None
    """None, or how the last agent cheats: one of `CHEATS`."""
    policy_level: str | None = None
    """None, or what the policy demands: one of `LEVELS`."""
    seed: int = 1
    rate: float = 4.0
    """Requests per second at the first engine; each further one has half as many more. With `cheat`, all are equal."""
    as_json: bool = False
    agent_arguments: Callable[[Seat], Sequence[str]] = field(
        default=lambda seat: ("-m", "agent", "run", "--config", str(seat.config))
    )
    host_of: Callable[[str], Host] = field(default=lambda name: Host())
    demands: Tables = field(default_factory=dict)

    @property
    def has_gateway(self) -> bool:
        """Whether somebody signs receipts: where that is asked for, or the policy counts by them."""
        is_needed = self.receipts or self.cheat == "forge" or self.policy_level == "receipted"
        return self.source == "engine" and is_needed


def require_options(options: DevnetOptions) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: an option is out of range, or the folder is no empty folder.
    """
    if not 1 <= options.agents <= AGENTS_MAX:
        raise ConfigError(f"--agents: expected 1 to {AGENTS_MAX}, got {options.agents}")
    if not 1 <= options.epochs <= EPOCHS_MAX:
        raise ConfigError(f"--epochs: expected 1 to {EPOCHS_MAX}, got {options.epochs}")
    if not EPOCH_S_MIN <= options.epoch_s <= EPOCH_S_MAX:
        raise ConfigError(f"--epoch-seconds: expected {EPOCH_S_MIN} to {EPOCH_S_MAX}, got {options.epoch_s}")
    if not (math.isfinite(options.rate) and 0 <= options.rate <= RATE_MAX):
        raise ConfigError(f"--rate: expected 0 to {RATE_MAX:g} requests per second, got {options.rate:g}")
    if options.engine_url is not None and not is_http_url(options.engine_url):
        raise ConfigError(f"--engine {options.engine_url}: expected a URL like http://127.0.0.1:8000/metrics")
    if options.chaos in ("kill", "restart") and options.agents < 4:
        raise ConfigError(f"--chaos {options.chaos}: needs at least 4 agents: two of three are no quorum")
    if options.chaos == "restart" and options.epochs < 2:
        raise ConfigError("--chaos restart: needs --epochs 2 or more: the agent comes back in the second one")
    _require_source(options)
    if options.cheat is not None:
        require_cheat(
            options.cheat,
            agents=options.agents,
            source=options.source,
            chaos=options.chaos,
            is_engine_real=options.engine_url is not None,
        )
    _require_folder(options.directory)


def _require_source(options: DevnetOptions) -> None:
    if options.source == "cocoon":
        for name, is_given in (("--engine", options.engine_url is not None), ("--receipts", options.receipts)):
            if is_given:
                raise ConfigError(f"{name}: is for --source engine; a Cocoon worker's tokens stand on chain")
        epoch_s_min = COCOON_EPOCH_S_MIN * slower(options.agents)
        if options.epochs < COCOON_EPOCHS_MIN or options.epoch_s < epoch_s_min:
            raise ConfigError(
                f"--source cocoon: needs --epochs {COCOON_EPOCHS_MIN} and --epoch-seconds {epoch_s_min}, or more: "
                "the pool counts from its first reading of a worker contract, at the end of the first epoch"
            )
    elif options.has_gateway and options.engine_url is not None:
        raise ConfigError("--engine: not together with receipts: the gateway asks stand-in engines what they served")


def _require_folder(directory: Path | None) -> None:
    if directory is None:
        return
    try:
        if any(directory.iterdir()):
            raise ConfigError(f"--dir: {directory} is not empty; remove it or name another folder")
    except FileNotFoundError:
        return  # it will be made
    except OSError as error:
        raise ConfigError(f"--dir: {directory} cannot be used as a folder: {error.strerror}") from error
