"""Engines turn a network into a callable: torch, ONNX Runtime and OpenVINO. Every room above may use them."""
