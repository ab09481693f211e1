"""Entries of the catalogue: what this host does by itself. Its process and files, its work, its evidence."""

from __future__ import annotations

from agent.metrics.metric import Kind, Label, Metric, Topic

REASONS_MAX = 64
SOURCES_MAX = 64
SOURCE_READINGS_MAX = 1024
"""Sixteen GPUs show some thirty readings each."""

_SOURCE = Label("source", SOURCES_MAX)
_KIND = Label("kind", 8, ("engine", "cocoon", "nvml"))
_COUNTS = Label("counts", 2, ("true", "false"))


def _work(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.WORK, kind=kind, name=name, text=text, use=use, labels=labels)


def _evidence(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.EVIDENCE, kind=kind, name=name, text=text, use=use, labels=labels)


def _host(kind: Kind, name: str, text: str, use: str, *labels: Label) -> Metric:
    return Metric(topic=Topic.HOST, kind=kind, name=name, text=text, use=use, labels=labels)


def _process(kind: Kind, name: str, text: str, use: str) -> Metric:
    return Metric(topic=Topic.HOST, kind=kind, name=name, text=text, use=use, is_library=True)


_WORK = (
    _work(
        Kind.COUNTER,
        "work_tokens_total",
        "Tokens measured, in the units that the pool's policy counts",
        "Its rate is what this host does now; flat while the engine is up, nobody asks it.",
    ),
    _work(Kind.COUNTER, "work_tasks_total", "Tasks measured", "As above, in requests."),
    _work(
        Kind.COUNTER,
        "work_measured_total",
        "Work measured, by unit",
        "Tells prompt from generated tokens, and what else sources count.",
        Label("unit", REASONS_MAX),
    ),
    _work(
        Kind.GAUGE,
        "source_up",
        "1 if the source answered when it was read last; `counts`: whether the pool counts what it reports",
        "At 0 with counts=true nothing is counted: start the engine, or mend its address.",
        _SOURCE,
        _KIND,
        _COUNTS,
    ),
    _work(
        Kind.GAUGE,
        "source_last_read_timestamp_seconds",
        "When the source was last read without error",
        "Old while source_up is 1: the meter hangs; restart the agent.",
        _SOURCE,
        _KIND,
        _COUNTS,
    ),
    _work(
        Kind.GAUGE,
        "source_notes",
        "How many things a source has to say: throttling, a lost GPU, a worker's uplink",
        "gpupool status shows them; docs/gpus.md and docs/cocoon.md say what each means.",
        _SOURCE,
        _KIND,
    ),
    _work(
        Kind.GAUGE,
        "sources_counted",
        "Sources in the settings of the kind that the pool counts",
        "At 0 the settings name none: add the table that work.source of the policy asks for.",
    ),
    _work(
        Kind.GAUGE,
        "source_reading",
        "What a source shows now, by source and name; never counted",
        "Graphs of load, temperature and power; nothing of it is paid for.",
        _SOURCE,
        Label("reading", SOURCE_READINGS_MAX),
    ),
    _work(
        Kind.COUNTER,
        "gap_seconds_total",
        "Seconds in which a source was not watched",
        "Work of that time may not count; find out why the source is away.",
        _SOURCE,
    ),
    _work(
        Kind.COUNTER,
        "source_errors_total",
        "Readings of sources that failed, by reason",
        "Tells an engine that is away from one that answers nonsense.",
        Label("reason", REASONS_MAX),
    ),
    _work(
        Kind.COUNTER,
        "source_restarts_total",
        "How often a source began to count anew",
        "What was done between the last reading and the restart is lost: find out why it restarts.",
        _SOURCE,
    ),
    _work(
        Kind.GAUGE,
        "work_windows_waiting",
        "Closed work windows and batches of receipts that are no records yet",
        "Grows while the own log or evidence is missing; of too many the oldest are lost.",
    ),
    _work(
        Kind.COUNTER,
        "work_windows_lost_total",
        "Closed work windows that were given up: too many waited, or their time was taken or to come",
        "Each is work that will never count.",
    ),
    _work(
        Kind.GAUGE,
        "log_head_seq",
        "Sequence number of the own log's last record",
        "Stands still while nothing of this host becomes a record.",
    ),
    _work(
        Kind.COUNTER,
        "receipts_total",
        "Receipts that were handed in, by outcome",
        "Refused ones earn nothing: compare gateways' keys with the policy.",
        Label("outcome", 8, ("taken", "known", "refused")),
    ),
    _work(
        Kind.GAUGE,
        "receipts_required",
        "1 if the pool credits tokens up to receipts alone",
        "Then a gateway that is away costs everything.",
    ),
    _work(
        Kind.GAUGE,
        "receipts_listening",
        "1 while receipts are taken, 0 while their port is not had; absent if the settings name none",
        "At 0 stop what holds the port, or set another receipts.port.",
    ),
    _work(
        Kind.STATE,
        "worker_state",
        "How the own Cocoon worker contract stands, in a pool that counts by such",
        "unset: register with --worker; refused: name the right one; unpaid: see the worker's uplink.",
        Label("state", 4, ("unset", "refused", "unpaid", "paid")),
    ),
)

