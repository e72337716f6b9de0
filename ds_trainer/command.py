"""What commands share: how they begin, and how they end."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from ds_trainer.distributed import is_master
from ds_trainer.errors import EXIT_USER_ERROR, UserError
from ds_trainer.progress import complain, end_log, start_log, tell_problems

EXIT_INTERRUPTED = 130  # as shells tell that SIGINT ended a command

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """`main` with its log started: what the user can mend ends it with status 2, Ctrl-C with 130 and no traceback.

    Also with 2, in place of 0, where the log could not be written.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        start_log()
        tell_other_checkout()
        try:
            status = main(*args, **kwargs)
        except UserError as error:
            tell_problems(error.problems)
            status = EXIT_USER_ERROR
        except KeyboardInterrupt:
            status = EXIT_INTERRUPTED
        problems = end_log()
        complain(problems)  # on standard error, where the log could not be written
        return status or (EXIT_USER_ERROR if problems else 0)

    return run


def tell_other_checkout() -> None:
    """Tell where a script of `launch/` runs the package of another checkout: Python takes the one that is installed."""
    script, package = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parent
    beside = script.parents[1] / package.name if script.parent.name == "launch" else package
    if is_master() and beside != package and (beside / "__init__.py").exists():
        complain(
            [
                f"{script} runs the package in {package}, not the one beside it; "
                f"export PYTHONPATH={beside.parent}, or an environment for each checkout (make setup), takes that"
            ],
            "note",
        )
