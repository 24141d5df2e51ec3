"""CIDEr and SPICE by pycocoevalcap, on plain words or on tokens of the Penn Treebank."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecoflap.errors import DataError, message

Texts = dict[int, list[str]]
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def words(text: str) -> str:
    """Lower-cases a text and keeps letters and digits, as words separated by one blank."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


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

    # It cuts its input into lines: an empty text would move all that follow.
    captions = {key: [{"caption": text or "."} for text in found] for key, found in texts.items()}
    return PTBTokenizer().tokenize(captions)


def cider(references: Texts, candidates: Texts) -> np.ndarray:
    """Returns CIDEr-D (Vedantam et al. 2015) of each picture."""
    from pycocoevalcap.cider.cider import Cider

    _, values = Cider().compute_score(references, candidates)
    return np.asarray(values, dtype=np.float64)


def spice(references: Texts, candidates: Texts) -> np.ndarray:
    """Returns SPICE (Anderson et al. 2016) of each picture.

    Raises:
        DataError: where there is no Java, or Stanford's CoreNLP is not beside pycocoevalcap.
    """
    need_java("SPICE")
    missing = missing_corenlp()
    if missing:
        raise DataError(
            message(
                f"SPICE needs {missing[0]}",
                "Stanford's CoreNLP 3.6.0 in pycocoevalcap/spice/lib",
                "Run `snakemake download` where there is a network, or leave spice out.",
            )
        )
    from pycocoevalcap.spice.spice import Spice

    _, found = Spice().compute_score(references, candidates)
    return np.array([scores["All"]["f"] for scores in found], dtype=np.float64)


METRICS = {"cider": cider, "spice": spice}


def need_java(what: str) -> None:
    """Refuses to go on without Java.

    Raises:
        DataError: if there is no ``java`` on the PATH.
    """
    if shutil.which("java") is None:
        raise DataError(
            message(
                f"{what} needs Java, and there is no java on the PATH",
                "a Java runtime, version 8 or newer",
                "Install one (Debian: default-jre-headless), or use tokenizer: plain and cider.",
            )
        )


def missing_corenlp() -> Sequence[Path]:
    """Returns the files of CoreNLP that SPICE would have to download."""
    import pycocoevalcap.spice

    folder = Path(pycocoevalcap.spice.__file__).parent / "lib"
    return [folder / name for name in CORENLP if not (folder / name).is_file()]
