"""`make demo`: the whole way on 1,797 handwritten digits, from training to a prediction."""

import shutil
from pathlib import Path

from supertokenvit.cli import main
from supertokenvit.data.splits import open_splits

RUN = Path("runs/demo")


def step(title: str, words: list[str]) -> None:
    """Prints a command and runs it."""
    print(f"\n== {title}\n$ supertokenvit {' '.join(words)}", flush=True)
    main(words)


if __name__ == "__main__":
    shutil.rmtree(RUN, ignore_errors=True)
    step("Train", ["train", "--recipe", "recipes/digits.yaml", "--out", str(RUN)])
    step("Measure on the test images", ["evaluate", "--model", str(RUN)])
    images = RUN / "images"
    images.mkdir()
    test = open_splits("digits").test
    for i in range(5):
        test.image(i).resize((64, 64)).save(images / f"{test.classes[test.targets[i]]}-{i}.png")
    step(
        "Use it (the file's name begins with the true digit)",
        ["predict", "--model", str(RUN), str(images), "--topk", "3"],
    )
    print(f"\nLook at: {RUN}/samples.png, {RUN}/curves.png, {RUN}/confusion.png, {RUN}/metrics.csv")
