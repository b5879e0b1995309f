"""Looks into what torch, ONNX Runtime and OpenVINO make of two models: kinds of nodes, and where the time goes.

python -m studies.benchmarks.graphs

It takes minutes and replaces results/benchmarks/graphs.csv, of which studies.benchmarks.page makes tables.
"""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import openvino
import timm
import torch
from torch.profiler import ProfilerActivity, profile

import supertokenvit  # noqa: F401  registers the models
from supertokenvit.benchmarking.calls import Job, exported, make_call, random_images
from supertokenvit.benchmarking.options import Contestant
from supertokenvit.machine import environment, keep_freed_memory

from ..common import RESULTS, now, refuse_options, write_rows

MODELS = ("swin_base_patch4_window7_224", "stt_s25")
RUNS = 10
Share = dict[str, tuple[int, float]]  # kind of node -> how many there are, and their share of the time


def eager_graph(contestant: Contestant, job: Job) -> Share:
    """Returns torch's operations, as its profiler sees them."""
    call = make_call(contestant, job)
    for _ in range(3):
        call()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(RUNS):
            call()
    events = [event for event in profiled.key_averages() if event.self_cpu_time_total > 0]
    nodes = Counter({event.key: event.count // RUNS for event in events})
    return shares(nodes, {event.key: event.self_cpu_time_total for event in events})


def onnxruntime_graph(contestant: Contestant, job: Job) -> Share:
    """Returns the nodes of ONNX Runtime after its own optimisation."""
    path = exported(contestant, job)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images = {session.get_inputs()[0].name: random_images(job)}
    for _ in range(RUNS):
        session.run(None, images)
    events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    nodes = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    return shares(nodes, spent)


def openvino_graph(contestant: Contestant, job: Job) -> Share:
    """Returns the nodes that OpenVINO executes; what is fused into another node has none of its own."""
    path = exported(contestant, job)
    settings = {
        "INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }  # fmt: skip
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    spent: dict[str, float] = defaultdict(float)
    nodes: Counter[str] = Counter()
    for run in range(RUNS):
        request.infer([random_images(job)])
        done = [p for p in request.profiling_info if p.status == openvino.ProfilingInfo.Status.EXECUTED]
        for node in done:
            spent[node.node_type] += node.real_time.total_seconds()
        if run == 0:
            nodes.update(node.node_type for node in done)
    return shares(nodes, spent)


LOOK = {"eager": eager_graph, "onnx": onnxruntime_graph, "openvino": openvino_graph}


def shares(nodes: Counter[str], spent: dict[str, float]) -> Share:
    """Divides the time spent in each kind of node by that of all nodes."""
    total = sum(spent.values())
    return {kind: (count, spent.get(kind, 0.0) / total) for kind, count in nodes.items()}


def measure() -> None:
    """Looks at both models in all three, and writes the rows."""
    keep_freed_memory()
    threads = torch.get_num_threads()
    here = {"date": now(), "cpu": environment()["cpu"]}
    here |= {
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__,
        "timm": timm.__version__,
        "torch": torch.__version__,
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        job = Job("inference", 8, 224, "cpu", threads, folder)
        for model in MODELS:
            for engine, look in LOOK.items():
                found = look(Contestant(model, engine=engine, reparam=True), job)
                for kind, (count, share) in sorted(found.items(), key=lambda item: -item[1][1]):
                    rows.append(
                        {"model": model, "engine": engine, "node": kind, "count": count, "share": round(share, 4)}
                        | here
                    )
    write_rows(RESULTS / "benchmarks" / "graphs.csv", rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Looks into the graphs."""
    refuse_options(__doc__, argv)
    measure()


if __name__ == "__main__":
    main()
