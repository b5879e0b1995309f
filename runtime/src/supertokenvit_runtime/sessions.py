"""Sessions run a graph in ONNX Runtime or OpenVINO, and read what was written into its file."""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .errors import UserError


class SessionError(UserError):
    """A graph that cannot be run."""


class Session(Protocol):
    """A graph in an engine."""

    def note(self, key: str) -> str | None:
        """Returns the text that the file's metadata holds under a key, if any."""

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns every output by its name."""


class OnnxSession:
    """Runs an .onnx file on the CPU.

    Args:
        path: The .onnx file.
        threads: CPU threads that work on one call.

    Raises:
        SessionError: ONNX Runtime cannot be imported.
    """

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = need("onnxruntime", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors come as exceptions, and warnings mean nothing to users
        # an idle pool that spins would take cores from the threads that decode
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name
        self.output_names = [output.name for output in self.session.get_outputs()]

    def note(self, key: str) -> str | None:
        """Returns the text that the file's metadata holds under a key, if any."""
        return self.session.get_modelmeta().custom_metadata_map.get(key)

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns every output by its name."""
        return dict(zip(self.output_names, self.session.run(None, {self.name: images}), strict=True))


class OpenVinoSession:
    """Runs an .xml file on the CPU; what is not quantised is computed in fp32.

    Args:
        path: The .xml file.
        threads: CPU threads that work on one call.

    Raises:
        SessionError: OpenVINO is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        core = need("openvino", "supertokenvit-runtime[openvino]").Core()
        self.model = core.read_model(str(path))
        settings = {
            "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        self.compiled = core.compile_model(self.model, "CPU", settings)
        self.request = self.compiled.create_infer_request()

    def note(self, key: str) -> str | None:
        """Returns the text that the file's metadata holds under a key, if any."""
        return self.model.get_rt_info([key]).value if self.model.has_rt_info([key]) else None

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns every output by its name."""
        found = self.request.infer([images])
        return {output.get_any_name(): found[output].copy() for output in self.compiled.outputs}


SESSIONS: dict[str, Any] = {".onnx": OnnxSession, ".xml": OpenVinoSession}


def open_session(path: Path, threads: int) -> Session:
    """Opens a file in the engine that its ending names.

    Args:
        path: The .onnx or .xml file.
        threads: CPU threads that work on one call.

    Raises:
        SessionError: There is no such file, its ending is unknown, or the engine cannot read it.
    """
    if path.suffix.lower() not in SESSIONS:
        raise SessionError(f"{path}: not an exported file; its name must end in {' or '.join(SESSIONS)}")
    if not path.is_file():
        raise SessionError(f"{path}: there is no such file")
    try:
        return SESSIONS[path.suffix.lower()](path, threads)
    except UserError:
        raise
    except Exception as error:  # each engine has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SessionError(f"{path}: cannot be read ({reason})") from None


def need(package: str, requirement: str) -> Any:
    """Imports a package, or raises SessionError with what to install."""
    try:
        return import_module(package)
    except ImportError as error:
        raise SessionError(f"{package} cannot be imported ({error}): pip install '{requirement}'") from error
