"""Exact selection of the weights with the smallest metric, whatever the pattern."""

import re
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch

from ecoflap.errors import PruningError
from ecoflap.plugins import unknown

GROUPS = ("row", "matrix")
UNSTRUCTURED = "unstructured"
PATTERN = re.compile(r"(?P<kept>[1-9][0-9]*|n):(?P<of>[1-9][0-9]*)")
ALLOWED_PATTERNS = (
    "unstructured; N:M such as 2:4, with N of M weights kept; n:M such as n:8, with N from the plan"
)


@dataclass(frozen=True)
class Selection:
    """How many weights go, and among which they are compared.

    Attributes:
        sparsity: Fraction to remove, in [0, 1].
        group: Each output ``row`` or the whole ``matrix``; not used with N:M.
        kept: N of N:M, the weights that stay of each M in a row; 0 without such a pattern.
        of: M of N:M; 0 without such a pattern.
    """

    sparsity: float
    group: str = "row"
    kept: int = 0
    of: int = 0

    @classmethod
    def of_pattern(cls, sparsity: float, group: str, pattern: str, n_in: int) -> "Selection":
        """Makes a selection for a matrix of n_in columns.

        Args:
            sparsity: Fraction to remove, in [0, 1]; with N:M it must be 1 - N / M.
            group: ``row`` or ``matrix``.
            pattern: ``unstructured``, ``N:M`` or ``n:M``.
            n_in: Columns of the matrix.

        Raises:
            PruningError: for anything else, and for columns that M does not divide.
        """
        if group not in GROUPS:
            raise PruningError(unknown("group", group, GROUPS))
        if not (isinstance(sparsity, Real) and 0 <= sparsity <= 1):
            raise PruningError(
                f"sparsity {sparsity!r}",
                allowed="a number from 0 to 1",
                fix="Give the fraction removed.",
            )
        if pattern == UNSTRUCTURED:
            return cls(sparsity, group)
        kept, of = parse_pattern(pattern)
        share = of * (1 - sparsity)
        if kept is None:
            kept = round(share)
        if abs(kept - share) > 1e-6 * of:
            raise PruningError(
                f"sparsity {sparsity} with the pattern {pattern}",
                allowed=f"a sparsity of 1 - N/{of} with N weights kept of {of}",
                fix="Allocate under the same pattern, or choose another.",
            )
        if n_in % of:
            raise PruningError(
                f"{n_in} columns with the pattern {pattern}",
                allowed=f"columns in multiples of {of}",
                fix="Choose an M that divides the columns of every matrix.",
            )
        return cls(sparsity, group, kept, of)

    def part(self, share: float) -> "Selection":
        """Returns a selection of a share of the weights that go, in [0, 1]; all of them for 1."""
        kept = self.of - round(share * (self.of - self.kept))
        return replace(self, sparsity=share * self.sparsity, kept=kept)

    def smallest(self, metric: torch.Tensor) -> torch.Tensor:
        """Marks the weights with the smallest metric; ties never add one.

        Args:
            metric: Importance [n_out, n_in].

        Returns:
            Boolean mask [n_out, n_in], True where a weight goes: ``M - N`` of each M neighbours
            in a row, or ``round(sparsity n_in)`` in each row, or ``round(sparsity n)``.
        """
        if self.of:
            rows, count = metric.reshape(-1, self.of), self.of - self.kept
        else:
            rows = metric if self.group == "row" else metric.reshape(1, -1)
            count = round(self.sparsity * rows.shape[1])
        return lowest(rows, count).reshape(metric.shape)


def lowest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Marks exactly that many of the smallest values of each row.

    Args:
        rows: Finite values [n, m].
        count: How many of the m values of each row.

    Returns:
        bool [n, m].
    """
    if count and rows.device.type == "cpu" and rows.dtype == torch.float32:
        # Partial sorting of values alone takes a fifth of the time of `topk`.
        bound = torch.from_numpy(np.partition(rows.detach().numpy(), count - 1)[:, count - 1])
        mask = rows <= bound[:, None]
        if mask.count_nonzero() == count * len(rows):  # no ties at the bound
            return mask
    mask = torch.zeros_like(rows, dtype=torch.bool)
    if count:
        chosen = rows.topk(count, dim=1, largest=False, sorted=False).indices
        mask.scatter_(1, chosen, True)
    return mask


def parse_pattern(pattern: str) -> tuple[int | None, int]:
    """Reads ``N:M`` or ``n:M``.

    Returns:
        N (None for ``n:M``) and M.

    Raises:
        PruningError: if it is neither.
    """
    found = PATTERN.fullmatch(str(pattern))
    if found:
        of = int(found["of"])
        kept = None if found["kept"] == "n" else int(found["kept"])
        if kept is None or kept <= of:
            return kept, of
    raise PruningError(f"pattern '{pattern}'", allowed=ALLOWED_PATTERNS, fix="Correct the pattern.")
