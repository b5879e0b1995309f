"""Writes docs/scaling.md: how to go from a laptop to many machines, and a cost model counted on the models themselves.

python -m studies.scaling

The text is scaling.md beside this file. Nothing here is measured: figures follow from counts (parameters, MACs, bytes
kept for the backward pass) and from the assumptions below, which the page repeats.
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch.autograd.graph import saved_tensors_hooks

import supertokenvit  # noqa: F401
from supertokenvit.benchmarking.cost import cost_of
from supertokenvit.benchmarking.options import Contestant

from .common import DOCS, STUDIES, refuse_options

TEMPLATE = STUDIES / "scaling.md"
PAGE = DOCS / "scaling.md"
WIDTHS = (384, 640, 1024, 1792)
GPUS, PEAK, SHARE = 8, 312e12, 0.35
IMAGES, EPOCHS, IMAGE_BYTES, SHARD_BYTES = 1_281_167, 300, 110e3, 1e9
BATCH = 128


def count(width: int) -> tuple[int, float, float]:
    """Counts parameters, MACs of an image's forward pass, and bytes kept for its backward pass in fp32."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not tensor.is_leaf:  # weights are counted elsewhere
            kept[storage._cdata] = storage.nbytes()
        alive.append(storage)
        return tensor

    alive: list[object] = []
    args: dict[str, Any] = {"width": width, "heads": width // 64 if width > 384 else 8}
    cost = cost_of(Contestant("stt_s25", args=tuple(args.items())), 224, 1)
    with torch.device("meta"), saved_tensors_hooks(note, lambda tensor: tensor):
        timm.create_model("stt_s25", **args).train()(torch.empty(2, 3, 224, 224))
    return cost.parameters, cost.macs, sum(kept.values()) / 2


def table(header: list[str], rows: list[list[str]]) -> str:
    """Writes a table as Markdown."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_page() -> None:
    """Writes docs/scaling.md."""
    days, memory, talk = [], [], []
    for width in WIDTHS:
        parameters, macs, kept = count(width)
        name = f"{parameters / 1e6:,.0f}M (width {width})"
        rate = GPUS * PEAK * SHARE / (6 * macs)
        days.append([
            name, f"{macs / 1e9:.1f}", f"{rate:,.0f}", f"{rate * IMAGE_BYTES / 1e6:,.0f} MB/s",
            f"{IMAGES * EPOCHS / rate / 86400:.2f}",
        ])  # fmt: skip
        fixed, moving = 12 * parameters / 1e9, BATCH * kept / 2 / 1e9
        memory.append([name, f"{fixed:.1f}", f"{moving:.1f}", f"{fixed + moving:.1f}", f"{fixed / GPUS + moving:.1f}"])
        step = GPUS * BATCH / rate
        ddp, fsdp = (share * parameters / 1e9 for share in (2 * 4 * (GPUS - 1) / GPUS, 3 * 4))
        talk.append([name, f"{1000 * step:.0f} ms", f"{ddp:.1f} GB", f"{fsdp:.1f} GB", f"{ddp / step:.1f} GB/s"])
    page = TEMPLATE.read_text().format(
        gpus=GPUS, peak=PEAK / 1e12, share=100 * SHARE, images=IMAGES, image_kb=IMAGE_BYTES / 1e3, epochs=EPOCHS,
        batch=BATCH, shard_gb=SHARD_BYTES / 1e9, shards=round(IMAGES * IMAGE_BYTES / SHARD_BYTES),
        days=table(["model", "GMACs", f"images/s on {GPUS} GPUs", "reading", "days"], days),
        memory=table(["model", "weights and states, GB", "activations, GB", "DDP, GB", f"FSDP2 on {GPUS}, GB"], memory),
        talk=table(["model", f"step of {GPUS * BATCH:,} images", "DDP", "FSDP2", "to hide DDP's behind a step"], talk),
    )  # fmt: skip
    PAGE.write_text(page)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
