"""A folder of static files with which anyone can try exported models in a browser."""

import json
import os
import re
import shutil
from collections.abc import Set
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.decode import IMAGE_ENDINGS, BadImage
from ..prediction import read_picture
from ..run_folder import write_json, write_text
from . import browser_runtime
from .options import ExportError

INDEX, LISTING, README = "index.html", "models.json", "README.md"
MODELS, EXAMPLES, RUNTIME = "models", "examples", "onnxruntime"
EXAMPLES_AT_MOST = 24
EXAMPLE_SIDE = 640  # pixels of the longer side
PAGE = files("supertokenvit_runtime") / "page"
REFUSED = {"input": "photo", "embedding": False}  # the page takes photographs, and shows labels only
WHY = {"input": "the page hands photographs to the model", "embedding": "the page shows labels only"}


def refuse_options(chosen: Any) -> None:
    """Raises ExportError for options that make no page.

    Args:
        chosen: The ExportOptions.
    """
    for name, value in REFUSED.items():
        if getattr(chosen, name) != value:
            raise ExportError(f"--{name}: not with --format web, as {WHY[name]}")
    if chosen.examples is not None:
        example_files(chosen.examples)
    browser_runtime.archive()


def is_page(names: Set[str]) -> bool:
    """Says whether a folder holds an older page and nothing else, by the names in it."""
    own = {path.name for path in PAGE.iterdir()}
    return {INDEX, LISTING} <= names <= own | {LISTING, README, MODELS, EXAMPLES, RUNTIME}


def model_folder(page: Path, name: str) -> Path:
    """Makes the empty folder of a model in a page and returns it.

    Args:
        page: Folder of the page.
        name: Of the model.
    """
    folder = page / MODELS / name
    folder.mkdir(parents=True)
    return folder


def write_page(page: Path, name: str, older: Path, examples: str | None) -> None:
    """Writes everything around a model: the page, ONNX Runtime, the examples, and the models of an older export.

    Args:
        page: Folder that has the exported model in it.
        name: Of the model.
        older: Folder of an older export, or one that does not exist.
        examples: Folder of pictures to offer; those of the older export by default.

    Raises:
        ExportError: An example cannot be read, or ONNX Runtime cannot be had.
    """
    with as_file(PAGE) as source:
        shutil.copytree(source, page, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    browser_runtime.unpack(page / RUNTIME)
    before = listing_of(older)
    models = [model for model in before["models"] if (older / MODELS / model).is_dir()]
    for model in models:
        if model != name:
            shutil.copytree(older / MODELS / model, page / MODELS / model)
    if examples is not None:
        shown = write_examples(example_files(examples), page / EXAMPLES)
    else:
        shown = [example for example in before["examples"] if (older / EXAMPLES / example["file"]).is_file()]
        if shown:
            shutil.copytree(older / EXAMPLES, page / EXAMPLES)
    models = models if name in models else [*models, name]
    write_json(page / LISTING, {"answers": "browser", "models": models, "examples": shown})
    write_text(page / README, readme(models))


def listing_of(page: Path) -> dict[str, Any]:
    """Reads which models and examples a page has; none if there is no page."""
    path = page / LISTING
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": [], "examples": []}


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Writes what the page has to know of a model.

    Args:
        folder: Of the model.
        about: From graph.about_of.
    """
    write_json(folder / "model.json", about)


def example_files(folder: str | os.PathLike) -> list[Path]:
    """Lists the pictures of a folder, by name.

    Raises:
        ExportError: There are none, or more than a page can show.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ExportError(f"--examples: {folder} is no folder")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise ExportError(f"--examples: there are no pictures in {folder}")
    if len(found) > EXAMPLES_AT_MOST:
        raise ExportError(f"--examples: {len(found)} pictures in {folder}; a page shows {EXAMPLES_AT_MOST} at most")
    return found


def write_examples(pictures: list[Path], folder: Path) -> list[dict[str, str]]:
    """Writes pictures as small JPEG files without anything that cameras add, such as the place.

    Args:
        pictures: Files.
        folder: New folder for them.

    Returns:
        File and name of each.

    Raises:
        ExportError: One cannot be read.
    """
    folder.mkdir()
    shown = []
    for number, path in enumerate(pictures, 1):
        try:
            picture = read_picture(path, EXAMPLE_SIDE)
        except (BadImage, OSError) as error:
            raise ExportError(f"--examples: {error}") from None
        picture.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE), Image.Resampling.LANCZOS)
        bare = Image.frombytes("RGB", picture.size, picture.tobytes())
        file = f"{number:02}.jpg"
        bare.save(folder / file, quality=92)
        shown.append({"file": file, "name": re.sub(r"[\s_-]+", " ", path.stem).strip()})
    return shown


def readme(models: list[str]) -> str:
    """Writes how to put the page on the web.

    Args:
        models: Names of the models in it.
    """
    return f"""# A page to try {"a model" if len(models) == 1 else "models"}

Everything in this folder is a static file. Copy the folder to any web server, or look at it on this computer:

```
python -m http.server --bind 127.0.0.1 8000
```

Run that line in this folder, then open http://127.0.0.1:8000/. Opening `index.html` directly does not work, because
browsers load neither modules nor models from files.

The model runs in the visitor's browser. Photographs are not sent anywhere, and the page's Content-Security-Policy
forbids requests to other hosts. A server should send `.wasm` files as `application/wasm`; the page then starts a little
faster.

Models: {", ".join(f"`{name}`" for name in models)}. Each is a folder in `models`, with what was checked in its
`parity.json` and the license of its training data in its `README.md`. To add a model, export it with `--format web` and
the same `--out`.

`onnxruntime` holds {browser_runtime.NAME} {browser_runtime.VERSION} by Microsoft (MIT License).
"""
