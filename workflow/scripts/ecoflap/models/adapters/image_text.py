"""Any decoder-only model that reads pictures and text, through its own processor.

Its classes are those of ``AutoModelForImageTextToText``: LLaVA, Qwen-VL, Idefics3, SmolVLM,
PaliGemma, BLIP-2 with OPT and others. Nothing here knows one of them by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch

from ecoflap.errors import ModelError
from ecoflap.models.adapters import _generation, generic
from ecoflap.models.adapters._texts import check_texts
from ecoflap.models.model import IGNORED

# Some processors (Qwen-VL) join the patches of all pictures of a batch. Stored samples need a row
# each, so such a tensor is kept as [n, rows per picture, ...] under this prefix, and joined again
# by `loss`. All pictures must then give as many rows: they are resized to one square first.
PACKED = "packed_"
SIDE = 448  # pixels
IMAGE_TOKENS = ("image_token_id", "image_token_index")  # of a config: the number of the token


class Adapter(generic.Adapter):
    """A vision-language model that continues a text with pictures in it."""

    def encode(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Encodes examples with ``image``, ``prompt`` and ``target``.

        Returns:
            input_ids, attention_mask and labels [n, tokens], labels -100 but for the target and
            the end of the text; what else the processor makes, each [n, ...].

        Raises:
            ModelError: if pictures of one size do not give tensors of one size.
        """
        images, prompts, targets = (
            [example[key] for example in examples] for key in ("image", "prompt", "target")
        )
        batch = self._inputs(images, prompts, targets)
        if any(len(tensor) != len(images) for tensor in batch.values()):
            squares = [image.resize((SIDE, SIDE)) for image in images]
            batch = self._inputs(squares, prompts, targets)
        return dict(_with_a_row_each(name, t, len(images)) for name, t in batch.items())

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the model's own loss; joins what `encode` took apart."""
        joined = {
            name.removeprefix(PACKED): tensor.flatten(0, 1) if name.startswith(PACKED) else tensor
            for name, tensor in batch.items()
        }
        return super().loss(joined)

    def image_tokens(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Returns which tokens become those of an image, as `Model.image_tokens`.

        A text with cross-attention to its images (Mllama) has a token that only points at one.
        """
        config = self.module.config
        found = (getattr(config, key, None) for key in IMAGE_TOKENS)
        token = next((number for number in found if number is not None), None)
        points = hasattr(config.get_text_config(), "cross_attention_layers")
        return None if token is None or points else batch["input_ids"] == token

    @torch.no_grad()
    def generate(
        self,
        images: Sequence,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        **search: Unpack[_generation.Search],
    ) -> list[str]:
        """Answers prompts about images.

        Args:
            images: PIL images.
            prompts: One per image.
            max_new_tokens: Length limit of the answer.
            **search: Arguments of `generation.beam_search`; greedy without.
        """
        batch = self.to_device(self._inputs(images, prompts))
        tokens = _generation.generate(self.module, batch, max_new_tokens=max_new_tokens, **search)
        prompt = batch["input_ids"]
        if torch.equal(tokens[:, : prompt.shape[1]], prompt):  # a few classes leave it out
            tokens = tokens[:, prompt.shape[1] :]
        texts = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def decoding(
        self, *, max_new_tokens: int, **search: Unpack[_generation.Search]
    ) -> dict[str, Any]:
        """Returns the settings of `generate`, for the same arguments but images and prompts."""
        return _generation.told(self.module, max_new_tokens=max_new_tokens, **search)

    @torch.no_grad()
    def log_likelihood(
        self, images: Sequence, prompts: Sequence[str], targets: Sequence[str]
    ) -> list[float]:
        """Returns log p(target | image, prompt) summed over the target's tokens and the end."""
        batch = self.to_device(self._inputs(images, prompts, targets))
        labels = batch["labels"][:, 1:]
        # [n, tokens, vocabulary]; a model may have more, for the picture before the text (GIT).
        logits = self.module(**batch).logits[:, -1 - labels.shape[1] : -1]
        counted = labels != IGNORED
        log_probabilities = logits[counted].float().log_softmax(-1)
        chosen = log_probabilities.gather(-1, labels[counted].unsqueeze(-1)).squeeze(-1)
        values = torch.zeros(labels.shape, device=chosen.device).masked_scatter(counted, chosen)
        return values.sum(-1).tolist()

    def _inputs(
        self, images: Sequence, prompts: Sequence[str], targets: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Prepares prompts, padded left; with targets those after them and labels, padded right."""
        processor = self.needed_processor()
        check_texts(processor, [*prompts, *(targets or ())])
        texts = [self._text(prompt) for prompt in prompts]
        options: dict = {"padding": True, "padding_side": "left" if targets is None else "right"}
        start = processor.tokenizer.bos_token
        splits = "labels" in processor.model_input_names  # the target is no part of the text
        if start and all(text.startswith(start) for text in texts):  # by the chat template
            options["add_special_tokens"] = False
        elif not splits and (around := self._around())[1]:
            # What the tokenizer puts after a text would come between a prompt and its answer.
            texts = ["".join(around[0]) + text for text in texts]
            options["add_special_tokens"] = False
        whole = texts
        if targets is not None and splits:
            options["suffix"] = list(targets)  # PaliGemma
        elif targets is not None:
            whole = [self._continued(*pair) for pair in zip(texts, targets, strict=True)]
        pictures = [[image] for image in images]  # one picture belongs to each text
        encoded = processor(images=pictures, text=whole, return_tensors="pt", **options)
        batch = dict(encoded)
        made = batch.pop("labels", None)  # without targets they mean nothing
        if targets is not None:
            batch["labels"] = self._labels(batch, texts, whole) if made is None else made
            if any(map(_is_of_the_prompt, batch)):  # InstructBLIP
                asked = processor(images=pictures, text=texts, return_tensors="pt", **options)
                batch.update({n: t for n, t in asked.items() if _is_of_the_prompt(n)})
        return batch

    def _around(self) -> tuple[list[str], list[str]]:
        """Returns the tokens that the tokenizer puts before and after a text by itself."""
        tokenizer = self.processor.tokenizer
        inner = tokenizer("a", add_special_tokens=False)["input_ids"]
        outer = tokenizer("a")["input_ids"]
        places = range(len(outer) - len(inner) + 1)
        first = next((at for at in places if outer[at : at + len(inner)] == inner), len(outer))
        parts = (outer[:first], outer[first + len(inner) :])
        before, after = (tokenizer.convert_ids_to_tokens(part) for part in parts)
        return before, after

    def _text(self, prompt: str) -> str:
        """Returns the prompt with its picture, as the processor expects it."""
        processor = self.processor
        if getattr(processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            text, blind = (self._chat(part) for part in (content, content[1:]))
            if text == blind or str(content[0]) in text or prompt.strip() not in text:
                raise ModelError(
                    f"the chat template of the processor makes {text!r} of a picture and "
                    f"the prompt {prompt!r}",
                    allowed="a template with a place for the picture and the whole prompt",
                    fix="Take the template of the model's own processor.",
                )
            return text
        if hasattr(processor, "num_query_tokens"):  # Q-Former: it puts its queries in itself
            return prompt
        if hasattr(self.module.config, "vision_start_token_id"):  # by which it finds pictures
            raise ModelError(
                f"the processor has no chat template, and {type(self.module).__name__} looks "
                "for a token before each picture that only a template sets",
                allowed="a processor with the chat template that it was saved with",
                fix="Put chat_template.jinja beside the weights.",
            )
        token = getattr(processor, "boi_token", None) or getattr(processor, "image_token", "")
        return f"{token}{prompt}"

    def _chat(self, content: Sequence[Mapping]) -> str:
        turns = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)

    def _continued(self, text: str, target: str) -> str:
        space = "" if not text or text[-1].isspace() else " "
        return f"{text}{space}{target}{self.processor.tokenizer.eos_token or ''}"

    def _labels(
        self, batch: Mapping[str, torch.Tensor], texts: Sequence[str], whole: Sequence[str]
    ) -> torch.Tensor:
        """Returns the tokens that the targets added to the texts, -100 elsewhere.

        They are counted from the end: the processor makes one image token many before them.
        """
        ids = batch["input_ids"]
        ends = batch["attention_mask"].sum(1, keepdim=True)
        added = [self._added_tokens(*pair) for pair in zip(texts, whole, strict=True)]
        positions = torch.arange(ids.shape[1])
        target = (positions >= ends - torch.tensor(added).unsqueeze(1)) & (positions < ends)
        return ids.masked_fill(~target, IGNORED)

    def _added_tokens(self, text: str, whole: str) -> int:
        """Counts the tokens of a text from the first one on that its beginning does not have."""
        tokenize = self.processor.tokenizer
        beginning, tokens = (
            tokenize(part, add_special_tokens=False, verbose=False)["input_ids"]
            for part in (text, whole)
        )
        shared = 0
        for one, other in zip(beginning, tokens, strict=False):
            if one != other:
                break
            shared += 1
        return len(tokens) - shared


def _is_of_the_prompt(name: str) -> bool:
    """Tells whether a tensor is what a Q-Former reads of the prompt, and must not of the target."""
    return name.startswith("qformer_")


def _with_a_row_each(name: str, tensor: torch.Tensor, count: int) -> tuple[str, torch.Tensor]:
    """Returns name and tensor with as many rows as there are samples."""
    if len(tensor) == count:
        return name, tensor
    if len(tensor) % count:
        raise ModelError(
            f"the processor makes {len(tensor)} rows of {name} from {count} pictures of a size",
            allowed="as many rows for each picture",
            fix="Pass batches of your own, dicts of the tensors that the model's forward takes.",
        )
    return PACKED + name, tensor.unflatten(0, (count, -1))
