"""A reporter that keeps what it is warned of."""

from grape.core.events import SilentReporter


class Hearing(SilentReporter):
    """Keeps warnings, in order."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)
