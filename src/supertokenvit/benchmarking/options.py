"""This module holds the options of `supertokenvit benchmark` and the contestants that they describe."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, List, Literal, Optional, Union

import yaml

from ..errors import UserError

Mode = Literal["inference", "train", "latency"]
EngineName = Literal["eager", "compile", "onnx", "openvino", "onnx-int8", "openvino-int8"]
ENGINES = ("eager", "compile", "onnx", "openvino", "onnx-int8", "openvino-int8")
DTYPES = ("fp32", "bf16", "fp16")
FILES = {".onnx": "onnx", ".xml": "openvino"}


class BenchmarkError(UserError):
    """Says in one line why something cannot be measured."""


@dataclass
class BenchmarkOptions:
    """Holds all options of a benchmark."""

    mode: Mode = "inference"
    """inference, train (forward, backward and AdamW's update) or latency (inference of one image)"""
    batch_size: Union[int, Literal["auto"]] = 8
    """Images at once, the same for all; auto: the largest that leaves three quarters of the memory free"""
    img_size: List[int] = field(default_factory=list)
    """Sides in pixels, each a table of its own; the first model's own size if empty"""
    engine: List[EngineName] = field(default_factory=lambda: ["eager"])
    """What computes, each with every model: eager, compile (both torch), onnx, openvino, onnx-int8, openvino-int8"""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Data type of weights and images in the torch engines; in training, the data type of autocast"""
    channels_last: bool = False
    """Memory format of weights and images in the torch engines"""
    fused: bool = True
    """timm's fused attention"""
    reparam: bool = False
    """Fold what a model can fold for inference (timm's reparameterize_model), such as BatchNorm"""
    by_convolution: bool = False
    """Compute the products of Linear layers as convolutions, with oneDNN instead of MKL (eager, fp32, CPU)"""
    device: Optional[str] = None
    """cpu, cuda, mps; the best available by default"""
    threads: Optional[int] = None
    """CPU threads; torch's own choice by default"""
    rounds: int = 7
    """Timed turns per model"""
    seconds: float = 1.0
    """Minimum length of a turn in seconds"""
    memory: bool = True
    """Measure peak memory, each model in a process of its own, before the turns"""
    out: Optional[str] = None
    """Folder to make for rows.csv and the plots; runs/benchmark with a number behind it if taken"""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("seconds", 0), ("threads", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value < least:
                raise BenchmarkError(f"{name}={value}: must be at least {least}")
        if any(size < 1 for size in self.img_size):
            raise BenchmarkError(f"img_size={self.img_size}: must be at least 1")


@dataclass(frozen=True)
class Contestant:
    """Describes one model in one setting.

    Args:
        model: A timm name, a run folder, an .onnx or an .xml file.
        engine: One of ENGINES.
        dtype: Data type of weights and images.
        channels_last: Use the channels-last memory format.
        fused: Use timm's fused attention.
        reparam: Fold the model for inference.
        by_convolution: Compute the products of Linear layers as convolutions.
        args: Further arguments of the model, as pairs.
    """

    model: str
    engine: str = "eager"
    dtype: str = "fp32"
    channels_last: bool = False
    fused: bool = True
    reparam: bool = False
    by_convolution: bool = False
    args: tuple[tuple[str, Any], ...] = ()

    @property
    def is_file(self) -> bool:
        """Says whether the model is an exported graph, whose layers cannot be counted."""
        return Path(self.model).suffix in FILES

    def name(self) -> str:
        """Names the model and each setting that is not the default."""
        extra = [f"{key}={value}" for key, value in self.args]
        extra += [] if self.fused else ["fused=false"]
        extra += ["reparam=true"] if self.reparam else []
        extra += ["by_convolution=true"] if self.by_convolution else []
        extra += ["channels_last=true"] if self.channels_last else []
        extra += [] if self.dtype == "fp32" else [f"dtype={self.dtype}"]
        return self.model + (":" + ",".join(extra) if extra else "")


def contestants(models: List[str], options: BenchmarkOptions) -> list[Contestant]:
    """Pairs every model with every engine.

    Args:
        models: Each NAME, or NAME:KEY=VALUE,KEY=VALUE with the keys engine, dtype, channels_last, fused, reparam,
            by_convolution and whatever the model takes.
        options: Settings for models that do not set their own.

    Raises:
        BenchmarkError: A model that cannot be understood, or is there twice.
    """
    found: list[Contestant] = []
    for text in models:
        name, _, rest = text.partition(":") if not text.startswith("local-dir:") else (text, "", "")
        given: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise BenchmarkError(f"{text}: {part!r} is not KEY=VALUE")
            given[key.strip()] = yaml.safe_load(value)
        keys = ("dtype", "channels_last", "fused", "reparam", "by_convolution")
        base = Contestant(name, **{key: getattr(options, key) for key in keys})
        own = {key: given.pop(key) for key in keys if key in given}
        engines = [given.pop("engine")] if "engine" in given else list(options.engine)
        base = replace(base, args=tuple(sorted(given.items())), **own)
        engines = [FILES[Path(name).suffix]] if base.is_file else engines
        for engine in engines:
            found.append(check(replace(base, engine=engine), text))
    twice = [c for i, c in enumerate(found) if c in found[:i]]
    if twice:
        raise BenchmarkError(f"{twice[0].name()} ({twice[0].engine}) is there twice")
    return found


def check(contestant: Contestant, text: str) -> Contestant:
    """Returns the contestant if its setting is possible."""
    switches = [(key, (False, True)) for key in ("channels_last", "fused", "reparam", "by_convolution")]
    for key, allowed in (("engine", ENGINES), ("dtype", DTYPES), *switches):
        if getattr(contestant, key) not in allowed:
            choices = ", ".join(str(value).lower() for value in allowed)
            raise BenchmarkError(f"{text}: {key}={getattr(contestant, key)}: must be one of {choices}")
    if contestant.engine not in ("eager", "compile") and contestant.dtype != "fp32":
        raise BenchmarkError(f"{text}: dtype={contestant.dtype} is for eager and compile, not for {contestant.engine}")
    if contestant.by_convolution and (contestant.engine, contestant.dtype) != ("eager", "fp32"):
        raise BenchmarkError(f"{text}: by_convolution is for engine eager in fp32")
    return contestant
