"""Checks of this host: settings and keys, disk and journal, the agent's process, clock, what proves the host.

In the order in which one thing keeps the next from working: what stops the agent from starting, or makes it of no use
that it runs, comes before the agent that is down; a policy that is not the pool's too.
"""

from __future__ import annotations

import shlex

from agent.doctor.checks import ABOVE, Check, Trouble, tried
from agent.doctor.facts import DaemonFacts, DaemonState, DoesNotApplyError, Facts, NotKnownError, Trial, Unknown, known
from agent.doctor.findings import FindingClass, Severity

DISK_FULL_BYTES = 64 << 20
"""Less free space than the journal's own log may take (64 MiB)."""
DISK_LOW_BYTES = 1 << 30
CLOCK_OFF_MAX_S = 60
"""As the agent's own readiness has it."""

STEP_SHOWN_S = 3600
MEMORY_LOW_PERCENT = 90

_SETTINGS, _HOST = FindingClass.SETTINGS, FindingClass.HOST
_PROBLEM, _WARNING = Severity.PROBLEM, Severity.WARNING


def _config(facts: Facts) -> Trouble | None:
    return tried(facts.settings.config, "mend what it names, or name another file with --config")


def _node_key(facts: Facts) -> Trouble | None:
    return _key(facts, "node_key", facts.settings.node_key)


def _wallet_key(facts: Facts) -> Trouble | None:
    return _key(facts, "wallet_key", facts.settings.wallet_key)


def _key(facts: Facts, name: str, trial: Trial) -> Trouble | None:
    """What is wrong with a key's file; an agent that runs has read it long ago, or was handed it by systemd."""
    if name in facts.settings.denied_keys:
        if not _is_down(facts):
            raise NotKnownError("this user may not read the key: run with sudo to check it")
        return tried(trial, "run the doctor with sudo; if this user shall run the agent, give it the file (chown)")
    trouble = tried(trial, "mend the file; a lost key comes from its backup alone (gpupool keys restore)")
    closed = facts.settings.closed_keys.get(name)
    if trouble is None or closed is None:
        return trouble
    fix = f"chmod 600 {shlex.quote(closed)}"
    if isinstance(facts.daemon, Unknown) or facts.daemon.state is not DaemonState.UP:
        return Trouble(trouble.cause, fix)
    later = "the agent that runs earns on; it will not start again, and you cannot claim"
    return Trouble(f"{trouble.cause}; {later}", fix, _WARNING)


def _is_down(facts: Facts) -> bool:
    return isinstance(facts.daemon, DaemonFacts) and facts.daemon.state is DaemonState.DOWN


def _policy_file(facts: Facts) -> Trouble | None:
    return tried(facts.settings.policy, "get the pool's policy document from its operators")


def _servers(facts: Facts) -> Trouble | None:
    return tried(facts.settings.servers, "download the network's global config anew, or name liteservers in [chain]")


def _proof_files(facts: Facts) -> Trouble | None:
    return tried(facts.settings.proof, "mend [attestation] in the settings")


def _data_dir(facts: Facts) -> Trouble | None:
    return tried(known(facts.host).data_dir, "make it, owned and writable by the agent's user, or mend data_dir")


def _disk_full(facts: Facts) -> Trouble | None:
    free = known(known(facts.host).free_bytes)
    if free >= DISK_FULL_BYTES:
        return None
    return Trouble(f"{free >> 20} MiB are left on the disk of the data folder", "make room; then start the agent again")


def _disk_low(facts: Facts) -> Trouble | None:
    free = known(known(facts.host).free_bytes)
    if not DISK_FULL_BYTES <= free < DISK_LOW_BYTES:
        return None
    return Trouble(f"{free >> 20} MiB are left on the disk of the data folder", "make room before it is full")


def _journal_missing(facts: Facts) -> Trouble | None:
    cause = known(facts.journal).missing
    fix = (
        "`gpupool db import` the newest export, never an older copy of the file; without one `gpupool run --fresh` "
        "asks the operators what this key signed; a new agent: `gpupool init`"
    )
    return None if cause is None else Trouble(cause, fix)


def _journal_foreign(facts: Facts) -> Trouble | None:
    cause = known(facts.journal).foreign
    fix = "mend pool.address, pool.network or identity.node_key_file; or name the data_dir of that pool's agent"
    return None if cause is None else Trouble(cause, fix)


def _journal_unusable(facts: Facts) -> Trouble | None:
    return tried(known(facts.journal).unusable, "mend what the message names; the agent cannot start before")


def _journal_damaged(facts: Facts) -> Trouble | None:
    fix = "stop the agent, move the file away, `gpupool db import` the newest export; see `gpupool db check`"
    return tried(known(facts.journal).damage, fix)


def _log_dead(facts: Facts) -> Trouble | None:
    settled = known(known(facts.journal).settled)
    if settled is None or not settled.is_dead:
        return None
    return Trouble(
        "the own log has forked or was closed: nothing of this node key ever counts again",
        "find out who else used the key, then replace it: gpupool keys rotate; stake, wallet and reputation stay",
    )


