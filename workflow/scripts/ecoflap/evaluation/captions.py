"""CIDEr and SPICE by pycocoevalcap, on plain words or on tokens of the Penn Treebank."""

import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ecoflap.errors import DataError
from ecoflap.evaluation.answers import cleaned

Texts = dict[int, list[str]]
# How the Unicode names of letters begin in scripts that set no blanks between words.
UNSPACED = ("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "THAI ", "LAO ")
UNSPACED += ("KHMER ", "MYANMAR ")
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def words(text: str) -> str:
    """Lower-cases a text and keeps its words, separated by one blank.

    Words are letters, digits and marks of any script, in one Unicode form (NFC). In scripts that
    write words without blanks between them (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each
    letter with its marks is a word of its own.
    """
    found: list[str] = []
    inside = joins = False  # whether the last character is of a word, and may have letters after it
    for character in unicodedata.normalize("NFC", text.lower()):
        kind = unicodedata.category(character)[0]
        alone = kind == "L" and unicodedata.name(character, "").startswith(UNSPACED)
        if inside and (kind == "M" or (kind in "LN" and joins and not alone)):
            found[-1] += character
        elif inside := kind in "LN":
            found.append(character)
            joins = not alone
    return " ".join(found)


def need_words(references: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Refuses reference captions in which there is no word.

    Args:
        references: Id and captions of each picture.

    Raises:
        DataError: naming the first such picture.
    """
    for name, texts in references:
        for text in texts:
            if not words(text):
                raise DataError(
                    f"the picture {name} has the caption {text!r}, in which there is no word",
                    allowed="captions with letters or digits",
                    fix="Correct the captions of the data set, or leave this one out.",
                )


def tokenised(texts: Texts, tokenizer: str) -> Texts:
    """Cuts texts into tokens.

    Args:
        texts: The texts of each picture.
        tokenizer: ``plain`` (`words`) or ``ptb``, the one of the official COCO evaluation.

    Raises:
        DataError: if ``ptb`` is asked for where there is no Java.
    """
    if tokenizer == "plain":
        return {key: [words(text) for text in found] for key, found in texts.items()}
    need_java("the tokenizer ptb")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # It cuts its input into lines: an empty text, or one of two lines, would move all that follow.
    captions = {
        key: [{"caption": " ".join(cleaned(text).split()) or "."} for text in found]
        for key, found in texts.items()
    }
    return PTBTokenizer().tokenize(captions)


def tells_apart(references: Texts) -> bool:
    """Tells whether CIDEr is defined: what all pictures have in their captions counts nothing."""
    from pycocoevalcap.cider.cider_scorer import precook

    grams = {frozenset().union(*map(precook, found)) for found in references.values()}
    return len(grams) > 1


def cider(references: Texts, candidates: Texts) -> np.ndarray:
    """Returns CIDEr-D (Vedantam et al. 2015) of each picture."""
    from pycocoevalcap.cider.cider import Cider

    _, values = Cider().compute_score(references, candidates)
    return np.asarray(values, dtype=np.float64)


def spice(references: Texts, candidates: Texts) -> np.ndarray:
    """Returns SPICE (Anderson et al. 2016) of each picture; 0 where nothing was said.

    Raises:
        DataError: where there is no Java, or Stanford's CoreNLP is not beside pycocoevalcap.
    """
    need_java("SPICE")
    missing = missing_corenlp()
    if missing:
        raise DataError(
            f"SPICE needs {missing[0]}",
            allowed="Stanford's CoreNLP 3.6.0 in pycocoevalcap/spice/lib",
            fix="Run `snakemake download` where there is a network, or leave spice out.",
        )
    from pycocoevalcap.spice.spice import Spice

    said = {key: found for key, found in candidates.items() if any(map(str.strip, found))}
    if not said:
        return np.zeros(len(candidates))
    _, found = Spice().compute_score({key: references[key] for key in said}, said)
    values = {key: scores["All"]["f"] for key, scores in zip(said, found, strict=True)}
    return np.array([values.get(key, 0.0) for key in candidates], dtype=np.float64)


METRICS = {"cider": cider, "spice": spice}


def need_java(what: str) -> None:
    """Refuses to go on without Java.

    Raises:
        DataError: if there is no ``java`` on the PATH.
    """
    if shutil.which("java") is None:
        raise DataError(
            f"{what} needs Java, and there is no java on the PATH",
            allowed="a Java runtime, version 8 or newer",
            fix="Install one (Debian: default-jre-headless), or use tokenizer: plain and cider.",
        )


def missing_corenlp() -> Sequence[Path]:
    """Returns the files of CoreNLP that SPICE would have to download."""
    import pycocoevalcap.spice

    folder = Path(str(pycocoevalcap.spice.__file__)).parent / "lib"
    return [folder / name for name in CORENLP if not (folder / name).is_file()]
