"""A server that answers for photographs over HTTP; workers of its own run the models."""