def _key_in_use(facts: Facts) -> Trouble | None:
    fix = "stop the other agent, or give this one keys of its own (gpupool init): two that sign with one key destroy it"
    if known(facts.daemon).state is DaemonState.UP:
        told = known(facts.status().versions).key_in_use
        return None if told is None else Trouble(f"{told.text}; this agent goes on", fix, _WARNING)
    stopped = known(facts.journal).key_in_use
    return None if stopped is None else Trouble(f"the agent stopped: {stopped}", fix)


def _web_port(facts: Facts) -> Trouble | None:
    daemon = known(facts.daemon)
    if daemon.state is DaemonState.STRANGER:
        return Trouble(daemon.detail, "stop what answers there, or set another web.port")
    return tried(_port(facts, known(facts.host).web_port), "stop what listens there, or set another web.port")


def _receipts_port(facts: Facts) -> Trouble | None:
    trial = _port(facts, known(facts.host).receipts_port)
    trouble = tried(trial, "stop what listens there, or set another receipts.port")
    if trouble is None:
        return None
    try:
        earns_on = facts.policy().receipts.ceiling != "receipts"
    except NotKnownError:
        earns_on = False
    return Trouble(trouble.cause, trouble.fix, _WARNING) if earns_on else trouble


def _p2p_port(facts: Facts) -> Trouble | None:
    trial = _port(facts, known(facts.host).p2p_ports)
    return tried(trial, "stop what listens there, or set another address in p2p.listen")


def _port(facts: Facts, trial: Trial) -> Trial:
    """What came of trying a port, which an agent that runs holds itself."""
    if known(facts.daemon).state in (DaemonState.UP, DaemonState.SILENT):
        raise DoesNotApplyError("the agent runs")
    return trial


def _policy_now(facts: Facts) -> Trouble | None:
    """Without a policy of the pool's no agent starts, so this is asked before whether one runs."""
    wanted, held = known(facts.pool).rewards.running.terms.policy_hash, known(facts.policies)
    if wanted in held:
        return None
    files = zip(facts.settings.policy_files, held, strict=True)
    mine = "; ".join(f"{file}: its hash is {policy_hash.hex()}" for file, policy_hash in files)
    return Trouble(
        f"{mine}; the running epoch is counted by policy {wanted.hex()}",
        "get that document from the pool's operators, name it as pool.policy_file, start the agent anew",
    )


def _journal_locked(facts: Facts) -> Trouble | None:
    daemon = known(facts.daemon)
    if daemon.state is not DaemonState.SILENT or daemon.holder is None or daemon.holder.is_agent:
        return None
    return Trouble(
        f"{daemon.holder} holds the journal, and no agent can start meanwhile",
        f"wait until it has ended, or end it (kill {daemon.holder.pid}); then start the agent",
    )


def _agent_silent(facts: Facts) -> Trouble | None:
    daemon = known(facts.daemon)
    if daemon.state is not DaemonState.SILENT:
        return None
    holder = "a process" if daemon.holder is None else str(daemon.holder)
    return Trouble(
        f"{holder} holds the journal, but no agent answers: {daemon.detail}",
        "if it has just started, wait; else look at its log (journalctl -u gpupool-agent) and start it again",
    )


def _agent_down(facts: Facts) -> Trouble | None:
    daemon = known(facts.daemon)
    if daemon.state is not DaemonState.DOWN:
        return None
    return Trouble(
        f"the agent does not run: {daemon.detail}",
        f"{ABOVE}start it: systemctl start gpupool-agent; why it ended its log says: journalctl -u gpupool-agent",
    )


def _agent_foreign(facts: Facts) -> Trouble | None:
    own, answers = known(facts.node_key), known(facts.status().agent).node_key
    if answers == own.hex():
        return None
    return Trouble(
        f"the agent that answers has another node key ({answers[:16]}) than these settings",
        "name the settings of the agent that runs (--config), or give each agent a web.port of its own",
    )


def _agent_stuck(facts: Facts) -> Trouble | None:
    return tried(known(facts.daemon).healthy, "start the agent again; report it with its log")


def _agent_outdated(facts: Facts) -> Trouble | None:
    runs = known(facts.status().agent).version
    if runs == facts.version:
        return None
    return Trouble(f"the agent that runs is {runs}, installed is {facts.version}", "restart the agent")


def _agent_before_settings(facts: Facts) -> Trouble | None:
    started_s = facts.now_s - known(facts.status().agent).uptime_s
    if known(facts.settings.changed_s) <= started_s:
        return None
    with_them = f"; with them: {'; '.join(facts.untried)}" if facts.untried else ""
    return Trouble(
        f"the settings were written after the agent started{with_them}",
        f"{ABOVE}restart the agent, so that it reads them",
    )


def _clock_behind(facts: Facts) -> Trouble | None:
    ahead_s = known(known(facts.chain).clock_ahead_s)
    if ahead_s >= -CLOCK_OFF_MAX_S:
        return None
    return Trouble(f"this host's clock is {-ahead_s} s behind the chain's", "set it: timedatectl set-ntp true")


