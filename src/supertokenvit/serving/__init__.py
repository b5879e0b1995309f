"""Trained models over HTTP: the server of the runtime package, with torch in its workers."""
