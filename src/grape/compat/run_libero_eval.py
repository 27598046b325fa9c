"""``python -m grape.compat.run_libero_eval``: OpenVLA's evaluation command for LIBERO.

Prints the equivalent ``grape evaluate`` and what becomes of each flag, then runs it.
"""

import sys
from collections.abc import Sequence

from grape.compat.evaluate_call import EvaluateCall, explain_and_run, keys_of
from grape.compat.libero_flags import parse_flags, translate

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Translate, explain, run; returns the exit status.

    Args:
        arguments: The flags; those of the process by default. What follows a ``--`` goes to ``grape evaluate`` as it is
            and wins.
    """
    return explain_and_run(arguments, _translate)


def _translate(words: Sequence[str], further: Sequence[str]) -> EvaluateCall:
    return translate(parse_flags(words), further, keys_of)


if __name__ == "__main__":
    sys.exit(main())