def _stepped_back(facts: Facts) -> Trouble | None:
    step = known(facts.status().clock_step_back)
    if step is None or not 0 <= facts.now_s - step.at_s <= STEP_SHOWN_S:
        return None
    return Trouble(
        f"this host's clock was set back by {step.by_s} s, {facts.now_s - step.at_s} s ago: so much work is lost",
        "let NTP slew the clock instead of setting it (timedatectl set-ntp true); see what else sets it",
    )


def _memory(facts: Facts) -> Trouble | None:
    memory = known(facts.status().memory)
    if memory is None:
        raise DoesNotApplyError("the agent's memory is not limited")
    used_percent = 100 * memory.used_bytes // max(1, memory.limit_bytes)
    if used_percent < MEMORY_LOW_PERCENT:
        return None
    return Trouble(
        f"the agent uses {memory.used_bytes >> 20} of {memory.limit_bytes >> 20} MiB that {memory.limited_by} lets it "
        f"have ({used_percent} %): beyond that the kernel ends it",
        "raise the limit (systemctl edit gpupool-agent); report it, if the agent needs more and more",
    )


def _prover(facts: Facts) -> Trouble | None:
    trouble = tried(known(facts.host).prover, "bring it back: docs/attestation.md says what each provider needs")
    if trouble is None:
        return None
    try:
        is_proven = known(facts.status().evidence).valid
    except NotKnownError:
        is_proven = False
    return Trouble(trouble.cause, trouble.fix, _WARNING) if is_proven else trouble


CHECKS = tuple(
    Check(code=code, clazz=clazz, severity=severity, fine=fine, look=look)
    for code, clazz, severity, fine, look in (
        ("config-unusable", _SETTINGS, _PROBLEM, "the settings can be read", _config),
        ("node-key-unusable", _SETTINGS, _PROBLEM, "the node key can be used", _node_key),
        ("wallet-key-unusable", _SETTINGS, _PROBLEM, "the wallet key can be used", _wallet_key),
        ("policy-file-unusable", _SETTINGS, _PROBLEM, "the policy documents can be read", _policy_file),
        ("liteserver-list-unusable", _SETTINGS, _PROBLEM, "liteservers are named", _servers),
        ("proof-files-unusable", _SETTINGS, _PROBLEM, "the files of [attestation] can be read", _proof_files),
        ("data-folder-unusable", _HOST, _PROBLEM, "the data folder can be written", _data_dir),
        ("disk-full", _HOST, _PROBLEM, "there is room on the disk", _disk_full),
        ("journal-missing", _HOST, _PROBLEM, "there is a journal", _journal_missing),
        ("journal-foreign", _SETTINGS, _PROBLEM, "the journal is of this node key and pool", _journal_foreign),
        ("journal-unusable", _HOST, _PROBLEM, "the journal can be opened", _journal_unusable),
        ("journal-damaged", _HOST, _PROBLEM, "the journal is sound", _journal_damaged),
        ("log-dead", FindingClass.SETTLEMENT, _PROBLEM, "the own log is whole", _log_dead),
        ("key-in-use-elsewhere", _SETTINGS, _PROBLEM, "nobody else uses the node key", _key_in_use),
        ("web-port-taken", _HOST, _PROBLEM, "the port for questions is the agent's, or free", _web_port),
        ("receipts-port-taken", _HOST, _PROBLEM, "the port for receipts is free", _receipts_port),
        ("p2p-port-taken", FindingClass.NETWORK, _PROBLEM, "the ports for other agents are free", _p2p_port),
        ("policy-missing", FindingClass.CHAIN, _PROBLEM, "the policy in force is here", _policy_now),
        ("journal-locked", _HOST, _PROBLEM, "nobody but the agent holds the journal", _journal_locked),
        ("agent-silent", _HOST, _PROBLEM, "whoever holds the journal answers", _agent_silent),
        ("agent-down", _HOST, _PROBLEM, "the agent runs", _agent_down),
        ("agent-foreign", _SETTINGS, _PROBLEM, "the agent that answers is that of these settings", _agent_foreign),
        ("agent-stuck", _HOST, _PROBLEM, "the agent does its work", _agent_stuck),
        ("agent-outdated", _HOST, _WARNING, "the agent that runs is the installed one", _agent_outdated),
        ("agent-before-settings", _SETTINGS, _WARNING, "the agent runs with these settings", _agent_before_settings),
        ("disk-low", _HOST, _WARNING, "there is plenty of room on the disk", _disk_low),
        ("clock-behind", _HOST, _PROBLEM, "this host's clock is not behind", _clock_behind),
        ("clock-stepped-back", _HOST, _WARNING, "this host's clock was not set back of late", _stepped_back),
        ("memory-low", _HOST, _WARNING, "the agent has memory to spare", _memory),
        ("prover-away", _HOST, _PROBLEM, "what proves this host is at hand", _prover),
    )
)
