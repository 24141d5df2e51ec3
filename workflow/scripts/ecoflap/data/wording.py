"""How published evaluations rewrite a text before a model reads it. Needs no torch.

Those of LAVIS (Li et al. 2022), which BLIP and UPop share but for the number of words.
"""

import re
from collections.abc import Callable, Mapping

MARKS = re.compile(r'[.!"()*#:;~]')
BLANKS = re.compile(r"\s{2,}")
MOST_WORDS = 50


def _question(text: str) -> str:
    """Lower case, without some marks and without blanks at the end."""
    return MARKS.sub("", text.lower()).rstrip(" ")


def _caption(text: str) -> str:
    """Lower case, marks as blanks, runs of blanks as one, none at the ends."""
    return BLANKS.sub(" ", MARKS.sub(" ", text.lower())).rstrip("\n").strip(" ")


PROCESSORS: dict[str, Callable[[str], str]] = {
    "lavis-question": _question,
    "lavis-caption": _caption,
}


def worded(text: str, settings: Mapping) -> str:
    """Returns a text as a model is shown it.

    Args:
        text: A question or a caption.
        settings: ``text_processor``, one of ``PROCESSORS``, and ``max_words`` of it; a text stays
            as it is without.
    """
    if "text_processor" not in settings:
        return text
    words = PROCESSORS[settings["text_processor"]](text).split(" ")
    return " ".join(words[: settings.get("max_words", MOST_WORDS)])
