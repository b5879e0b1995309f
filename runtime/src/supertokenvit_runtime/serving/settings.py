"""What a server may be told: where it listens, how much it takes, how it ends."""

import os
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..exported import cores

TOKEN_VARIABLE = "SUPERTOKENVIT_TOKEN"


def told(default: Any, help: str) -> Any:
    """Makes a field that is an option of the command line, too."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Raises:
        UsageError: One of them cannot be, or the server would be open to others without a token.
    """

    host: str = told("127.0.0.1", "Address to listen on; any but this machine's own needs a token")
    port: int = told(8000, "Port; 0 takes a free one")
    workers: int = told(1, "Processes that run each model")
    queue: int = told(256, "Images of each model that may wait or be computed; more are refused with 429")
    deadline: float = told(30.0, "Seconds in which a request must be answered")
    drain: float = told(3.0, "Seconds in which requests are still taken after a signal to end")
    max_mb: float = told(16.0, "Megabytes that a request may have")
    token: str | None = field(default=None, repr=False)
    """What requests must say in `Authorization: Bearer TOKEN`; None asks for nothing."""
    batch: int = 32
    """Images that a model sees at once, at most."""
    max_megapixels: float = 50.0
    """Size of an image, at most."""
    max_waiting_mb: float = 1024.0
    """Megabytes of bodies, and again of pixels, that may wait."""

    def __post_init__(self) -> None:
        for name in ("workers", "queue", "deadline", "max_mb"):
            if getattr(self, name) <= 0:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} {getattr(self, name)}: must be over 0")
        if self.drain < 0:
            raise UsageError(f"--drain {self.drain}: must be at least 0")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: must be from 0 to 65535")
        if self.token is None and not is_own(self.host):
            raise UsageError(
                f"--host {self.host}: others could ask, so a token is needed: --token-file FILE, or {TOKEN_VARIABLE}"
            )

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return max(1, cores() // self.workers)


def is_own(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: str | None) -> str | None:
    """Reads the token from a file, or else from the environment; None if there is none.

    Raises:
        UsageError: It is empty, or has letters that a header cannot hold.
        OSError: The file cannot be read.
    """
    text = os.environ.get(TOKEN_VARIABLE) if file is None else Path(file).read_text(encoding="utf-8", errors="replace")
    if text is None:
        return None
    token, source = text.strip(), TOKEN_VARIABLE if file is None else file
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{source}: a token must be one word of ASCII letters, digits and signs")
    return token


def add_options(parser: Any, dash: str = "-") -> None:
    """Adds the options of `serve` to a parser.

    Args:
        parser: Of argparse, or one that takes the same calls.
        dash: What joins the words of an option.
    """
    for option in fields(Settings):
        if "help" in option.metadata:
            name = "--" + option.name.replace("_", dash)
            parser.add_argument(name, type=option.type, default=option.default, help=option.metadata["help"])
    name = f"--token{dash}file"
    parser.add_argument(name, type=str, default=None, help=f"File with the token; or the variable {TOKEN_VARIABLE}")


def settings_of(given: dict[str, Any]) -> Settings:
    """Makes settings of the values of the options."""
    named = {option.name: given[option.name] for option in fields(Settings) if "help" in option.metadata}
    return Settings(**named, token=read_token(given["token_file"]))
