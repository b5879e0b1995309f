"""Gets ONNX Runtime for browsers, which the page needs and this package does not contain."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ..run_folder import put_in_place
from .options import ExportError

NAME, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm writes it
ARCHIVE = f"{NAME}-{VERSION}.tgz"
# The page computes with WebAssembly alone, so the much larger files for graphics cards stay out.
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
SECONDS = 600


def cache() -> Path:
    """Returns the folder in which the archive is kept, so that it is fetched once."""
    return Path.home() / ".cache" / "supertokenvit" / "npm"


def archive() -> Path:
    """Returns npm's archive of ONNX Runtime for browsers, fetched by npm unless it is there already.

    Raises:
        ExportError: It is neither there, nor can npm fetch it.
    """
    kept = cache() / ARCHIVE
    if not kept.exists():
        fetch(kept)
    refuse_changed(kept)
    return kept


def fetch(to: Path) -> None:
    """Lets npm fetch the archive.

    Args:
        to: File to write.

    Raises:
        ExportError: There is no npm, or it fails, or what it fetches is not what it was.
    """
    npm = shutil.which("npm")
    what = f"the page needs {NAME} {VERSION}"
    if npm is None:
        raise ExportError(
            f"{what}, and there is no npm to fetch it: install Node.js, or put {ARCHIVE} into {to.parent}"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=to.parent) as folder:
        words = [npm, "pack", f"{NAME}@{VERSION}", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
            reason = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        except subprocess.TimeoutExpired:
            reason = f"it took over {SECONDS} s"
        fetched = Path(folder) / ARCHIVE
        if not fetched.exists():
            advice = f"try again with a network, or put {ARCHIVE} into {to.parent}"
            raise ExportError(f"{what}, and npm could not fetch it ({reason.strip()}): {advice}")
        refuse_changed(fetched)
        put_in_place(fetched, to)


def refuse_changed(path: Path) -> None:
    """Raises ExportError for an archive that is not the one that was tested."""
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise ExportError(f"{path}: its content is not that of {NAME} {VERSION}; delete it, so that it is fetched anew")


def unpack(folder: Path) -> None:
    """Writes those files of ONNX Runtime into a new folder that the page needs.

    Raises:
        ExportError: They cannot be had.
    """
    kept = archive()
    folder.mkdir()
    with tarfile.open(kept) as packed:
        for name in FILES:
            content = packed.extractfile(f"package/dist/{name}")
            assert content is not None, name
            (folder / name).write_bytes(content.read())


if __name__ == "__main__":
    print(archive())
