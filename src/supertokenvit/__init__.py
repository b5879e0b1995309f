"""Super Token Transformers (arXiv 2111.13156). Importing this registers the `stt_*` models with timm."""

from .model import family  # noqa: F401  registers the models

__version__ = "0.1.0"
