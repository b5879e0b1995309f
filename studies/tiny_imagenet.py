"""Lays Tiny-ImageNet out as folders of images, from a copy of a public repository that holds it as ordinary files.

python -m studies.tiny_imagenet REPOSITORY FOLDER

REPOSITORY is a clone (bare or not) of github.com/rangeetpan/IMagenet at commit 6125d8a1: 202 classes of ImageNet at
64 px, each with 500 training images and 50 validation images. FOLDER gets `train/CLASS` and `test/CLASS`: its
validation images are test images here, and `train` keeps a part of the training images for validation. ImageNet's terms
allow non-commercial research only. Counts are checked; FOLDER is written whole or not at all.
"""

import argparse
import collections
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = "tiny-imagenet-200"
COMMIT = "6125d8a1069df02232eb57678fd46c700411dd45"
CLASSES, PARTS = 202, {"train": 500, "test": 50}


def text_of(repository: Path, name: str) -> str:
    """Reads a text file of the repository."""
    words = ["git", "-C", str(repository), "show", f"{COMMIT}:{ROOT}/{name}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def names_of(numbers: Sequence[str], words: str) -> dict[str, str]:
    """Gives each class its first English name; where two have the same, the number stands behind it."""
    first = {number: text.split(",")[0].strip() for number, text in (line.split("\t") for line in words.splitlines())}
    count = collections.Counter(first[number] for number in numbers)
    return {number: first[number] + (f" {number}" if count[first[number]] > 1 else "") for number in numbers}


def images_of(repository: Path, part: str) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of each image of `train` or `val`."""
    words = ["git", "-C", str(repository), "archive", COMMIT, f"{ROOT}/{part}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as git, tarfile.open(fileobj=git.stdout, mode="r|") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".JPEG") else None
            if file is not None:
                yield member.name.rsplit("/", 1)[1], file.read()


def lay_out(repository: Path, folder: Path) -> None:
    """Writes the folders of both parts.

    Args:
        repository: The clone.
        folder: Empty, to write.

    Raises:
        SystemExit: The repository does not hold what it should.
    """
    lines = [line.split("\t") for line in text_of(repository, "val/val_annotations.txt").splitlines()]
    classes = {line[0]: line[1] for line in lines}
    names = names_of(sorted(set(classes.values())), text_of(repository, "words.txt"))
    for part, source in (("train", "train"), ("test", "val")):
        found: collections.Counter[str] = collections.Counter()
        for file, content in images_of(repository, source):
            number = classes[file] if part == "test" else file.split("_")[0]
            place = folder / part / names[number]
            place.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(content)
            found[number] += 1
        if len(found) != CLASSES or set(found.values()) != {PARTS[part]}:
            sys.exit(f"{repository}: {part} has {len(found)} classes of {sorted(set(found.values()))} images")
        print(f"{part}: {len(found)} classes of {PARTS[part]} images", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Lays the data out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    if args.folder.exists():
        sys.exit(f"{args.folder}: is there already")
    args.folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{args.folder.name}-", dir=args.folder.parent))
    try:
        lay_out(args.repository, fresh)
        fresh.chmod(0o755)
        fresh.rename(args.folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


if __name__ == "__main__":
    main()
