"""The command line: `harness COMMAND ...`, or Hydra's own, `python -m harness -m attention=full,flash`."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from harness.commands import COMMANDS
from harness.commands.output import reserved
from harness.errors import ConfigError, HarnessError, PluginError, UnknownNameError
from harness.notices import ask_for_quiet

BAD_INPUT, INTERNAL, FULL, INTERRUPTED = 2, 70, 75, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; one message without traceback where it fails (HARNESS_DEBUG=1 shows where).

    Units: the exit code is 0, 1 (some cell has no result), 2 (bad input), 70 (a defect), 75 (a disk is full,
    whoever noticed), 130 (interrupted)
    """
    ask_for_quiet()
    _keep_bytecode_whole()
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours = reserved(to_the_end=argv is None) if "--json" in arguments else nullcontext()
    try:
        with ours:
            return dispatch(arguments)
    except HarnessError as error:
        return _fail(str(error), error, BAD_INPUT if isinstance(error, ConfigError | PluginError) else 1)
    except KeyboardInterrupt:
        print("harness: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error}", error, 1)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (HARNESS_DEBUG=1 shows where)"
        return _fail(text, error, INTERNAL)


def _keep_bytecode_whole() -> None:
    """Write no bytecode where the size of files is limited (`ulimit -f`), neither here nor in stages.

    Python cuts a larger file off at the limit without an error (CPython issue 126606), and every later import
    of it fails, whoever imports it.
    """
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def dispatch(arguments: list[str]) -> int:
    """Call the command that the arguments name; without one, Hydra's own command line."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"harness {version('harness-lm')}")
        return 0
    first = arguments[0]
    if first in COMMANDS:
        if (
            first in ("run", "sweep", "plan")
            and sys.stderr.isatty()
            and not any("-h" in t for t in arguments[1:])
        ):
            # Libraries load for seconds before there is more to say.
            print("planning ...", file=sys.stderr, flush=True)
        module, _, function = COMMANDS[first][0].partition(":")
        code: int | None = getattr(import_module(module), function)(arguments[1:])
        return code or 0
    if first[:1] not in "-+~" and "=" not in first:
        raise UnknownNameError(what="command", name=first, known=COMMANDS)
    from harness.commands.hydra import run

    return run(arguments)


def usage() -> str:
    """The help text."""
    commands = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    return f"""harness compares methods for language models fairly.

usage: harness COMMAND ...
       python -m harness [-m] KEY=VALUE[,VALUE...] ...   (Hydra's own flags work: --cfg job, --info ...)

{commands}

`harness COMMAND --help` says more. Start with `harness plan experiment=demo`."""


def _fail(message: str, error: Exception, code: int) -> int:
    from harness.store.files import full_text, is_disk_full

    if is_disk_full(error):
        code, message = FULL, full_text(error)
    if os.environ.get("HARNESS_DEBUG"):
        import traceback

        traceback.print_exception(error)
    print(f"harness: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
