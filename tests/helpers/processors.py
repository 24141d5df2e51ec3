"""Real processors for the small models of architectures.py, from a tokenizer of forty words."""

from types import SimpleNamespace

import numpy as np
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.smolvlm import processing_smolvlm

from helpers import architectures

TEXT = (
    "a the dog cat ball sits runs on in near red blue big small what is where who colour of ? . "
    "mat house tree USER ASSISTANT :"
)
WORDS = TEXT.split()
SPECIAL = {
    "<pad>": 0,
    "</s>": 1,
    "<unk>": 2,
    "<fake_token_around_image>": 31,
    "<end_of_utterance>": 32,
    "<global-img>": 33,
    "[CLS]": 34,
    "[SEP]": 35,
    "<|vision_end|>": architectures.VISION_END,
    "<|vision_start|>": architectures.VISION_START,
    "<|video_pad|>": architectures.VIDEO,
    "<image>": architectures.IMAGE,
}
CHAT = (
    "{% for m in messages %}{{ m.role | upper }} : {% for part in m.content %}"
    "{{ 'PICTURE' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT :{% endif %}"
)
LEVELS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": 16, "width": 16}


def tokenizer(*, around: str = "", **settings):
    """A tokenizer whose ids are those of architectures.py.

    Args:
        around: ``bos`` puts </s> before a text, ``both`` [CLS] and [SEP] around it, ``end`` </s>
            behind it.
        settings: Of PreTrainedTokenizerFast.
    """
    vocabulary = SPECIAL | {word: place for place, word in enumerate(WORDS, start=3)}
    vocabulary |= {
        f"<free-{i}>": i for i in range(architectures.VOCABULARY) if i not in vocabulary.values()
    }
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    templates = {
        "bos": ("</s> $A", "</s> $A $B:1", ["</s>"]),
        "end": ("$A </s>", "$A </s> $B:1 </s>:1", ["</s>"]),
        "both": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ["[CLS]", "[SEP]"]),
        "": ("$A", "$A $B:1", []),
    }
    single, pair, special = templates[around]
    made.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, SPECIAL[token]) for token in special]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "</s>", "eos_token": "</s>"}
    extra = [token for token in SPECIAL if token not in names.values()]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, additional_special_tokens=extra, **{**names, **settings}
    )


def llava(chat: bool = False):
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=SQUARE, **LEVELS
    )
    return transformers.LlavaProcessor(
        pictures,
        tokenizer(around="bos"),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("PICTURE", "<image> ") if chat else None,
    )


def pictures_only(name: str) -> type:
    """The processor's class, which takes None as its video processor: that needs torchvision."""
    whole = getattr(transformers, name)

    def check(self, argument, value):
        if argument != "video_processor":
            whole.check_argument_for_proper_class(self, argument, value)

    return type(name, (whole,), {"check_argument_for_proper_class": check})


def qwen(name: str):
    pictures = transformers.Qwen2VLImageProcessorPil(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 64, "longest_edge": 256},
        **LEVELS,
    )
    made = tokenizer()
    made.image_token, made.image_token_id = "<image>", architectures.IMAGE
    chat = CHAT.replace("PICTURE", "<|vision_start|><image><|vision_end|> ")
    return pictures_only(f"{name}Processor")(pictures, made, None, chat_template=chat)


def idefics3(splits: bool = False):
    pictures = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 32 if splits else 16},
        max_image_size={"longest_edge": 16},
        do_image_splitting=splits,
        **LEVELS,
    )
    return transformers.Idefics3Processor(pictures, tokenizer(around="bos"), image_seq_len=4)


def smolvlm():
    """Its processor needs num2words, for videos alone; nothing calls what stands in for it here."""
    processing_smolvlm.num2words = str
    pictures = transformers.SmolVLMImageProcessorPil(
        size={"longest_edge": 16},
        max_image_size={"longest_edge": 16},
        do_image_splitting=False,
        **LEVELS,
    )
    chat = CHAT.replace("PICTURE", "<image> ")
    videos = SimpleNamespace(num_frames=1, fps=1, model_input_names=[])
    return pictures_only("SmolVLMProcessor")(
        pictures,
        tokenizer(),
        videos,
        image_seq_len=4,
        chat_template=chat,
    )


def paligemma():
    pictures = transformers.SiglipImageProcessorPil(size=SQUARE, **LEVELS)
    pictures.image_seq_length = 4
    return transformers.PaliGemmaProcessor(pictures, tokenizer())


def blip2():
    pictures = transformers.BlipImageProcessorPil(size=SQUARE, **LEVELS)
    return transformers.Blip2Processor(pictures, tokenizer(around="bos"), num_query_tokens=4)


def gemma3():
    pictures = transformers.Gemma3ImageProcessorPil(size=SQUARE, **LEVELS)
    made = tokenizer(around="bos")
    made.boi_token, made.boi_token_id = "<|vision_start|>", architectures.VISION_START
    made.eoi_token, made.image_token, made.image_token_id = "<|vision_end|>", "<image>", 39
    return transformers.Gemma3Processor(pictures, made, image_seq_length=4)


def internvl():
    """Each picture is cut into tiles of its own number, all in one tensor."""
    pictures = transformers.GotOcr2ImageProcessorPil(
        size=SQUARE, crop_to_patches=True, max_patches=4, **LEVELS
    )
    made = tokenizer(around="bos")
    made.start_image_token, made.start_image_token_id = "<|vision_start|>", 37
    made.end_image_token, made.end_image_token_id = "<|vision_end|>", 36
    made.context_image_token, made.context_image_token_id = "<image>", 39
    made.video_token = "<|video_pad|>"
    return pictures_only("InternVLProcessor")(pictures, made, None, image_seq_length=4)


def bert():
    """A tokenizer that puts [CLS] and [SEP] around a text."""
    names = {"bos_token": None, "eos_token": None, "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return tokenizer(around="both", **names)


def blip():
    pictures = transformers.BlipImageProcessorPil(size=SQUARE, **LEVELS)
    return transformers.BlipProcessor(pictures, bert())


def blip2_matching():
    pictures = transformers.BlipImageProcessorPil(size=SQUARE, **LEVELS)
    return transformers.Blip2Processor(pictures, bert(), num_query_tokens=4)


# Tokens of BLIP's published models, as its adapter finds them in a vocabulary.
PUBLISHED = {"vocab_size": 42, "bos_token_id": 40, "sep_token_id": 35}


def pictures():
    """Three pictures of different sizes."""
    noise = np.random.default_rng(0)
    sizes = [(16, 16), (20, 32), (40, 18)]
    return [Image.fromarray(noise.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in sizes]
