"""How adapters ask transformers to generate."""


def beam_search(beams: int = 1, length_penalty: float = 1.0) -> dict[str, float]:
    """Returns the arguments of ``generate`` for a search.

    Args:
        beams: Width of the beam search; 1 is greedy.
        length_penalty: Exponent of the length by which a beam's score is divided; below 0 short
            texts win. Left out of a greedy search, where transformers would warn of it.
    """
    wide = {"length_penalty": length_penalty} if beams > 1 else {}
    return {"num_beams": beams, **wide}
