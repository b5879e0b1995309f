"""What makes a callable of a network: torch, ONNX Runtime and OpenVINO. Every other room may stand on this one."""
