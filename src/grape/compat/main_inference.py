"""``python -m grape.compat.main_inference``: SimplerEnv's evaluation command, as the first public GRAPE gives it.

Prints the equivalent ``grape evaluate`` and what becomes of each flag, then runs it.
"""

import sys
from collections.abc import Sequence

from grape.compat.evaluate_call import EvaluateCall, explain_and_run, keys_of
from grape.compat.inference_flags import parse_flags
from grape.compat.inference_translation import translate

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
