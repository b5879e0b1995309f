"""The command `supertokenvit`."""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from . import __version__
from .verbs import VERBS


def usage() -> str:
    """Returns the overview that `supertokenvit --help` prints."""
    lines = ["usage: supertokenvit VERB [options]", ""]
    lines += [f"  {verb:<12} {text}" for verb, text in VERBS.items()]
    lines += ["", "supertokenvit VERB --help lists a verb's options; --debug shows where an error came from."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return
    if words[0] == "--version":
        print(__version__)
        return
    from .command_line import USAGE_ERROR, accept_every_name, fail, run

    accept_every_name()
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        fail(f"no verb {words[0]!r}{hint} (supertokenvit --help)", USAGE_ERROR)
    verb = import_module(f".verbs.{words[0].replace('-', '_')}", __package__)
    run(verb.run, words, debug)


if __name__ == "__main__":
    main()
