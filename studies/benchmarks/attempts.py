"""Measures what was tried to make stt_s25 faster in eager torch, each against what it would replace, at its own shapes.

python -m studies.benchmarks.attempts

It takes minutes and replaces results/benchmarks/attempts.csv, of which studies.benchmarks.page makes a table.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import reparameterize_model

import supertokenvit  # noqa: F401  registers the models
from supertokenvit.benchmarking.timing import take_turns
from supertokenvit.machine import environment, keep_freed_memory

from ..common import RESULTS, now, refuse_options, write_rows

BATCH, ROUNDS, SECONDS = 8, 15, 0.1
Pair = tuple[Callable[[], Any], Callable[[], Any]]
# oneDNN's own operators, which torch.compile uses; they are no public interface
packed, reorder = torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight
MANY, FEW = BATCH * 16 * 50, BATCH * 16  # tokens of a local layer, of a global layer


def linears(rows: int, inner: int, columns: int) -> Pair:
    """A Linear; with its weight packed for oneDNN, which adds the bias on the way."""
    x, weight, bias = torch.randn(rows, inner), torch.randn(columns, inner) * 0.02, torch.randn(columns)
    ready = reorder(weight, rows)
    return lambda: F.linear(x, weight, bias), lambda: packed(x, ready, bias, "none", [], "")


def linear_gelus(rows: int, inner: int, columns: int) -> Pair:
    """A Linear and GELU; the same as one oneDNN operation."""
    x, weight, bias = torch.randn(rows, inner), torch.randn(columns, inner) * 0.02, torch.randn(columns)
    ready = reorder(weight, rows)
    return lambda: F.gelu(F.linear(x, weight, bias)), lambda: packed(x, ready, bias, "gelu", [], "none")


def attentions() -> Pair:
    """The fused attention of a local layer; products and softmax one by one."""
    q, k, v = torch.randn(BATCH * 16, 50, 3, 8, 48).permute(2, 0, 3, 1, 4).unbind(0)
    return (
        lambda: F.scaled_dot_product_attention(q, k, v),
        lambda: (q * 48**-0.5 @ k.transpose(2, 3)).softmax(-1) @ v,
    )


def gelus() -> Pair:
    """GELU of a local layer's MLP; its approximation by tanh."""
    x = torch.randn(BATCH, 16, 50, 768)
    return lambda: F.gelu(x), lambda: F.gelu(x, approximate="tanh")


def stems() -> Pair:
    """The convolutions of the stem on contiguous images; in channels-last memory."""
    model: Any = timm.create_model("stt_s25").eval()
    convs = [layer.conv for layer in model.stem]
    images = torch.randn(BATCH, 3, 224, 224)
    last = images.contiguous(memory_format=torch.channels_last)

    def run(x: torch.Tensor) -> torch.Tensor:
        for conv in convs:
            x = conv(x)
        return x

    return lambda: run(images), lambda: run(last)


def models(change: Callable[[torch.nn.Module], Any]) -> Pair:
    """stt_s25 as it is; changed."""
    images = torch.randn(BATCH, 3, 224, 224)
    plain, other = timm.create_model("stt_s25").eval(), change(timm.create_model("stt_s25").eval())
    return lambda: plain(images), lambda: other(images)


ATTEMPTS: dict[str, Callable[[], Pair]] = {
    "convolutions of the stem in channels-last memory (kept)": stems,
    "whole network, BatchNorm and LayerScale folded (kept)": lambda: models(reparameterize_model),
    "whole network, folded and compiled with frozen weights": lambda: models(
        lambda m: torch.compile(reparameterize_model(m), options={"freezing": True})
    ),
    "local layer, query-key-value, packed weight": lambda: linears(MANY, 384, 1152),
    "local layer, MLP's first product and GELU as one": lambda: linear_gelus(MANY, 384, 768),
    "global layer, MLP's first product and GELU as one": lambda: linear_gelus(FEW, 384, 1536),
    "local layer, attention not fused": attentions,
    "local layer, GELU by tanh": gelus,
}


@torch.inference_mode()
def measure() -> None:
    """Times every attempt in turns with what it would replace, and writes the rows."""
    keep_freed_memory()
    torch.manual_seed(0)
    here = {
        "date": now(),
        "cpu": environment()["cpu"],
        "torch": torch.__version__,
    }
    rows = []
    for name, make in ATTEMPTS.items():
        before, after = make()
        times, errors = take_turns({"before": before, "after": after}, rounds=ROUNDS, seconds=SECONDS)
        assert not errors, errors
        ratios = [a / b for a, b in zip(times["before"], times["after"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        figures = {"before_ms": statistics.median(times["before"]), "after_ms": statistics.median(times["after"])}
        figures = {key: round(1000 * value, 3) for key, value in figures.items()}
        figures |= {"ratio": round(middle, 3), "ratio_q1": round(low, 3), "ratio_q3": round(high, 3)}
        rows.append({"attempt": name} | figures | here)
        print(rows[-1], flush=True)
    write_rows(RESULTS / "benchmarks" / "attempts.csv", rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the attempts."""
    refuse_options(__doc__, argv)
    measure()


if __name__ == "__main__":
    main()
