"""What the process imports from which workers are forked."""

import contextlib

from . import worker as worker

with contextlib.suppress(ImportError):
    import onnxruntime as onnxruntime
