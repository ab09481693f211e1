"""Checks of what the chain says: whether it is reached, the pool on it, the own entry there, the wallet."""

from __future__ import annotations

from agent.doctor.checks import Check, Trouble, tried
from agent.doctor.facts import ChainFacts, DoesNotApplyError, Facts, NotKnownError, known
from agent.doctor.findings import FindingClass, Severity
from agent.policies import NeededPolicy, needed_policies
from agent.pool.values import utc
from agent.screens import ton, ton_exact
from contracts import fees
from contracts.model import Participant, ParticipantStatus, PoolStatus

BLOCK_OLD_S = 120
"""As the agent's own readiness has it."""
SERVER_BEHIND_S = 60

_PROBLEM, _WARNING, _NOTE = Severity.PROBLEM, Severity.WARNING, Severity.NOTE


def _unreachable(facts: Facts) -> Trouble | None:
    chain = known(facts.chain)
    if chain.error is None:
        return None
    fix = "check network and firewall towards the liteservers; name others in [chain]"
    try:
        form = known(facts.status().chain)
    except NotKnownError:
        return Trouble(f"no liteserver gives a block: {chain.error}", fix)
    if form.error is None and form.age_s is not None and form.age_s <= BLOCK_OLD_S:
        if known(facts.settings.changed_s) > facts.now_s - known(facts.status().agent).uptime_s:
            cause = f"by these settings, newer than the agent, no liteserver gives a block: {chain.error}"
            return Trouble(cause, "mend [chain] before the agent is started again", _WARNING)
        raise NotKnownError(f"the agent reaches the chain, this command does not: {chain.error}")
    return Trouble(f"no liteserver gives a block: {chain.error}", fix)


def _conflict(facts: Facts) -> Trouble | None:
    trouble = tried(_reached(facts).conflict, "one of them lies, or is of another network: take it out of [chain]")
    if trouble is None:
        return None
    try:
        is_stopped = known(facts.status().chain).error is not None
    except NotKnownError:
        is_stopped = False
    return Trouble(trouble.cause, trouble.fix, _PROBLEM) if is_stopped else trouble


def _network(facts: Facts) -> Trouble | None:
    chain = _reached(facts)
    found = known(chain.global_id)
    if found == chain.wanted_id:
        return None
    cause = f"the liteservers are of network {found}, the settings are for {chain.wanted_id}"
    return Trouble(cause, "mend pool.network, or name liteservers of that network")


def _stale(facts: Facts) -> Trouble | None:
    ahead_s = known(_reached(facts).clock_ahead_s)
    if ahead_s <= BLOCK_OLD_S:
        return None
    return Trouble(
        f"the newest block is {ahead_s} s old by this host's clock",
        "the chain stands, the liteservers are behind (name others), or the clock is ahead (timedatectl)",
    )


def _agent_off_chain(facts: Facts) -> Trouble | None:
    _reached(facts)
    form = known(facts.status().chain)
    fix = "wait if it has just started; else restart the agent; name more liteservers"
    return None if form.error is None else Trouble(f"the agent: {form.error}", fix)


def _servers_away(facts: Facts) -> Trouble | None:
    chain = _reached(facts)
    away = [f"{server.name}: {server.error}" for server in chain.servers if server.error is not None]
    newest_s = max((server.time_s for server in chain.servers if server.error is None), default=0)
    away += [
        f"{server.name}: {newest_s - server.time_s} s behind the others"
        for server in chain.servers
        if server.error is None and newest_s - server.time_s > SERVER_BEHIND_S
    ]
    if not away:
        return None
    asked = f"; {len(chain.servers)} of {chain.servers_known} asked" if len(chain.servers) < chain.servers_known else ""
    return Trouble("; ".join(away) + asked, "one that answers is enough; replace those that stay away")


def _reached(facts: Facts) -> ChainFacts:
    chain = known(facts.chain)
    if chain.error is not None:
        raise NotKnownError("the chain is not reached")
    return chain


def _pool_absent(facts: Facts) -> Trouble | None:
    return tried(facts.pool_absent, "mend pool.address and pool.network; update the agent if the pool was upgraded")


def _owner_phase(facts: Facts) -> Trouble | None:
    if known(facts.pool).state.operator_set is not None:
        return None
    return Trouble("the owner still runs the pool: nobody settles epochs", "wait for `gpupool pool hand-over`")


def _closed(facts: Facts) -> Trouble | None:
    if known(facts.pool).state.status is not PoolStatus.CLOSED:
        return None
    return Trouble("the pool is closed for ever", "claim, withdraw the stake, join another pool")


def _paused(facts: Facts) -> Trouble | None:
    pool = known(facts.pool)
    if not pool.state.is_paused(pool.time_s):
        return None
    until = "the operators resume it" if pool.state.status is PoolStatus.PAUSED else utc(pool.state.paused_until_s)
    return Trouble(f"the pool is paused until {until}: nothing settles meanwhile", "wait; what is done now counts")


def _policy_next(facts: Facts) -> Trouble | None:
    pool, held = known(facts.pool), known(facts.policies)
    running = pool.rewards.running.terms.policy_hash
    needed = needed_policies(pool.state, pool.rewards)
    missing = [each for each in needed if each.policy_hash not in held and each.policy_hash != running]
    if not missing:
        return None
    when = "; ".join(_when(each) for each in missing)
    return Trouble(f"a policy is not here: {when}", "get its document, name it as pool.next_policy_file, restart")


