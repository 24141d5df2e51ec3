"""Gradients of the prunable matrices, streamed: each is reduced at once and freed."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, cast

import torch
from tqdm import tqdm

from ecoflap.engine.replay import checkpointed, patched
from ecoflap.errors import PruningError

if TYPE_CHECKING:
    from ecoflap.models.model import Matrix, Model

Reduce = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
LARGEST_SCALE, SMALLEST_SCALE = 2.0**15, 2.0**-15


def mean_over_batches(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    label: str,
) -> dict[str, float]:
    """Returns the mean over batches of ``reduce(weight, gradient)`` for each matrix.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        reduce: Turns weight and gradient (float32) [n_out, n_in] into a scalar tensor.
        label: Shown by the progress bar.

    Returns:
        Mean by matrix name; zero for matrices that no loss depends on, and nothing for those of
        blocks that the model never runs.

    Raises:
        PruningError: if the loss is not finite.
    """
    totals = {matrix.name: 0.0 for matrix in model.matrices()}
    reached: set[int] = set()
    for values in over_batches(model, batches, lambda _, w, g: reduce(w, g), label, reached):
        for name, value in values.items():
            totals[name] += value.item()
    ran = (matrix.name for matrix in model.matrices() if matrix.block in reached)
    return {name: totals[name] / len(batches) for name in ran}


def over_batches(
    model: "Model",
    batches: Sequence[Mapping[str, torch.Tensor]],
    reduce: Reduce,
    label: str,
    reached: set[int] | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yields for each batch ``reduce(name, weight, gradient)`` of each matrix.

    Only one gradient is alive at a time, and blocks are computed again in the backward, so the
    peak is about the weights, one block's activations and the largest gradient.

    Args:
        model: The model.
        batches: Calibration batches on the model's device.
        reduce: Turns name, weight and gradient (float32) [n_out, n_in] into a smaller tensor.
        label: Shown by the progress bar.
        reached: Gets the indices of the blocks that ran.

    Yields:
        The reduced value by matrix name; matrices without a gradient are missing.

    Raises:
        PruningError: if the loss or a value is not finite.
    """
    with _without_gradients(model):
        for batch in tqdm(batches, desc=label, unit="batch", disable=None):
            yield _one_batch(model, batch, reduce, set() if reached is None else reached)


