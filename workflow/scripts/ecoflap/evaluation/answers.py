"""When an answer is right. The rules of VQA: how answers are normalised, annotators counted.

Antol et al. 2015, section 3, and https://visualqa.org/evaluation.html; with the habits of the
official evaluation that the page does not tell: punctuation beside a blank vanishes, elsewhere it
becomes a blank, and in an answer with a number like 1,000 all of it vanishes.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from ecoflap.errors import DataError

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
THOUSANDS = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")  # one that a digit follows may be a decimal point
ARTICLES = ("a", "an", "the")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
    mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've there're
    there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd
    you'd've you'll you're you've
"""


def _misspelt(contraction: str) -> list[str]:
    """Returns a contraction with one apostrophe forgotten, in all ways."""
    places = [place for place, letter in enumerate(contraction) if letter == "'"]
    return [contraction[:place] + contraction[place + 1 :] for place in places]


CORRECTED = {wrong: right for right in CONTRACTIONS.split() for wrong in _misspelt(right)}
CORRECTED["somebody'd"] = "somebodyd"  # so it stands in the official list


def cleaned(text: str) -> str:
    """Returns a text on one line, without blanks at its ends, in one Unicode form (NFC)."""
    return unicodedata.normalize("NFC", text).replace("\n", " ").replace("\t", " ").strip()


def normalised(answer: str) -> str:
    """Returns an answer as the official evaluation compares it.

    Lower case; no articles; number words up to ten as digits; apostrophes put into contractions;
    no periods but decimal points; no punctuation but apostrophes and colons. An answer of which
    this leaves nothing ("a", "?") stays as it is, in lower case: it equals itself alone.
    """
    answer = " ".join(cleaned(answer).split())
    found = answer
    glued = THOUSANDS.search(answer) is not None
    for mark in PUNCTUATION:
        beside_blank = f"{mark} " in answer or f" {mark}" in answer
        found = found.replace(mark, "" if beside_blank or glued else " ")
    words = [DIGITS.get(word, word) for word in PERIOD.sub("", found).lower().split()]
    kept = " ".join(CORRECTED.get(word, word) for word in words if word not in ARTICLES)
    return kept or answer.lower()


def is_right(prediction: str, answers: Iterable[str], form: Callable[[str], str] = cleaned) -> bool:
    """Tells whether a prediction is one of the answers; one that says nothing never is.

    Args:
        prediction: What the model said.
        answers: What would be right.
        form: What both are compared as; letter for letter by default.
    """
    return bool(prediction.strip()) and form(prediction) in map(form, answers)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Returns the official accuracy of one answer.

    The mean over all subsets that leave one annotator out of ``min(1, matches / 3)``. Prediction
    and answers are normalised, but where all annotators wrote the same they are compared letter
    for letter, as in the official code. A prediction that says nothing is never right.

    Args:
        prediction: What the model said.
        answers: What the annotators said, ten in VQAv2.

    Returns:
        A number from 0 to 1.

    Raises:
        DataError: for fewer than two annotators.
    """
    if len(answers) < 2:
        raise DataError(
            f"{len(answers)} annotators of one question",
            allowed="at least 2 for the VQA accuracy",
            fix="Set scoring: exact for data with one answer.",
        )
    form = normalised if len({cleaned(answer) for answer in answers}) > 1 else cleaned
    matches = [is_right(prediction, [answer], form) for answer in answers]
    others = [sum(matches) - match for match in matches]
    return sum(min(1.0, count / 3) for count in others) / len(others)


def highest(values: Sequence[float]) -> int | None:
    """Returns the place of the highest of some numbers, the first of several.

    None if one of them is no number or the highest is infinite: such a model chose nothing.
    """
    best = max(range(len(values)), key=values.__getitem__)
    chosen = math.isfinite(values[best]) and not any(map(math.isnan, values))
    return best if chosen else None
