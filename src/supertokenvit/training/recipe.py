"""The one place where an option of `supertokenvit train` is declared."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

from ..errors import UsageError
from ..sizes import read_sizes


class RecipeError(UsageError):
    """Options that cannot work together; one line that says what to change."""


RESUMABLE = ("workers", "cache", "device", "tensorboard", "mlflow", "skip_damaged", "data")
"""The fields of Recipe that change no result, and that a resumed run may therefore change (data that was moved)."""

GROUPS: Dict[str, tuple[str, ...]] = {
    "most used": ("data", "out", "model", "img_size", "init", "epochs", "minutes", "batch_size", "lr", "tta"),
    "data": ("task", "classes", "ignore", "val_fraction", "data_license", "skip_damaged", "cache", "workers"),
    "preprocessing": ("resize", "crop_pct"),
    "model and start": ("model_args", "head", "freeze", "drop_path", "dropout"),
    "augmentation": ("sizes", "crop", "crop_scale", "hflip", "randaugment", "erasing", "mixup", "cutmix"),
    "classes": ("class_weights", "weighted_sampling"),
    "optimisation": (
        "opt", "weight_decay", "layer_decay", "schedule", "warmup", "clip_grad", "smoothing", "ema", "accumulate",
    ),
    "distillation": ("teacher", "teacher_share", "temperature"),
    "evaluation and checkpoints": ("eval_epochs", "patience", "checkpoint_minutes"),
    "machine": ("device", "precision", "grad_checkpointing", "shard", "seed"),
    "logging": ("tensorboard", "mlflow"),
}  # fmt: skip
"""The fields of Recipe under the headings of `supertokenvit train --help`."""


def changes_of(given: Dict[str, Any], defaults: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the options that a resumed run is to change.

    Raises:
        RecipeError: One of them changes results.
    """
    changed = {name: value for name, value in given.items() if value != defaults[name]}
    check_changes(changed)
    return changed


def check_changes(changed: Dict[str, Any]) -> None:
    """Refuses changes of a resumed run that would change its results.

    Raises:
        RecipeError: There is one.
    """
    fixed = sorted(set(changed) - set(RESUMABLE))
    if fixed:
        free = ", ".join(RESUMABLE)
        raise RecipeError(f"a resumed run repeats its own recipe: {fixed[0]} cannot change ({free} can)")


