"""Exported files in 8 bits, with scales from training images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from supertokenvit_runtime.about import KEY

from ..data.sources import Source
from ..engines.packages import need, quiet

CALIBRATION = 300  # images; more changed nothing


def quantise(path: Path, source: Source, enough: int) -> None:
    """Quantises an OpenVINO file in place, by NNCF; resizing and normalising keep their precision.

    Args:
        path: The .xml file.
        source: Photographs from which the scales come.
        enough: Pixels of a JPEG's shorter side that are enough.

    Raises:
        EngineError: NNCF or OpenVINO is not installed.
    """
    nncf, openvino = need("nncf"), need("openvino")
    model = openvino.Core().read_model(str(path))
    note = model.get_rt_info([KEY]).value
    images = list(calibration_images(source, enough))
    with quiet():
        result = nncf.quantize(
            model,
            nncf.Dataset(images),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=before_the_network(model), validate=False),
        )
    result.set_rt_info(note, [KEY])
    del model  # it reads the file lazily
    temporary = path.with_name(f"int8-{path.name}")
    openvino.save_model(result, str(temporary), compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        temporary.with_suffix(suffix).replace(path.with_suffix(suffix))


def calibration_images(source: Source, enough: int) -> Iterator[np.ndarray]:
    """Yields photographs uint8 [1, H, W, 3], spread evenly over a source."""
    for index in np.linspace(0, len(source) - 1, min(CALIBRATION, len(source))).round().astype(int):
        yield np.asarray(source.image(int(index), enough))[None]


def before_the_network(model: Any) -> list[str]:
    """Names the operations that stand between the photographs and the first convolution."""
    seen: dict[str, Any] = {}
    first = next(op for op in model.get_ordered_ops() if "Convolution" in op.get_type_name())
    waiting = [first.input_value(0).get_node()]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in seen:
            seen[node.get_friendly_name()] = node
            waiting += [value.get_node() for value in node.input_values()]
    passive = ("Constant", "Parameter")
    return [name for name, node in seen.items() if node.get_type_name() not in passive]
