"""The verbs of `gpupool pool`: all of them, in the order of its help. Built into a parser by `agent.pool.parser`."""

from __future__ import annotations

from pathlib import Path

from agent.pool.verb import (
    AMOUNT,
    BY_AGENT,
    CODE,
    LOOK,
    OWNER,
    PARTICIPANT,
    SEND,
    Needs,
    Verb,
)
from agent.pool.verbs_of_power import CARRY, DISCIPLINE, RUN
from agent.verbs import arg

_BEGIN = (
    Verb(
        group="begin",
        name="deploy",
        run="owner.deploy",
        summary="deploy a new pool that this wallet owns",
        needs=Needs.CHAIN | Needs.SENDS | Needs.NEW,
        example="--global-config testnet.json --network testnet --wallet-key wallet.key \\\n"
        "    --policy-file policy.toml --epoch-seconds 604800 --params-file params.toml --dry-run",
        arguments=(
            arg("--policy-file", type=Path, metavar="FILE", help="the pool's policy document"),
            arg("--params-file", type=Path, metavar="FILE", help="parameters (TOML), as `params show` prints them"),
            arg("--metadata-file", type=Path, metavar="FILE", help="name, description, website, contact (TOML)"),
            arg("--pool-id", type=int, default=1, help="number among the owner's pools (default: %(default)s)"),
            arg("--epoch-seconds", type=int, default=604_800, help="length of an epoch (default: %(default)s)"),
            arg("--fee-bps", type=int, help="operators' fee, 1/10000 (default: 200)"),
            arg("--min-stake", metavar="TON", help="least stake (default: 100)"),
            arg("--max-participants", type=int, help="(default: 1000)"),
            arg("--cocoon-root", metavar="ADDRESS", help="the Cocoon root contract, for whoever looks it up"),
            arg("--registration-shut", action="store_true", help="take nobody in yet"),
        ),
    ),
    Verb(
        group="begin",
        name="hand-over",
        run="owner.hand_over",
        summary="give the pool to its operators, for ever",
        needs=SEND | Needs.CONSENT,
        example="--pool 0:ab... --liteserver 203.0.113.5:4924:BASE64KEY --network testnet --wallet-key owner.key",
        arguments=(
            arg("--set", type=Path, metavar="FILE", help="the operators (default: all active ones, weight 1 each)"),
            arg("--operators", type=int, metavar="N", help="how many were shown; needed with --yes unless --set is"),
        ),
    ),
)

_PART = (
    Verb(
        group="part",
        name="register",
        run="participant.register",
        summary="stake and join the pool",
        needs=SEND | Needs.SIGNS,
        example="--stake 100",
        arguments=(
            arg("--stake", metavar="TON", help="what to stake; without, only say what the pool's least stake is"),
            arg("--worker", metavar="ADDRESS", help="this participant's Cocoon worker contract"),
            arg("--gpu-spec-hash", metavar="HASH", help="of a description of its GPUs"),
            arg("--gpu-count", type=int, default=0, metavar="N", help="(default: %(default)s)"),
        ),
    ),
    Verb(
        group="part",
        name="stake add",
        run="participant.stake_add",
        summary="stake more",
        needs=SEND,
        example="50",
        arguments=(AMOUNT,),
    ),
    Verb(
        group="part",
        name="withdraw request",
        run="participant.withdraw_request",
        summary="ask for stake back; it is paid after a wait",
        needs=SEND,
        example="all",
        arguments=(arg("amount", metavar="AMOUNT", help='in TON, or "all"'),),
    ),
    Verb(
        group="part",
        name="withdraw cancel",
        run="participant.withdraw_cancel",
        summary="keep the stake after all",
        needs=SEND,
    ),
    Verb(
        group="part",
        name="withdraw complete",
        run="participant.withdraw_complete",
        summary="have the stake paid, once its wait is over",
        needs=SEND,
        arguments=(PARTICIPANT,),
    ),
    Verb(
        group="part",
        name="claim",
        run="rewards.claim",
        summary="have the pool pay what was earned",
        needs=BY_AGENT,
        arguments=(PARTICIPANT,),
    ),
    Verb(
        group="part",
        name="contribution",
        run="rewards.contribution",
        summary="have the registry count what was done in an epoch",
        needs=BY_AGENT,
        example="12",
        arguments=(arg("epoch", type=int, metavar="EPOCH", help="the epoch that was settled last"), PARTICIPANT),
    ),
    Verb(
        group="part",
        name="heartbeat",
        run="participant.heartbeat",
        summary="show on chain that this participant is there",
        needs=SEND,
    ),
    Verb(
        group="part",
        name="worker",
        run="participant.worker",
        summary="name another Cocoon worker contract, or none",
        needs=SEND,
        example="none",
        arguments=(arg("address", metavar="ADDRESS", help='the contract, or "none"'),),
    ),
)

_ANYBODY = (
    Verb(
        group="anybody",
        name="status",
        run="view.status",
        summary="show the pool as it stands on chain",
        needs=LOOK,
        example="--json",
    ),
    Verb(
        group="anybody",
        name="push",
        run="rewards.push",
        summary="have many participants paid at once",
        needs=BY_AGENT,
        example="--dry-run",
        arguments=(
            arg(
                "--count",
                type=int,
                default=75,
                metavar="N",
                help="at most so many, those to whom the most is due (default: %(default)s, as many as always fit one "
                "message's gas; more may fit where few were paid before)",
            ),
        ),
    ),
    Verb(
        group="anybody",
        name="pay",
        run="rewards.pay",
        summary="pay into the running epoch's pot",
        needs=SEND,
        example="25",
        arguments=(AMOUNT,),
    ),
    Verb(
        group="anybody",
        name="top-up",
        run="rewards.top_up",
        summary="pay for the storage of one of the pool's contracts",
        needs=SEND,
        example="pool 1",
        arguments=(
            arg("contract", choices=("pool", "registry", "rewards"), help="which of the three"),
            AMOUNT,
        ),
    ),
    Verb(group="anybody", name="finalize", run="rewards.finalize", summary="end the epoch that is over", needs=SEND),
    Verb(
        group="anybody",
        name="params apply",
        run="governance.params_apply",
        summary="put proposed parameters in force, in time",
        needs=SEND,
    ),
    Verb(
        group="anybody",
        name="upgrade apply",
        run="governance.upgrade_apply",
        summary="put proposed code in force, in time",
        needs=SEND,
        example="pool_operator.json",
        arguments=(CODE,),
    ),
    Verb(
        group="anybody",
        name="sweep",
        run="commands.sweep",
        summary="move slashed stake to the rewards, after the appeal",
        needs=SEND,
        example="0:cd...",
        arguments=(OWNER,),
    ),
    Verb(
        group="anybody",
        name="guardian-pause",
        run="commands.guardian_pause",
        summary="pause for 14 days (the guardian)",
        needs=SEND,
    ),
)

VERBS = (*_BEGIN, *_PART, *RUN, *DISCIPLINE, *CARRY, *_ANYBODY)
