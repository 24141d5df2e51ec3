"""What a task may hold, by its kind. Needs no torch."""

from collections.abc import Iterator
from typing import Literal

from ecoflap.data.settings import Dataset, Tokens, Worded, prompt_problems, view_problems
from ecoflap.errors import message
from ecoflap.plugins import TASKS
from ecoflap.schema import Count, Entry, Natural, Text, free, key, listed


class Task(Entry):
    """A downstream task. Read by `evaluate_model`."""

    KIND, KINDS = "kind", {}
    label: Text = key("Column name in tables and figures.")
    kind: Literal[tuple(TASKS)] = key(
        "What the model does and which metrics follow: retrieval is against given distractors, "
        "corpus-retrieval all against all, multiple-choice a task of lm-eval."
    )


class OnData(Task, kind="image-pair"):
    """A task on a data set."""

    dataset: Dataset = key("What is evaluated.")
    prompt: str = free("Template of the prompt; {question} or {label} is filled in.")

    def prompts_given(self) -> list[str]:
        """Returns the templates of the prompt."""
        return [self.prompt or ""]

    def mistakes(self) -> Iterator[str]:
        """Yields a view or a prompt that does not fit the kind."""
        yield from view_problems(self.kind, self.dataset.view)
        for prompt in self.prompts_given():
            yield from prompt_problems(self.kind, prompt)


class Generation(OnData):
    """A task whose answers are texts."""

    prompt: str = key("Template of the prompt; {question} is filled in (vqa).")
    max_new_tokens: Count = key("Length limit of generated text.")
    min_new_tokens: Count = free("No text ends before so many tokens.", usual="none")
    beams: Count = free("Width of the beam search.", usual=1)
    length_penalty: float = free(
        "Exponent of the length in the beam search; below 0 short texts win.", usual=1
    )


class Vqa(Generation, Worded, kind="vqa"):
    """Questions about pictures."""

    scoring: Literal["exact", "vqa", "gqa"] = free(
        "When an answer is right: exact, letter for letter; vqa, the official accuracy over ten "
        "annotators; gqa, equal to the answer once it is normalised itself, as in LAVIS. Who says "
        "nothing is never right.",
        usual="exact",
    )

    def mistakes(self) -> Iterator[str]:
        """Yields what does not fit the kind."""
        yield from Generation.mistakes(self)
        yield from Worded.mistakes(self)


class Captioning(Generation, kind="captioning"):
    """Captions of pictures."""

    metrics: listed(Literal["cider", "spice"]) = free(
        "What is computed: spice needs Java and Stanford's CoreNLP.", usual="cider"
    )
    tokenizer: Literal["plain", "ptb"] = free(
        "How captions are cut for the metrics: plain, words of letters and digits of any script, "
        "a word a letter where a script has no blanks; ptb, as in the official COCO evaluation, "
        "for English, needs Java.",
        usual="plain",
    )


class Retrieval(OnData, kind="retrieval"):
    """Captions against given distractors."""

    prompt: str = key("Template of the prompt.")


class CorpusRetrieval(OnData, Worded, kind="corpus-retrieval"):
    """All captions against all pictures."""

    shortlist: Count = free("Candidates that a matching model ranks anew.", usual="none")

    def mistakes(self) -> Iterator[str]:
        """Yields what does not fit the kind."""
        yield from OnData.mistakes(self)
        yield from Worded.mistakes(self)


class Classification(OnData, kind="classification"):
    """Zero-shot classification."""

    prompts: listed(str, least=2) = free(
        "Several templates of one class, averaged (instead of prompt)."
    )

    def prompts_given(self) -> list[str]:
        """Returns the templates of a class."""
        return self.prompts or super().prompts_given()

    def mistakes(self) -> Iterator[str]:
        """Yields a view or prompts that do not fit."""
        if (self.prompt is None) == (self.prompts is None):
            what = "no prompt" if self.prompt is None else "prompt and prompts"
            yield message(what, "either prompt or prompts", "Add or remove a key.")
        else:
            yield from super().mistakes()


class Perplexity(OnData, kind="perplexity"):
    """Perplexity of texts."""

    window: Tokens = key("Tokens per window.")
    windows: Count = free("Number of windows from the start of the texts, in all.", usual="all")
    special_tokens: bool = free(
        "Whether what the tokenizer puts before a text (LLaMA's BOS) counts.", usual="no"
    )


class MultipleChoice(Task, kind="multiple-choice"):
    """A task of lm-eval."""

    task: Text = key("Name of a task of lm-eval.")
    shots: Natural = key("Examples in the prompt.")
    limit: Count = free("Questions per subject.", usual="all")
    include_path: Text = free("Folder with tasks of one's own for lm-eval.")
