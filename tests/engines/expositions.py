"""Expositions of Python engines, written by the engines' own code: vLLM's and SGLang's metric loggers.

The loggers need nothing of the engine but their own modules and `prometheus_client`: those are taken from an
unpacked source package, and whatever else they import is a stand-in. They are told of a few requests, and what
they would serve is printed, below a head that says how it was made. Not collected by pytest; needs no GPU.

    python -m tests.engines.expositions vllm_0_33 path/to/vllm-0.33.0 > tests/agent/expositions/vllm_0_33.txt
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to make one exposition: the modules taken as they are, and what tells them of requests."""

    engine: str
    version: str
    modules: Mapping[str, str]
    """Module name -> file, within the package."""
    tell: Callable[[], None]
    multiprocess: bool = False
    """As the engine serves it: the sums of several processes, which tell no start time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the exposition of one recipe."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines.expositions", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("source", type=Path, help="the unpacked source package (or wheel)")
    options = parser.parse_args(arguments)
    recipe = RECIPES[options.recipe]
    with tempfile.TemporaryDirectory() as folder:
        if recipe.multiprocess:
            # Before prometheus_client is imported: it looks once.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        sys.meta_path.insert(0, _StandIns(options.source, recipe.modules))
        recipe.tell()
        files = ", ".join(sorted(set(recipe.modules.values())))
        print(f"# {recipe.engine} {recipe.version}, its own {files}")  # noqa: T201
        print("# run by tests/engines/expositions.py over made-up requests.")  # noqa: T201
        print(_exposition(recipe.multiprocess), end="")  # noqa: T201
    return 0


def _exposition(multiprocess: bool) -> str:
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if multiprocess:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry).decode()


class _StandIns(MetaPathFinder, Loader):
    """Finds the modules of a recipe in its source, and a stand-in for all else of the engine and of torch."""

    def __init__(self, source: Path, modules: Mapping[str, str]) -> None:
        self._files = {name: source / file for name, file in modules.items()}
        self._roots = {name.partition(".")[0] for name in modules} | {"torch", "ray", "numpy"}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in self._roots:
            return None
        if name in self._files:
            return spec_from_file_location(name, self._files[name], submodule_search_locations=[])
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.isupper():
            return None  # a setting that is not set
        return MagicMock(name=f"{self.__name__}.{name}")


# The requests: (prompt, cached, generated) tokens, seconds, how it ended.
REQUESTS = [
    (120, 0, 40, 0.7, "stop"),
    (3000, 64, 500, 9.5, "length"),
    (17, 16, 1, 0.1, "stop"),
    (800, 0, 90, 2.2, "abort"),
]


def _tell_vllm_0_6() -> None:
    metrics = importlib.import_module("vllm.engine.metrics")
    types = importlib.import_module("vllm.engine.metrics_types")
    logger = metrics.PrometheusStatLogger(
        local_interval=0, labels={"model_name": "facebook/opt-125m"}, max_model_len=2048
    )
    for prompt, _, generated, seconds, reason in REQUESTS:
        logger.log(
            types.Stats(
                now=logger.last_local_log + 1,
                num_running_sys=3, num_waiting_sys=1, num_swapped_sys=0,
                gpu_cache_usage_sys=0.031, cpu_cache_usage_sys=0.0,
                cpu_prefix_cache_hit_rate=-1.0, gpu_prefix_cache_hit_rate=-1.0,
                num_prompt_tokens_iter=prompt, num_generation_tokens_iter=generated,
                time_to_first_tokens_iter=[seconds / 9], time_per_output_tokens_iter=[0.02],
                num_preemption_iter=0,
                time_e2e_requests=[seconds],
                num_prompt_tokens_requests=[prompt], num_generation_tokens_requests=[generated],
                n_requests=[1],
                finished_reason_requests=[reason],
            )
        )  # fmt: skip


def _vllm_v1_logger(engines: list[int]) -> Any:
    loggers = importlib.import_module("vllm.v1.metrics.loggers")
    config = MagicMock()
    config.model_config = SimpleNamespace(served_model_name="Qwen/Qwen3-0.6B", max_model_len=40960, is_diffusion=False)
    config.observability_config = SimpleNamespace(
        show_hidden_metrics=False, kv_cache_metrics=False, custom_histogram_buckets=None
    )
    config.speculative_config = config.lora_config = config.kv_transfer_config = config.watermark_config = None
    config.ec_transfer_config = None
    return loggers.PrometheusStatLogger(config, engines)


def _tell_vllm_v1(engines: list[int]) -> None:
    logger = _vllm_v1_logger(engines)
    stats = importlib.import_module("vllm.v1.metrics.stats")
    reasons = {str(reason): reason for reason in importlib.import_module("vllm.v1.engine").FinishReason}
    for engine in engines:
        for prompt, cached, generated, seconds, reason in REQUESTS:
            logger.record(*_v1_iteration(stats, prompt, cached, generated, seconds, reasons[reason]), engine_idx=engine)


def _v1_iteration(stats: Any, prompt: int, cached: int, generated: int, seconds: float, reason: Any) -> tuple[Any, Any]:
    scheduler = stats.SchedulerStats(num_running_reqs=2, num_waiting_reqs=1, kv_cache_usage=0.2)
    scheduler.prefix_cache_stats = SimpleNamespace(requests=1, queries=prompt, hits=cached)
    iteration = stats.IterationStats()
    iteration.num_generation_tokens = generated
    if hasattr(iteration, "prompt_token_stats"):
        told = iteration.prompt_token_stats
        told.total, told.cached_tokens, told.local_cache_hit, told.computed = prompt, cached, cached, prompt - cached
    else:
        iteration.num_prompt_tokens = prompt
    iteration.time_to_first_tokens_iter = [seconds / 9]
    iteration.inter_token_latencies_iter = [0.02] * min(generated, 5)
    fields = {
        "finish_reason": reason, "e2e_latency": seconds, "num_prompt_tokens": prompt,
        "num_generation_tokens": generated, "max_tokens_param": 512,
        "queued_time": 0.01, "prefill_time": seconds / 10, "inference_time": seconds, "decode_time": seconds * 0.9,
    }  # fmt: skip
    iteration.finished_requests = [stats.FinishedRequestStats(**fields)]
    return scheduler, iteration


def _tell_sglang_0_4() -> None:
    collector = importlib.import_module("sglang.srt.metrics.collector")
    labels = {"model_name": "meta-llama/Llama-3.1-8B-Instruct"}
    scheduler = collector.SchedulerMetricsCollector(labels)
    tokenizer = collector.TokenizerMetricsCollector(labels)
    for prompt, _, generated, seconds, _ in REQUESTS:
        tokenizer.observe_time_to_first_token(seconds / 9)
        tokenizer.observe_e2e_request_latency(seconds)
        tokenizer.observe_one_finished_request(prompt, generated)
    scheduler.log_stats(collector.SchedulerStats(num_running_reqs=6, num_queue_reqs=2, gen_throughput=120.5))


def _tell_sglang_0_5() -> None:
    collector: Any = importlib.import_module("sglang.srt.observability.metrics_collector")
    model = {"model_name": "meta-llama/Llama-3.1-8B-Instruct", "engine_type": "unified"}
    # As the settings are where nothing was set: the default buckets.
    nothing_set = SimpleNamespace(
        prompt_tokens_buckets=None,
        generation_tokens_buckets=None,
        prefill_delayer_max_delay_passes=30,
        prefill_delayer_forward_passes_buckets=None,
        prefill_delayer_wait_seconds_buckets=None,
    )
    collector.get_observability = collector.get_schedule = lambda: nothing_set
    tokenizer = collector.TokenizerMetricsCollector(labels=model)
    for number, (prompt, cached, generated, seconds, reason) in enumerate(REQUESTS):
        tokenizer.observe_time_to_first_token(model, seconds / 9, stream=number % 2 == 0)
        details = {"device": cached - cached // 4, "host": cached // 4}
        tokenizer.observe_one_finished_request(
            model, prompt, generated, cached, seconds, False, details, is_streaming=number % 2 == 0
        )
        if reason == "abort":
            tokenizer.observe_one_aborted_request(model)
    ranks = {**model, "tp_rank": 0, "pp_rank": 0, "moe_ep_rank": 0}
    scheduler = collector.SchedulerMetricsCollector(ranks, MagicMock())
    stats = collector.SchedulerStats()
    stats.num_running_reqs, stats.num_queue_reqs = collector.QueueCount(total=6), collector.QueueCount(total=2)
    scheduler.log_stats(stats)


_V1 = {f"vllm.v1.metrics.{name}": f"vllm/v1/metrics/{name}.py" for name in ("loggers", "stats", "prometheus")}
_V1_ENGINE = {"vllm.v1.engine": "vllm/v1/engine/__init__.py"}
RECIPES = {
    "vllm_0_6": Recipe(
        engine="vLLM",
        version="0.6.3",
        modules={f"vllm.engine.{name}": f"vllm/engine/{name}.py" for name in ("metrics", "metrics_types")},
        tell=_tell_vllm_0_6,
        multiprocess=True,
    ),
    "vllm_0_10": Recipe(
        engine="vLLM",
        version="0.10.2, two data-parallel engines",
        modules={**_V1, **_V1_ENGINE},
        tell=lambda: _tell_vllm_v1([0, 1]),
    ),
    "vllm_0_33": Recipe(
        engine="vLLM",
        version="0.33.0",
        modules={
            **_V1,
            **_V1_ENGINE,
            **{f"vllm.v1.metrics.{n}": f"vllm/v1/metrics/{n}.py" for n in ("buckets", "cache_hit_source", "utils")},
        },
        tell=lambda: _tell_vllm_v1([0]),
    ),
    "sglang_0_4": Recipe(
        engine="SGLang",
        version="0.4.1.post7",
        modules={"sglang.srt.metrics.collector": "sglang/srt/metrics/collector.py"},
        tell=_tell_sglang_0_4,
        multiprocess=True,
    ),
    "sglang_0_5": Recipe(
        engine="SGLang",
        version="0.5.23",
        modules={
            f"sglang.srt.observability.{name}": f"sglang/srt/observability/{name}.py"
            for name in ("metrics_collector", "scheduler_stage_metrics", "utils")
        },
        tell=_tell_sglang_0_5,
        multiprocess=True,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
