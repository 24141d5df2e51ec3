"""How adapters ask transformers to generate."""


def beam_search(beams: int, length_penalty: float) -> dict:
    """Returns the arguments of ``generate`` for a search; transformers warns of needless ones."""
    wide = {"length_penalty": length_penalty} if beams > 1 else {}
    return {"num_beams": beams, **wide}
