"""Pictures that are opened when they are used, so that a data set costs no memory."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ecoflap.errors import DataError, message


@dataclass(frozen=True)
class Picture:
    """A picture that waits in a file or in a table, or to be drawn.

    Attributes:
        name: Names it in messages.
        source: Path of the file, or what returns the bytes of one or draws the picture.
    """

    name: str
    source: Path | Callable[[], bytes | Image.Image]

    def open(self) -> Image.Image:
        """Decodes the whole picture as RGB.

        Raises:
            DataError: if it is missing, truncated or no picture.
        """
        try:
            found = self.source if isinstance(self.source, Path) else self.source()
            if isinstance(found, Image.Image):
                return found
            with Image.open(io.BytesIO(found) if isinstance(found, bytes) else found) as image:
                return image.convert("RGB")
        except Exception as error:  # pillow raises many kinds for damaged and for huge pictures
            raise DataError(
                message(
                    f"the picture {self.name} cannot be read ({error})",
                    "whole pictures that pillow reads",
                    "Copy or download the file again.",
                )
            ) from error


def opened(image: Picture | Image.Image) -> Image.Image:
    """Returns a picture in memory, whether it was one already or not."""
    return image.open() if isinstance(image, Picture) else image
