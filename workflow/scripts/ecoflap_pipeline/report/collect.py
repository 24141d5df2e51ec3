"""Gathers artifacts into tidy tables: what both tables and figures are made of."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from ecoflap import artifacts
from ecoflap.plugins import PERCENT
from ecoflap_pipeline import paths

POINT = ["model", "variant", "sparsity"]


def metrics(files: Iterable[str]) -> pd.DataFrame:
    """Reads metrics files: one row per model, variant, sparsity, seed, task, metric and subset.

    Fractions and CIDEr become percent, as papers print them. What is not defined is NaN; the
    column note says why, or what else to know of a number.
    """
    rows = []
    for file in files:
        content = artifacts.read_json(file, "metrics")
        point = {key: content[key] for key in [*POINT, "seed"]}
        rows += [{**point, "note": "", **row} for row in content["metrics"]]
    frame = pd.DataFrame(rows)
    percent = frame["metric"].isin(PERCENT)
    columns = ["value", "standard_error"]
    frame[columns] = frame[columns].astype(float)  # of the text "inf" too
    frame.loc[percent, columns] *= 100
    return frame


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Averages over calibration seeds.

    Args:
        frame: What `metrics` returned.

    Returns:
        Per model, variant, sparsity, task and metric (whole task): value (mean), standard_error,
        seeds, error_over, note. With several seeds the standard error is that of their mean; with
        one it is the item-level error of that seed's number, and ``error_over`` says ``items``. A
        mean with a seed whose number is not defined is not defined either.
    """
    whole = frame[frame["subset"] == ""]
    rows = []
    for key, part in whole.groupby([*POINT, "task", "metric"], sort=False):
        seeds = part["seed"].nunique()
        value = part["value"].mean(skipna=False)
        if seeds == 1:
            error = part["standard_error"].iloc[0]
        elif math.isfinite(value):
            error = part["value"].std(ddof=1) / math.sqrt(seeds)
        else:
            error = math.nan
        over = "seeds" if seeds > 1 else "items"
        note = "; ".join(note for note in dict.fromkeys(part["note"]) if note)
        rows.append((*key, value, error, seeds, over, note))
    columns = [*POINT, "task", "metric", "value", "standard_error", "seeds", "error_over", "note"]
    return pd.DataFrame(rows, columns=columns)


def costs(
    prune_files: Iterable[str],
    score_files: Iterable[str],
    choice_files: Iterable[str],
    scores: Mapping[str, Mapping[str, tuple[str, list[str]]]],
    finetune_files: Iterable[str] = (),
) -> pd.DataFrame:
    """Adds up what a method costs: scores, choice of a plan, pruning pass, and fine-tuning.

    Args:
        prune_files: Cost files of prune_model.
        score_files: Cost files of compute_scores.
        choice_files: Files of choose_plan.
        scores: By model and pruned variant, the calibration set and the scores that were used.
        finetune_files: Cost files of finetune_model.

    Returns:
        Per model, variant and sparsity, averaged over seeds: seconds, peak_memory_mb,
        achieved_sparsity, whole_model_sparsity, and tokens_per_feature of the matrix with the
        fewest where a criterion reads inputs.
    """
    scoring = {
        (cost["model"], cost["calibration"], cost["score"], cost["seed"]): cost
        for cost in (artifacts.read_json(file, "cost") for file in score_files)
    }
    choices = {
        tuple(choice[key] for key in (*POINT, "seed")): choice
        for choice in (artifacts.read_json(file, "choice") for file in choice_files)
    }
    pruning = {}
    for file in prune_files:
        cost = artifacts.read_json(file, "cost")
        calibration, used = scores[cost["model"]].get(cost["variant"], ("", []))
        keys = [(cost["model"], calibration, name, cost["seed"]) for name in used]
        parts = [cost, *(scoring[key] for key in keys)]
        place = tuple(cost[key] for key in (*POINT, "seed"))
        pruning[place] = parts + ([choices[place]] if place in choices else [])
    together = [(parts[0], parts) for parts in pruning.values()]
    for file in finetune_files:
        cost = artifacts.read_json(file, "cost")
        place = tuple({**cost, "variant": cost["from"]}[key] for key in (*POINT, "seed"))
        together.append((cost, [cost, *pruning[place]]))
    rows = [
        {
            **{key: cost[key] for key in POINT},
            "seconds": sum(part["seconds"] for part in parts),
            "peak_memory_mb": max(part["peak_memory_mb"] for part in parts),
            "achieved_sparsity": cost["achieved_sparsity"],
            "whole_model_sparsity": cost["whole_model_sparsity"],
            "tokens_per_feature": next(
                (part["tokens_per_feature"] for part in parts if "tokens_per_feature" in part),
                math.nan,
            ),
        }
        for cost, parts in together
    ]
    means = pd.DataFrame(rows).groupby(POINT, sort=False, as_index=False).mean()
    return means.dropna(axis="columns", how="all")


def scores(files: Iterable[str]) -> pd.DataFrame:
    """Reads score files: one row per matrix, with the columns score_id and seed."""
    frames = []
    for file in files:
        frame, head = artifacts.read_table(file, "scores")
        _, names = paths.artifact_at(str(file))
        frames.append(frame.assign(score_id=names["score"], seed=head["seed"]))
    return pd.concat(frames, ignore_index=True)


def plans(files: Iterable[str]) -> pd.DataFrame:
    """Reads allocations: one row per block, with its sparsity and the columns of its path."""
    frames = []
    for file in files:
        content = artifacts.read_json(file, "allocation")
        frame = pd.DataFrame(content["matrices"])
        blocks = frame.groupby(["tower", "block"], sort=False, as_index=False)[
            ["n_weights", "keep"]
        ].sum()
        blocks["block_sparsity"] = 1 - blocks["keep"] / blocks["n_weights"]
        frames.append(blocks.assign(**_point(file)))
    return pd.concat(frames, ignore_index=True)


def curves(files: Iterable[str]) -> pd.DataFrame:
    """Reads training curves: one row per step, with the columns of the path."""
    frames = []
    for file in files:
        frame, _ = artifacts.read_table(file, "curve")
        frames.append(frame.assign(**_point(file)))
    return pd.concat(frames, ignore_index=True)


def _point(file: str) -> dict[str, str | int]:
    _, names = paths.artifact_at(str(file))
    return {**{key: names[key] for key in POINT}, "seed": int(names["seed"])}