@dataclass
class Recipe:
    """Everything that decides a training run. What is None is chosen from the data and the machine, and said aloud."""

    data: str = ""
    """Folder of class folders, .tar or .zip of one, wds/SHARDS, hfds/NAME, torch/NAME, digits; or images and masks"""
    task: Optional[Literal["classification", "segmentation", "detection"]] = None
    """What to learn; what the data looks like by default"""
    classes: Optional[List[str]] = None
    """Segmentation: names of the classes in the order of the masks' values, where there is no classes.txt"""
    ignore: Optional[int] = None
    """Segmentation: a value of masks, besides 255, whose pixels are neither learned nor counted"""
    out: Optional[str] = None
    """Run folder to make; runs/NAME of the data, with a number behind it if taken"""
    val_fraction: float = 0.1
    """Fraction of the training images kept for validation if the data has no validation split"""
    seed: int = 0
    """Random seed; the same recipe with the same seed gives the same weights"""
    data_license: Optional[str] = None
    """Terms of the data, written into the model's config"""

    model: Optional[str] = None
    """Name of any timm or stt_* model; chosen by image size"""
    model_args: Dict[str, Any] = field(default_factory=dict)
    """Further arguments of the model, such as {"global_layers": 8}"""
    head: Optional[str] = None
    """Segmentation: head on the model's maps: fpn, upernet, unet or another of segmentation-models-pytorch"""
    img_size: Optional[int] = None
    """Side of the images in pixels; with sizes, of those that the model is evaluated and used on (the largest)"""
    sizes: Optional[Union[Tuple[int, ...], str]] = None
    """Sides of the training images in pixels, as 160,192,224: each batch has one of them, each equally often, so that
    the model answers well at all of them; img_size alone by default"""
    resize: Literal["center", "squash", "border"] = "center"
    """How images are made square: cut out the centre, squash, or pad the border (timm's crop_mode)"""
    crop_pct: float = 1.0
    """Fraction of the shorter side that the centre crop keeps in evaluation"""

    init: Optional[str] = None
    """Run folder (or its model folder, or a model that comes with the package), timm model with its pretrained weights,
    hf-hub:OWNER/NAME, or .safetensors file with --model, to start from; the classifier is new, unless the classes are
    the same"""
    freeze: Literal["none", "statistics", "stem", "local", "backbone"] = "none"
    """What stays as it is: nothing, the statistics of BatchNorm, the stem, stem and local layers, or all but the
    classifier (linear probe)"""
    layer_decay: Optional[float] = None
    """Learning rate of each layer as a fraction of that of the next one, for fine-tuning"""

    epochs: Optional[float] = None
    """Passes over the training images"""
    minutes: Optional[float] = None
    """Time budget of all steps and the evaluations between them: the schedule is made to fit; instead of epochs"""
    batch_size: Optional[int] = None
    """Images per step"""
    shard: bool = False
    """Several processes: keep each weight, gradient and optimiser state in parts (FSDP2) instead of in copies (DDP)"""
    accumulate: int = 1
    """Parts in which a step's batch is computed, to save memory"""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time"""
    opt: Literal["adamw", "muon"] = "muon"
    """Optimiser; muon takes AdamW for what is no matrix"""
    lr: Optional[float] = None
    """Highest learning rate"""
    weight_decay: float = 0.05
    """Weight decay of matrices; vectors, learned grids and tokens have none"""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls to zero"""
    warmup: float = 0.1
    """Fraction of the steps in which the learning rate rises"""
    teacher: Optional[str] = None
    """Run folder, timm model with its pretrained weights, or hf-hub:OWNER/NAME, whose answers to learn as well
    (distillation)"""
    teacher_share: float = 0.5
    """Fraction of the loss that comes from the teacher's answers; the labels have the rest"""
    temperature: float = 1.0
    """Distillation temperature"""
    clip_grad: Optional[float] = 1.0
    """Largest norm of the gradient; null for no limit"""
    smoothing: float = 0.1
    """Label smoothing, where an image has one label"""
    drop_path: float = 0.0
    """Stochastic depth of the last layer"""
    dropout: float = 0.0
    """Dropout before the classifier"""
    ema: Optional[float] = None
    """Decay of the running mean of the weights, which is then what is evaluated and kept; null for none. It rises to
    this value over the first steps (timm's ModelEmaV3)"""

    crop: Optional[Literal["shift", "resized", "none"]] = None
    """Random crop: shift by up to an eighth, resized part of the image, or none"""
    crop_scale: float = 0.35
    """Smallest fraction of the area that a resized crop takes; other crops know none"""
    hflip: Optional[Union[float, Literal["alternating"]]] = None
    """Probability of a mirror image; alternating: of one half of the images, and of the other half in the next epoch"""
    randaugment: int = 0
    """Magnitude (0-30) of two random operations, shared by groups of 16 images; 0 for none"""
    erasing: float = 0.0
    """Probability that a rectangle of an image is erased"""
    mixup: float = 0.0
    """Alpha of mixup; 0 for none"""
    cutmix: float = 0.0
    """Alpha of cutmix; with mixup each group of 16 images takes one of the two"""
    class_weights: Optional[Union[Literal["auto"], Dict[str, float]]] = None
    """Weights of the classes in the loss: auto (rare ones more) or by name"""
    weighted_sampling: bool = False
    """Draw every class equally often"""

    tta: Literal["none", "flip", "shift"] = "none"
    """Answer with the mean over views, in evaluation and later use: flip, an image and its mirror image (2 views);
    shift, both also moved by a 32nd of the side in two directions (6 views, the unmoved ones count double)"""
    eval_epochs: float = 1.0
    """Epochs between evaluations"""
    patience: Optional[int] = None
    """Stop after so many evaluations without a better one"""
    checkpoint_minutes: float = 10.0
    """Time between checkpoints, besides one at each evaluation"""
    skip_damaged: bool = False
    """Leave damaged validation images out (counted and named) instead of stopping"""
    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where decoded images are kept; auto takes memory if they fit in a quarter of it"""
    workers: Optional[int] = None
    """Processes that decode images, when they are not in memory; changes no result"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the arithmetic; auto takes bf16 where the device gains by it"""
    device: Optional[str] = None
    """Device to compute on: cpu, cuda or mps; the best there is by default"""
    tensorboard: bool = False
    """Also write TensorBoard events into the run folder (extra tensorboard)"""
    mlflow: bool = False
    """Also log recipe and figures to MLflow, wherever its own settings point (extra mlflow)"""

    @property
    def training_sizes(self) -> Tuple[int, ...]:
        """The sides of the training images in pixels, from the smallest to the largest."""
        assert not isinstance(self.sizes, str)
        return self.sizes or (self.img_size or 0,)

    def __post_init__(self) -> None:
        self.sizes = None if self.sizes is None else read_sizes(self.sizes)
        if self.epochs is not None and self.minutes is not None:
            raise RecipeError("epochs and minutes are both set: the time budget decides the epochs, so give only one")
        if isinstance(self.class_weights, dict):  # YAML takes a class that is called 1 for a number
            odd = next(
                (name for name in self.class_weights if isinstance(name, bool) or not isinstance(name, (str, int))),
                None,
            )
            if odd is not None:
                raise RecipeError(f"class_weights: YAML reads a class name as {odd}: write it in quotes")
            self.class_weights = {str(name): weight for name, weight in self.class_weights.items()}
        if self.hflip == "alternating" and self.weighted_sampling:
            raise RecipeError("hflip=alternating needs every image once an epoch: leave out weighted_sampling")
        limits: Dict[str, tuple[float, float]] = {
            "val_fraction": (0, 0.9),
            "warmup": (0, 0.9),
            "smoothing": (0, 0.9),
            "drop_path": (0, 0.95),
        }
        limits |= {"teacher_share": (0, 1)}
        limits |= {"dropout": (0, 0.95), "erasing": (0, 1), "randaugment": (0, 30), "crop_scale": (0.01, 1)}
        limits |= {"crop_pct": (0.1, 1), "ema": (0, 1), "mixup": (0, 100), "cutmix": (0, 100), "weight_decay": (0, 1)}
        limits |= {"ignore": (0, 255), "seed": (0, 2**31), "workers": (0, 1024)}
        if isinstance(self.hflip, (int, float)):
            limits["hflip"] = (0, 1)
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RecipeError(f"{name}={value}: must be from {low} to {high}")
        for name in (
            "epochs",
            "minutes",
            "batch_size",
            "lr",
            "img_size",
            "accumulate",
            "eval_epochs",
            "patience",
            "temperature",
            "clip_grad",
            "layer_decay",
            "checkpoint_minutes",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise RecipeError(f"{name}={value}: must be above 0{' (null for none)' if name == 'clip_grad' else ''}")
        if self.batch_size and self.batch_size % self.accumulate:
            raise RecipeError(f"accumulate={self.accumulate}: must divide batch_size={self.batch_size}")
