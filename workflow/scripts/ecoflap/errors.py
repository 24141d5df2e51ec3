"""Errors that a user can act on: the value seen, what is allowed, what to do."""


class EcoflapError(Exception):
    """Base of every error that this package raises on purpose."""

    def __init__(self, seen: str, *, allowed: str | None = None, fix: str | None = None):
        """Joins the parts of the message.

        Args:
            seen: The value that was met and where, or a whole message.
            allowed: What would have been accepted.
            fix: What the user can do now.
        """
        super().__init__(seen if allowed is None else message(seen, allowed, fix))


class ConfigError(EcoflapError):
    """The configuration is wrong; found before any job starts."""


class ArtifactError(EcoflapError):
    """A file is missing, damaged, or not what its name says."""


class ModelError(EcoflapError):
    """A model cannot be loaded, or its structure is not understood."""


class DataError(EcoflapError):
    """A data set or a calibration sample is missing or unusable."""


class SampleError(DataError):
    """A picture or text that a model cannot take; `encoding.naming` adds whose it is."""


class AllocationError(EcoflapError):
    """Scores or budgets from which no allocation can be made."""


class InfeasibleError(AllocationError):
    """An allocation that is too strong for the sparsity: a group would lose more than it has."""


class PruningError(EcoflapError):
    """The numbers met on the way do not allow the step that was asked for."""


class DeployError(EcoflapError):
    """A model or a device that cannot do what a deployment asks of it."""


def message(seen: str, allowed: str, fix: str | None = None) -> str:
    """Joins the parts of a message, for lists of problems that are raised together.

    Args:
        seen: The value that was met and where.
        allowed: What would have been accepted.
        fix: What the user can do now.
    """
    return f"{seen}. Allowed: {allowed}." + (f" {fix}" if fix else "")
