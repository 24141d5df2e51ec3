"""Seeds from names, so that randomness never depends on order."""

import hashlib


def seed_from(*parts: object) -> int:
    """Returns a 63-bit seed for a name, so that randomness never depends on order."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