@contextmanager
def _without_gradients(model: "Model") -> Iterator[None]:
    """Asks for no parameter's gradient: the taps alone carry them."""
    before = {parameter: parameter.requires_grad for parameter in model.module.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


def _one_batch(
    model: "Model", batch: Mapping[str, torch.Tensor], reduce: Reduce, reached: set[int]
) -> dict[str, torch.Tensor]:
    """Reduces the gradients of one batch; in float16 those of a scaled loss.

    Small gradients vanish in float16. The loss is multiplied by the largest power of two, at most
    2^15, for which no gradient overflows, and the gradients are divided by it in float32.

    Args:
        model: The model.
        batch: One batch.
        reduce: What to make of each gradient.
        reached: Gets the indices of the blocks that ran.

    Returns:
        The reduced value by matrix name.
    """
    half = any(matrix.module.weight.dtype == torch.float16 for matrix in model.matrices())
    scale = LARGEST_SCALE if half else 1.0
    while True:
        taps = Taps(model, lambda n, w, g, scale=scale: reduce(n, w, _unscaled(g, scale)))
        with torch.enable_grad(), taps:
            loss = model.loss(batch)
            if not torch.isfinite(loss):
                raise _not_finite(f"the loss of a calibration batch is {loss.item()}")
            taps.backward(loss.to(torch.promote_types(loss.dtype, torch.float32)) * scale)
        reached.update(taps.blocks)
        values = taps.finish()
        overflown = [name for name, value in values.items() if not torch.isfinite(value).all()]
        if not overflown:
            return values
        if not half or scale <= SMALLEST_SCALE:
            raise _not_finite(f"the gradient of {overflown[0]} is not finite")
        scale /= 2


def _unscaled(gradient: torch.Tensor, scale: float) -> torch.Tensor:
    return gradient.float() if scale == 1 else gradient.float() / scale


def _not_finite(seen: str) -> PruningError:
    return PruningError(
        seen, allowed="finite numbers", fix="Load the model as float32 or bfloat16."
    )


class Taps:
    """Catches the gradient of each prunable matrix on its way through a backward.

    Within the ``with`` block the matrices' weights are passed through a function that is the
    identity forward and hands its gradient over backward, so that no parameter ever holds one and
    weights may come and go with their block (offload). A module may be called any number of times:
    its gradients are added up, and reduced with the last. The gradient of a weight that is used
    without its module being called (Mamba's ``dt_proj``) is taken from the parameter.
    """

    def __init__(self, model: "Model", reduce: Reduce):
        """Prepares to catch.

        Args:
            model: The model.
            reduce: Turns name, weight and gradient, as they come, into a smaller tensor.
        """
        self.model, self.reduce = model, reduce
        self.values: dict[str, torch.Tensor] = {}
        self.blocks: set[int] = set()  # those that ran
        self.calls: Counter[str] = Counter()  # of each matrix in the forward, not those of it again
        self.caught: Counter[str] = Counter()
        self.partial: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.in_forward = True

    def __enter__(self) -> None:
        """Starts to catch."""
        self.anchor = torch.zeros((), device=self.model.device, requires_grad=True)
        self.matrices = list(self.model.matrices())
        self.patches = ExitStack()
        modules, linears = self.model.block_modules(), [m.module for m in self.matrices]
        self.patches.enter_context(patched(linears, self._through_tap))
        self.patches.enter_context(checkpointed(modules, self._around, self.blocks.add))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops catching."""
        self.patches.__exit__(kind, error, trace)
        for matrix in self.matrices:
            _weight(matrix).requires_grad_(False)

    def backward(self, loss: torch.Tensor) -> None:
        """Runs the backward, in which blocks are computed again.

        Raises:
            PruningError: if autograd cannot, because a block changes a state or cuts the gradient.
        """
        self.in_forward = False
        try:
            loss.backward()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # autograd's own, also where the recomputation differs
            reason = str(error).strip().partition("\n")[0]
            raise PruningError(
                f"no gradient comes back through {type(self.model.module).__name__} ({reason})",
                allowed="models whose blocks compute the same when they are run again",
                fix="Score it without gradients: zeroth, magnitude or lamp.",
            ) from error

    def finish(self) -> dict[str, torch.Tensor]:
        """Returns the reduced gradients, also of matrices of which some call had none."""
        for name, (weight, gradient) in self.partial.items():
            self.values[name] = self.reduce(name, weight, gradient)
        self.partial.clear()
        return self.values

    @contextmanager
    def _around(self, block: int) -> Iterator[None]:
        """Holds a block's weights on the device and watches for gradients beside the taps."""
        with self.model.resident(block):
            for matrix in self.model.blocks[block].matrices:
                weight = _weight(matrix)
                if not weight.requires_grad:
                    weight.requires_grad_()
                    handle = weight.register_post_accumulate_grad_hook(
                        lambda weight, matrix=matrix: self._take_beside(matrix, weight)
                    )
                    self.patches.callback(handle.remove)
            yield

    def _through_tap(
        self, index: int, forward: Callable, args: tuple, kwargs: dict
    ) -> torch.Tensor:
        # Tapped where it is used, not before: the backward runs the youngest operation first, so
        # that the gradient is taken as soon as it is there.
        matrix = self.matrices[index]
        if self.in_forward and torch.is_grad_enabled():
            self.calls[matrix.name] += 1
        weight = _weight(matrix)
        tapped = _Tap.apply(self.anchor, weight.detach(), lambda w, g: self._take(matrix, w, g))
        with _replaced(matrix.module._parameters, "weight", tapped):
            return forward(*args, **kwargs)

    def _take(self, matrix: "Matrix", weight: torch.Tensor, gradient: torch.Tensor) -> None:
        name = matrix.name
        self.caught[name] += 1
        if name in self.partial:
            gradient = self.partial.pop(name)[1] + gradient
        if self.caught[name] == self.calls[name]:
            self.values[name] = self.reduce(name, weight, gradient)
        else:
            self.partial[name] = (weight, gradient.float())

    def _take_beside(self, matrix: "Matrix", weight: torch.nn.Parameter) -> None:
        """Takes the gradient of a weight that is used without a call of its module."""
        gradient, weight.grad = cast(torch.Tensor, weight.grad), None  # it is there by now
        if self.calls[matrix.name]:
            raise PruningError(
                f"the model calls {matrix.name}, and uses its weight without a call too",
                allowed="matrices that are used in one of these ways",
                fix="Leave the list of its block out with load(..., blocks=...).",
            )
        self.values[matrix.name] = self.reduce(matrix.name, weight.detach(), gradient)


def _weight(matrix: "Matrix") -> torch.nn.Parameter:
    """Returns the weight itself, past nn.Module's slow getattr."""
    return cast(torch.nn.Parameter, matrix.module._parameters["weight"])


@contextmanager
def _replaced(mapping: dict, key: str, value: torch.Tensor) -> Iterator[None]:
    before = mapping[key]
    mapping[key] = value
    try:
        yield
    finally:
        mapping[key] = before


class _Tap(torch.autograd.Function):
    """The identity; its backward hands weight and gradient over and passes nothing on."""

    @staticmethod
    def forward(ctx, anchor: torch.Tensor, weight: torch.Tensor, take: Callable) -> torch.Tensor:
        """Returns the weight; the anchor is there to ask for a gradient."""
        ctx.take = take
        ctx.save_for_backward(weight)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[None, None, None]:
        """Hands the gradient over."""
        ctx.take(*ctx.saved_tensors, gradient)
        return None, None, None
