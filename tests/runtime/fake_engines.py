"""Engines for tests of the server: the mean colour decides, and some first pixels do harm.

`python -m tests.runtime.fake_engines JSON` serves one: {"path": ..., "settings": {...}}; the file at the path says
{"name": ..., "classes": [...], "seconds": for each image}.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from supertokenvit_runtime.about import About
from supertokenvit_runtime.errors import UserError
from supertokenvit_runtime.serving.hosting import Source
from supertokenvit_runtime.serving.server import log_to_stderr, serve
from supertokenvit_runtime.serving.settings import Settings
from tests.runtime.graphs import CLASSES, expected

CRASH, FAIL, HANG = (1, 2, 3), (4, 5, 6), (7, 8, 9)


class FakeEngine:
    """Answers as the graph of graphs.py, slowly if the file says so."""

    def __init__(self, path: Path, threads: int) -> None:
        said = json.loads(path.read_text())
        self.seconds, self.sign = said.get("seconds", 0), said.get("sign", 1)
        time.sleep(said.get("loading", 0))
        self.about = About(said.get("name", "fake"), said.get("classes", CLASSES), explains=said.get("explains", False),
                           enough=said.get("enough"))  # fmt: skip

    def answer(self, photographs):
        for photograph in photographs:
            first = tuple(photograph[0, 0])
            if first == CRASH:
                os.abort()
            if first == FAIL:
                raise RuntimeError("bad luck")
            if first == HANG:
                time.sleep(3600)
        time.sleep(self.seconds * len(photographs))
        return np.stack([expected(photograph, self.sign) for photograph in photographs]).astype(np.float32)

    def explain(self, photograph, target):
        if target not in (None, *CLASSES):
            raise UserError(f"{target}: no such class")
        label = target or CLASSES[int(self.answer(photograph[None])[0].argmax())]
        return {"label": label, "size": [photograph.shape[1], photograph.shape[0]]}, b"\x89PNG of it"


def main():
    said = json.loads(sys.argv[1])
    log_to_stderr()
    source = Source(Path(said["path"]), FakeEngine)
    tell = {"file": sys.stderr, "flush": True}
    serve([source], Settings(**{"port": 0, "drain": 0.2, **said["settings"]}),
          told=lambda address: print(f"serving on {address}", **tell))  # fmt: skip


if __name__ == "__main__":
    from tests.runtime.fake_engines import main as importable_main  # so that workers can import the engine by its name

    importable_main()
