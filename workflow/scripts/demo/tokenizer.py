"""One token for each word of the demo data sets."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ecoflap.data.builtin._scene_language import NUMBERS, PLURALS, RELATIONS
from ecoflap.data.builtin._scene_pictures import COLOURS, COLUMNS, ROWS, SHAPES

PAD, END, UNKNOWN, IMAGE = "<pad>", "</s>", "<unk>", "<image>"
_OTHER_WORDS = (
    "? : question answer yes no a the is are there what color how many of and at picture shape "
    "shapes image in not does contain present"
)


def build_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """Make the tokenizer; it lower-cases and ends every text with `</s>`.

    Args:
        max_length: The longest text, in tokens, where truncation is asked for.
    """
    words = [*COLOURS, *SHAPES, *PLURALS.values(), *ROWS, *COLUMNS, *NUMBERS]
    words += [*" ".join(RELATIONS).split(), *_OTHER_WORDS.split()]
    # dict.fromkeys keeps the order and drops repeated words.
    tokens = list(dict.fromkeys([PAD, END, UNKNOWN, IMAGE, *words]))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE],
        model_max_length=max_length,
        padding_side="right",
    )
