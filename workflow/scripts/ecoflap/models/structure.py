"""Finds transformer blocks, and what can be pruned in them, in any model."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ecoflap.errors import ModelError
from ecoflap.plugins import suggestion, unknown

TOWERS = ("vision", "language")
# Tables that are looked up, and kernels that slide: never meant to be pruned.
OTHER_WEIGHTS = (nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_block_lists(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Yields the outermost ModuleLists of blocks.

    A list holds blocks if a class occurs in it twice and there are Linears inside every element.
    A list of lists (stages) counts as one list of blocks that comes in parts.

    Args:
        module: Where to look.
        name: Its dotted name.

    Yields:
        Dotted name and the list, in the order of the modules.
    """
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        parts = list(child) if isinstance(child, nn.ModuleList) else []
        stages = [part for part in parts if isinstance(part, nn.ModuleList)]
        inner = [block for stage in stages for block in stage]
        if len(stages) == len(parts) and _are_blocks(inner):
            yield from ((f"{path}.{position}", stage) for position, stage in enumerate(stages))
        elif isinstance(child, nn.ModuleList) and _are_blocks(parts):
            yield path, child
        else:
            yield from find_block_lists(child, path)


def find_segments(
    module: nn.Module, blocks: Collection[nn.Module], name: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """Yields the largest modules with parameters that neither hold nor are a block.

    Args:
        module: Where to look.
        blocks: The model's blocks.
        name: Its dotted name.

    Yields:
        Dotted name and module: embeddings, projections, last norms, heads.
    """
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if child in blocks:
            continue
        holds = any(part in blocks for part in child.modules())
        if holds or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from find_segments(child, blocks, path)
        elif next(child.parameters(), None) is not None:
            yield path, child


def _are_blocks(modules: Sequence[nn.Module]) -> bool:
    return len({type(module) for module in modules}) < len(modules) and all(
        not isinstance(module, nn.Linear | nn.ModuleList) and any(linears(module))
        for module in modules
    )


def named_block_lists(
    module: nn.Module, names: Mapping[str, str | Sequence[str]]
) -> dict[str, tuple[str, nn.ModuleList]]:
    """Returns the lists of blocks that a user named: tower and list by dotted name.

    Args:
        module: The model.
        names: Tower to dotted name or names.

    Raises:
        ModelError: for an unknown tower, a name that is no ModuleList, a list inside another.
    """
    lists = {name: part for name, part in module.named_modules() if isinstance(part, nn.ModuleList)}
    chosen: dict[str, tuple[str, nn.ModuleList]] = {}
    for tower, given in names.items():
        if tower not in TOWERS:
            raise ModelError("blocks: " + unknown("tower", tower, TOWERS))
        for name in [given] if isinstance(given, str) else given:
            if name not in lists:
                raise _no_such_list(module, name, lists)
            twin = next((other for other in chosen if overlap(name, other)), None)
            if twin is not None:
                raise ModelError(
                    f"blocks: '{name}' and '{twin}' share blocks",
                    allowed="lists that do not lie in each other",
                    fix="Name one of them, and once.",
                )
            chosen[name] = (tower, lists[name])
    return chosen


def _no_such_list(module: nn.Module, name: str, lists: Mapping) -> ModelError:
    found = ", ".join(path for path, _ in find_block_lists(module)) or "none is found by itself"
    return ModelError(
        f"blocks: {type(module).__name__} has no ModuleList '{name}'",
        allowed="the dotted name of a ModuleList; the lists of blocks found by themselves: "
        f"{found}",
        fix=suggestion(name, lists) or "Print the model to see its modules.",
    )


def overlap(name: str, other: str) -> bool:
    """Tells whether one of two dotted names lies in the other."""
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")


def linears(block: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yields dotted name and module of each Linear that can be pruned, weight [n_out, n_in].

    The output projection of ``nn.MultiheadAttention`` is none: its weight is used, but the module
    is never called, so nobody sees its inputs.
    """
    for path, part in block.named_modules():
        if (
            isinstance(part, nn.Linear)
            and not isinstance(part, NonDynamicallyQuantizableLinear)
            and part.weight.is_floating_point()
            and part.weight.shape == (part.out_features, part.in_features)
        ):
            yield path, part


def left_dense(module: nn.Module, pruned: set[torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Yields owner's name and class of each weight tensor in a list that is not pruned.

    Args:
        module: Where to look.
        pruned: The weights that are pruned.
    """
    for path, part in module.named_modules():
        in_list = any(piece.isdigit() for piece in path.split("."))
        if in_list and not isinstance(part, OTHER_WEIGHTS):
            for parameter in part.parameters(recurse=False):
                if parameter.ndim >= 2 and parameter not in pruned:
                    yield path, type(part).__name__
