"""Finds transformer blocks in any model, without a line per architecture."""

from collections.abc import Iterator

from torch import nn


def find_block_lists(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Yields the outermost ModuleLists of at least two equal classes that hold Linears.

    Args:
        module: Where to look.
        name: Its dotted name.

    Yields:
        Dotted name and the list, in the order of the modules.
    """
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if isinstance(child, nn.ModuleList) and _is_block_list(child):
            yield path, child
        else:
            yield from find_block_lists(child, path)


def _is_block_list(modules: nn.ModuleList) -> bool:
    return (
        len(modules) >= 2
        and len({type(module) for module in modules}) == 1
        and all(any(isinstance(part, nn.Linear) for part in module.modules()) for module in modules)
    )
