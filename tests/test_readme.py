"""The README's figures of the models are those of the code."""

import re
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from supertokenvit.model.summary import summaries

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("row", summaries(), ids=lambda row: row["name"])
def test_the_table_of_models_is_true(row):
    line = next(line for line in README.splitlines() if line.startswith(f"| `{row['name']}` |"))
    expected = [
        f"{row['parameters'] / 1e6:.2f}M",
        f"{row['macs'] / 1e9:.3f}",
        f"{row['img_size']} px",
        *(str(row[name]) for name in ("stride", "window", "width")),
        "/".join(str(row[f"{kind}_layers"]) for kind in ("local", "global", "class")),
    ]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == expected


def test_the_growth_with_the_image_is_true():
    small, side, large, ratio = re.search(
        r"stt_s25: ([\d.]+) GMACs at 224 px, ([\d.]+) at ([\d.]+) px, which is ([\d.]+) times", README
    ).group(1, 3, 2, 4)
    model = timm.create_model("stt_s25", device="meta").eval().requires_grad_(False)
    macs = []
    for size in (224, int(side)):
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size, device="meta"))
        macs.append(counter.get_total_flops() / 2e9)
    assert [f"{macs[0]:.1f}", f"{macs[1]:.1f}", f"{macs[1] / macs[0]:.1f}"] == [small, large, ratio]
