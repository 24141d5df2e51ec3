"""Checks that modules of other packages, named with a dot, are there and are plug-ins."""

from collections.abc import Iterator, Mapping

from ecoflap.errors import message
from ecoflap.plugins import is_dotted, missing
from ecoflap.schema import fields
from ecoflap_pipeline.code import SCRIPTS, literal, module_file, top_level
from ecoflap_pipeline.config.sections import Score

CONTRACTS = {
    "criterion": ("UPDATES_WEIGHTS", "NEEDS_INPUTS", "statistics", "prune"),
    "estimator": ("SETTINGS", "compute"),
}


def plugin_problems(config: Mapping) -> Iterator[str]:
    """Yields the modules that variants and scores name and that are no plug-ins.

    Args:
        config: The merged configuration.
    """
    for section, key in (("variants", "criterion"), ("scores", "estimator")):
        for name, entry in config[section].items():
            module = entry.get(key)
            if is_dotted(module):
                yield from _module_problems(f"{section}.{name}.{key}", module, CONTRACTS[key])
    for name, entry in config["scores"].items():
        if is_dotted(entry.get("estimator")):
            yield from _setting_problems(f"scores.{name}", entry)


def _module_problems(place: str, module: str, contract: tuple[str, ...]) -> Iterator[str]:
    path = module_file(module, SCRIPTS, module.partition(".")[0])
    if path is None:
        yield message(
            f"{place}: no module '{module}'",
            "a module that Python finds",
            "Put the folder that its package lies in on PYTHONPATH.",
        )
        return
    try:
        names = top_level(path)
    except SyntaxError as error:
        yield message(f"{place}: {path}, line {error.lineno}: {error.msg}", "Python", "Correct it.")
        return
    absent = [name for name in contract if name not in names]
    if absent and "*" not in names:  # what a star brings, only running it tells
        yield message(
            f"{place}: {path} has no {', '.join(absent)}",
            f"a module with {', '.join(contract)}",
            "CONTRIBUTING.md has an example to copy.",
        )


def _setting_problems(place: str, entry: Mapping) -> Iterator[str]:
    """Yields settings that a score of another package does not take, where they are written out."""
    known = literal(entry["estimator"], "SETTINGS")
    if isinstance(known, dict):
        own = [key for key in entry if key not in fields(Score)]
        yield from missing(place, f"setting of {entry['estimator']}", own, known)
