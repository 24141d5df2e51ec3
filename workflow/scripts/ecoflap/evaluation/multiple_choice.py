"""Multiple-choice tasks of lm-eval (MMLU), whose prompts and scoring define these numbers."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ecoflap.errors import DataError
from ecoflap.evaluation.answers import highest

if TYPE_CHECKING:
    from ecoflap.models.model import Model


def answers(model: "Model", task: Mapping) -> Iterator[tuple]:
    """Answers the questions of a task of lm-eval by the likelihood of their choices.

    Args:
        model: A language model with its tokenizer, decoder-only or encoder-decoder.
        task: ``task`` (its name in lm-eval), ``shots`` (examples in the prompt), and optionally
            ``limit`` (questions per subject) and ``include_path`` (folder with tasks of one's own).

    Yields:
        A row per question: id, subject, chosen position, true position, log-likelihoods.

    Raises:
        DataError: if lm-eval does not know the task or its data cannot be had.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    encoder = model.module.config.is_encoder_decoder
    harness = HFLM(
        pretrained=model.module,
        tokenizer=model.processor,
        backend="seq2seq" if encoder else "causal",
        batch_size=task.get("batch_size", 8),
    )
    try:
        found = simple_evaluate(
            harness,
            tasks=[task["task"]],
            num_fewshot=task["shots"],
            limit=task.get("limit"),
            task_manager=TaskManager(include_path=task.get("include_path")),
            bootstrap_iters=0,
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"lm-eval cannot run the task '{task['task']}' ({type(error).__name__}: {error})",
            allowed="a task of `lm-eval ls tasks` whose data are here or can be reached",
            fix="Correct the name; without network, download the data first.",
        ) from error
    for subject, samples in found["samples"].items():
        for sample in samples:
            values = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
            best = highest(values)
            row = f"{subject}/{sample['doc_id']}"
            chosen = "" if best is None else str(best)
            yield row, subject, chosen, [str(sample["target"])], values