def _when(needed: NeededPolicy) -> str:
    name, since = needed.policy_hash.hex()[:16], utc(needed.from_s)
    if needed.epoch is None:
        return f"{name}, proposed, not in force before {since}"
    return f"{name}, which counts epoch {needed.epoch} (from {since})"


def _rotating(facts: Facts) -> Trouble | None:
    pool = known(facts.pool)
    if known(pool.entry) is not None or not pool.is_next_registered:
        return None
    return Trouble(
        "the registry names the new node key (node.key.next), and this agent still has the old one: none of its work "
        "counts",
        "finish the rotation: systemctl stop gpupool-agent; gpupool keys rotate --yes; systemctl start gpupool-agent",
    )


def _unregistered(facts: Facts) -> Trouble | None:
    pool = known(facts.pool)
    if known(pool.entry) is not None:
        return None
    if pool.is_next_registered:
        raise DoesNotApplyError("the key of an unfinished rotation is registered")
    if pool.wallets_node_key is not None:
        named = pool.wallets_node_key.hex()
        cause = f"this node key is not registered in the pool; this wallet is, with the node key {named[:16]}"
        return Trouble(cause, "put that key back, from its backup if it is lost (gpupool keys restore)")
    return Trouble("this node key is not registered in the pool", "gpupool pool register")


def _entry(facts: Facts) -> Participant:
    entry = known(known(facts.pool).entry)
    if entry is None:
        raise DoesNotApplyError("this node key is not registered")
    return entry


def _suspended(facts: Facts) -> Trouble | None:
    if _entry(facts).status is not ParticipantStatus.SUSPENDED:
        return None
    return Trouble("the operators suspended this participant", "ask them why; it earns nothing until they reinstate it")


def _inactive(facts: Facts) -> Trouble | None:
    entry = _entry(facts)
    if entry.status is not ParticipantStatus.INACTIVE:
        return None
    least = known(facts.pool).state.params.rules.min_stake_nanoton
    staked = entry.stake_nanoton - entry.pending_nanoton
    cause = f"the stake of {ton_exact(staked)} is below the pool's minimum of {ton_exact(least)}"
    return Trouble(cause, f"gpupool pool stake add {ton_exact(least - staked).removesuffix(' TON')}")


def _withdrawing(facts: Facts) -> Trouble | None:
    entry = _entry(facts)
    if not entry.pending_nanoton:
        return None
    return Trouble(
        f"{ton(entry.pending_nanoton)} of the stake are asked back, paid from {utc(entry.withdraw_at_s)} on",
        "gpupool pool withdraw complete then, or gpupool pool withdraw cancel",
    )


def _slashed(facts: Facts) -> Trouble | None:
    entry = _entry(facts)
    if not entry.held_nanoton:
        return None
    until = utc(entry.held_until_s)
    return Trouble(f"{ton(entry.held_nanoton)} are slashed, open to appeal until {until}", "appeal to the operators")


def _wallet(facts: Facts) -> Trouble | None:
    pool = known(facts.pool)
    balance, operators = known(pool.wallet_nanoton), pool.state.operator_set
    is_operator = operators is not None and operators.index_of(known(facts.node_key)) is not None
    if operators is not None and is_operator:
        least, what, severity = fees.submit_nanoton(len(operators.operators)), "bring a certificate", _WARNING
    else:
        least, what, severity = fees.CLAIM_NANOTON, "claim", _NOTE
    if balance >= least:
        return None
    cause = f"the wallet {known(pool.wallet)} has {ton_exact(balance)}, which is too little to {what}"
    return Trouble(cause, f"send it at least {ton_exact(least)}", severity)


CHECKS = tuple(
    Check(code=code, clazz=FindingClass.CHAIN, severity=severity, fine=fine, look=look)
    for code, severity, fine, look in (
        ("chain-unreachable", _PROBLEM, "the chain is reached", _unreachable),
        ("liteservers-conflict", _WARNING, "the liteservers show the same chain", _conflict),
        ("wrong-network", _PROBLEM, "the liteservers are of the pool's network", _network),
        ("chain-stale", _PROBLEM, "the newest block is young", _stale),
        ("pool-absent", _PROBLEM, "the pool stands at its address", _pool_absent),
        ("agent-off-chain", _PROBLEM, "the agent reads the chain", _agent_off_chain),
        ("liteserver-away", _WARNING, "all liteservers answer", _servers_away),
        ("pool-without-operators", _PROBLEM, "operators run the pool", _owner_phase),
        ("pool-closed", _PROBLEM, "the pool is not closed", _closed),
        ("pool-paused", _WARNING, "the pool is not paused", _paused),
        ("policy-next-missing", _WARNING, "the policies to come are here", _policy_next),
        ("rotation-unfinished", _PROBLEM, "no rotation of the node key is unfinished", _rotating),
        ("not-registered", _PROBLEM, "this node is registered", _unregistered),
        ("suspended", _PROBLEM, "this participant is not suspended", _suspended),
        ("stake-too-small", _PROBLEM, "the stake is enough", _inactive),
        ("withdrawing", _NOTE, "no stake is asked back", _withdrawing),
        ("slashed", _NOTE, "nothing is slashed", _slashed),
        ("wallet-low", _WARNING, "the wallet can pay its fees", _wallet),
    )
)