_EVIDENCE = (
    _evidence(
        Kind.GAUGE,
        "evidence_valid",
        "1 while own evidence is in force",
        "At 0 work earns nothing: gpupool doctor.",
    ),
    _evidence(
        Kind.GAUGE,
        "evidence_valid_until_timestamp_seconds",
        "Until when the own evidence in force holds",
        "It is renewed when two thirds of its time are over; later than that something is wrong.",
    ),
    _evidence(
        Kind.GAUGE,
        "evidence_failing",
        "1 while no new own evidence can be made",
        "Mend it before the evidence in force runs out.",
    ),
    _evidence(
        Kind.GAUGE,
        "evidence_own_refused",
        "1 while new own evidence cannot be made, or the last one does not hold, by error code of docs/attestation.md",
        "The code says which part is at fault: quote, TCB, collateral, measurement, GPU.",
        Label("code", REASONS_MAX),
    ),
    _evidence(
        Kind.INFO,
        "evidence_info",
        "What the own evidence proves: TCB status, measurement, number of GPUs",
        "Find hosts that will be refused when the policy grows stricter.",
        Label("tcb_status", 1),
        Label("measurement", 1),
        Label("gpus", 1),
    ),
    _evidence(
        Kind.GAUGE,
        "collateral_failing",
        "1 while Intel's collateral is not renewed",
        "What is held serves for a while: see the network, or name a PCCS.",
    ),
    _evidence(
        Kind.GAUGE,
        "machine_place_taken",
        "1 while another node holds the place on this machine",
        "One agent on each machine, each GPU with one agent.",
    ),
    _evidence(
        Kind.GAUGE,
        "evidence_held",
        "Participants whose evidence is in force, this node's own too",
        "Compare with gpupool_participants: the others earn nothing now.",
    ),
    _evidence(
        Kind.GAUGE,
        "evidence_refused",
        "Participants whose evidence is refused or ran out, by error code",
        "Many at once: a policy or a collateral is at fault, not a host.",
        Label("code", REASONS_MAX),
    ),
)

_HOST = (
    _host(Kind.INFO, "build_info", "Which agent this is", "Find hosts to upgrade.", Label("version", 1)),
    _host(
        Kind.INFO,
        "node_info",
        "Which node of which pool this is: beginning of its key, network, pool",
        "Find the host to a key that others name.",
        Label("node_key", 1),
        Label("network", 1),
        Label("pool", 1),
    ),
    _host(
        Kind.GAUGE,
        "healthy",
        "1 while the agent does what it can do alone (/-/healthy)",
        "At 0 a supervisor restarts it; report it with its log.",
    ),
    _host(
        Kind.GAUGE,
        "ready",
        "1 while the pool can count on this node, and the work that it does counts (/-/ready)",
        "At 0 ask gpupool doctor.",
    ),
    _host(
        Kind.GAUGE,
        "loop_last_advance_timestamp_seconds",
        "When a service loop last came round",
        "Tells which loop stands if the agent is unhealthy.",
        Label("loop", 16),
    ),
    _host(
        Kind.COUNTER,
        "clock_steps_back_total",
        "How often this host's clock was set back",
        "No work counts until the clock has passed the old time again: let NTP slew it.",
    ),
    _host(
        Kind.GAUGE,
        "data_dir_free_bytes",
        "Room on the disk of the data folder",
        "Below 64 MiB the agent stops rather than forget.",
    ),
    _host(
        Kind.GAUGE,
        "journal_size_bytes",
        "Size of the journal with its write-ahead log",
        "It is bounded; plan the disk by it.",
    ),
    _host(
        Kind.GAUGE,
        "ledger_size_bytes",
        "Size of the ledger with its write-ahead log",
        "meter.samples_kept_days decides it.",
    ),
    _host(
        Kind.GAUGE,
        "memory_used_bytes",
        "What counts against the tightest limit on this process's memory, if there is one",
        "Near gpupool_memory_limit_bytes raise MemoryMax=, and report it.",
    ),
    _host(
        Kind.GAUGE,
        "memory_limit_bytes",
        "The tightest limit on this process's memory",
        "At it the kernel ends the agent.",
    ),
    _host(
        Kind.GAUGE,
        "keys_backed_up",
        "1 if node key and wallet key were backed up (gpupool keys backup)",
        "At 0 a dead disk takes stake and unclaimed earnings with it.",
    ),
    _host(
        Kind.GAUGE,
        "key_in_use_elsewhere",
        "1 while another host was heard that uses this node key",
        "Stop one of the two at once: they contradict each other, and the key is dead.",
    ),
    _host(
        Kind.GAUGE,
        "own_log_dead",
        "1 if the own log contradicts itself or was closed",
        "Nothing of this key ever counts again: replace it (gpupool keys rotate); the stake stays.",
    ),
    _process(
        Kind.GAUGE,
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        "Plan the host by it.",
    ),
    _process(Kind.GAUGE, "process_virtual_memory_bytes", "Virtual memory size in bytes.", "Counts against LimitAS=."),
    _process(
        Kind.COUNTER,
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        "Its rate is the share of one core.",
    ),
    _process(
        Kind.GAUGE,
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        "Changes show restarts.",
    ),
    _process(
        Kind.GAUGE, "process_open_fds", "Number of open file descriptors.", "Near process_max_fds raise LimitNOFILE=."
    ),
    _process(Kind.GAUGE, "process_max_fds", "Maximum number of open file descriptors.", "Set by LimitNOFILE=."),
)

HOST_ENTRIES = (*_WORK, *_EVIDENCE, *_HOST)
