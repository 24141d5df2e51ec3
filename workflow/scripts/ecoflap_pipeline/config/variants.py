"""What a variant may hold: how to share out a budget, to prune, to fine-tune. Needs no torch."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from ecoflap.allocation import BUDGETS, GRANULARITIES, METHODS, REDUCTIONS
from ecoflap.errors import message
from ecoflap.plugins import CRITERIA, IMPORTED, RIDGED, WHOLE_MODEL, Registry
from ecoflap.schema import Entry, Name, Text, form, free, key, known

Allocation = known("allocation", METHODS)
Criterion = known("criterion", Registry("criterion", "", [*CRITERIA, *WHOLE_MODEL]))
ABOUT_ALLOCATION = "How the budget is shared over the groups."
# What each key of an allocation belongs to: the attribute of `Method` that says who takes it.
TAKEN = {
    "max_sparsity": "bounded",
    "strength": "strength",
    "granularity": "grouped",
    "reduction": "reduced",
}


class Plan(Entry):
    """An allocation and its settings."""

    allocation: Allocation = free(ABOUT_ALLOCATION, usual="uniform")
    score: Name = free("Entry of config/scores.yaml (every allocation but uniform and er).")
    max_sparsity: form("^[+]?0[.][0-9]+$", 'text such as "+0.1" or "0.6"') = free(
        "p_max, the largest sparsity of a group: +0.1 means p + 0.1, 0.6 means 0.6 (ecoflap and "
        "global); allocation: auto with candidates tries several.",
        usual="+0.1",
    )
    strength: Annotated[float, Field(gt=0, lt=1)] = free(
        "How far sparsities differ: lambda of owl, alpha of dlp, tau of alphapruning.",
        usual=", ".join(
            f"{name} {each.strength}" for name, each in METHODS.items() if each.strength
        ),
    )
    granularity: Literal[tuple(GRANULARITIES)] = free(
        "What gets a sparsity of its own (every allocation but uniform).",
        usual="matrix for er and lamp, else block",
    )
    reduction: Literal[REDUCTIONS] = free(
        "A group's score: sum over its matrices or mean per weight (ecoflap).", usual="sum"
    )

    def mistakes(self) -> Iterator[str]:
        """Yields keys that the allocation does not take, and a score too many or too few."""
        allocation = self.allocation or "uniform"
        method, scored = METHODS[allocation], self.score is not None
        if method.scored != scored:
            able = [name for name, other in METHODS.items() if other.scored]
            yield message(
                f"allocation {allocation} with{'' if scored else 'out'} a score",
                f"a score with the allocations {', '.join(able)}, and only there",
                "Add or remove the key score.",
            )
        for name, used in TAKEN.items():
            if getattr(self, name) is not None and not getattr(method, used):
                able = [other for other, entry in METHODS.items() if getattr(entry, used)]
                yield message(
                    f"{name} with the allocation {allocation}",
                    f"{name} with {', '.join(able)}",
                    f"Remove {name}.",
                )


class Inside(Plan):
    """An allocation inside of another."""

    allocation: Allocation = key(ABOUT_ALLOCATION)
    max_sparsity: form("^[+]0[.][0-9]+$", 'text such as "+0.1"') = free(
        "p_max of a group in a stack of the sparsity p: +0.1 means p + 0.1 (ecoflap and global).",
        usual="+0.1",
    )


class Shared(Plan):
    """An allocation over a whole model."""

    budget: Literal[BUDGETS] = free(
        "What loses exactly the sparsity: the model, each tower, or each stack (an "
        "encoder-decoder is two).",
        usual="model",
    )
    inside: Inside = free(
        "An allocation that shares out anew, in each stack of blocks, what the other one keeps "
        "there: ecoflap compares stacks, dlp the blocks of one. Its keys are those of an "
        "allocation but budget and inside; its max_sparsity is a margin such as +0.1."
    )


class Candidate(Shared):
    """An allocation among which one is chosen."""

    allocation: Allocation = key(ABOUT_ALLOCATION)


class Variant(Entry):
    """A way to prune. Read by `choose_plan`, `allocate_sparsity` and `prune_model`."""

    KINDS = {}
    label: Text = key("Name shown in tables and figures.")

    @classmethod
    def of(cls, content: Mapping) -> type[Entry]:
        """Returns what an entry is meant to be."""
        if "from" in content or "finetune" in content:
            return Finetuned
        if content.get("criterion") in WHOLE_MODEL:
            return Imported if content["criterion"] == IMPORTED else Whole
        chosen = content.get("allocation") in ("auto", "search") or "candidates" in content
        return Auto if chosen else Pruned


class Whole(Variant, kind="whole-model baselines"):
    """A baseline without an allocation."""

    criterion: Criterion = key(
        "Which weights of a matrix go; global-magnitude compares all matrices and iterative-obd "
        "those of a tower, without an allocation; imported takes the weights of a checkpoint. A "
        "module of your own has a dot: my_package.my_criterion."
    )
    calibration: Name = free("Entry of config/calibrations.yaml.", usual="the model's own")


class Checkpoint(Entry):
    """A .pth file of LAVIS or ECoFLaP."""

    file: form("[.]pth$", "the path of a .pth file") = key(
        "Path of the file, from where snakemake runs."
    )
    format: Literal["lavis-blip2", "lavis-blip", "t5", "eva-vit"] = key(
        "Whose names its weights have."
    )


class Imported(Whole, kind="imported weights"):
    """Published weights instead of pruning."""

    checkpoint: Checkpoint = key("Published weights instead of pruning.")


class Layerwise(Whole):
    """Prunes matrix by matrix."""

    group: Literal["row", "matrix"] = free(
        "What Wanda and RIA compare.",
        usual="rows in language towers and CLIP, the matrix in other vision towers, as published",
    )
    ridge: form(
        r"^(0[.][0-9]*[1-9][0-9]*|[1-9][0-9]*([.][0-9]+)?)$", "a quoted decimal number above 0"
    ) = free(
        "What SparseGPT and ADMM add to the diagonal of X^T X: this part of each feature's own "
        "entry.",
        usual="SparseGPT as published, 0.01 of the mean entry; ADMM 0.1",
    )
    pattern: form(
        "^(unstructured|([1-9][0-9]?|n):[1-9][0-9]?)$",
        'unstructured, a quoted N:M such as "2:4", or n:M such as n:8',
    ) = free(
        "N:M: N of each M neighbours in a row stay; n:M: an N for each group from the allocation "
        "(max_sparsity is then kept to within 1 / M).",
        usual="unstructured",
    )

    def mistakes(self) -> Iterator[str]:
        """Yields keys that the criterion does not take."""
        for name, able in (("group", ("wanda", "ria")), ("ridge", RIDGED)):
            if getattr(self, name) is not None and self.criterion not in able:
                yield message(
                    name, f"{name} with the criterion {' or '.join(able)}", f"Remove {name}."
                )


class Pruned(Shared, Layerwise, kind="variants with an allocation"):
    """Prunes by one allocation."""

    def mistakes(self) -> Iterator[str]:
        """Yields what the criterion or the allocation does not take."""
        yield from Layerwise.mistakes(self)
        yield from Shared.mistakes(self)


class Auto(Layerwise, kind="`allocation: auto` and `search`"):
    """Prunes by the allocation that loses least on held-out samples."""

    ELSEWHERE = "Move it into each of the candidates, or remove it."
    allocation: Literal["auto", "search"] = key(
        "How the budget is shared over the groups; auto: the one of the candidates with the least "
        "loss on held-out samples; search: that one, with weights exchanged between matrices as "
        "long as that loss falls (unstructured only)."
    )
    candidates: Annotated[list[Candidate], Field(min_length=1)] = key(
        "What auto and search try: a list of allocations, each with its score and other keys of "
        "an allocation. Each is tried at several strengths (max_sparsity p + 0.05, 0.1, 0.2 and "
        "0.3, or several values of strength), unless it gives one."
    )

    def mistakes(self) -> Iterator[str]:
        """Yields a pattern that no search keeps to."""
        yield from Layerwise.mistakes(self)
        if self.allocation == "search" and (self.pattern or "unstructured") != "unstructured":
            yield message(
                f"allocation search with the pattern {self.pattern}", "unstructured", "Take auto."
            )


class Finetuned(Variant, kind="fine-tuned variants"):
    """What another variant prunes, trained afterwards."""

    source: Name = key("The variant that is pruned.", alias="from")
    finetune: Name | Annotated[dict[str, str], Field(min_length=1)] = key(
        "Entry of config/finetuning.yaml, or model to entry."
    )
