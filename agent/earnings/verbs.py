"""What `gpupool earnings` does: reads the ledger, whether the agent runs or not, and tells what each epoch brought."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.config import load_config
from agent.earnings.report import earnings
from agent.earnings.telling import earnings_csv, earnings_text, earnings_value, plot_earnings
from agent.errors import ConfigError, OperationError
from agent.ledger import ledger_file
from agent.ledger_reader import read_ledger
from agent.output import answer, note, say
from gossip.records import PoolId

STANDARD_OUTPUT = "-"


def show(options: argparse.Namespace) -> int:
    """Show what each epoch brought."""
    _require_fit(options)
    config = load_config(options.config)
    with read_ledger(ledger_file(config), PoolId(config.pool.global_id, config.pool.contract.account)) as ledger:
        rows, paid = ledger.epochs(), ledger.paid()
    lines = earnings(rows, paid, options.first, options.last)
    if options.plot is not None:
        plot_earnings(options.plot, lines)
        note(f"wrote {options.plot}")
    if options.csv == STANDARD_OUTPUT:
        say(earnings_csv(lines).rstrip("\n"))
        return 0
    if options.csv is not None:
        _write(Path(options.csv), earnings_csv(lines))
    return answer(options, earnings_value(lines), earnings_text(lines))


def _require_fit(options: argparse.Namespace) -> None:
    for name, epoch in (("--from", options.first), ("--to", options.last)):
        if epoch is not None and epoch < 1:
            raise ConfigError(f"{name} {epoch}: expected an epoch, 1 or later")
    if options.first is not None and options.last is not None and options.first > options.last:
        raise ConfigError(f"--from {options.first}: is after --to {options.last}")
    if options.csv == STANDARD_OUTPUT and options.json:
        raise ConfigError("--csv -: standard output takes one answer; name a file, or leave --json out")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperationError(f"--csv {path}: cannot be written: {error.strerror}") from error
