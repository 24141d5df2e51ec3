"""Pictures that are opened when they are used, so that a data set costs no memory."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ecoflap.errors import DataError

# As ImageOps.exif_transpose, which also writes the EXIF anew and fails where that has odd entries.
TURNS: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where pillow gives grey of 16 bits in full; None is a picture in memory.
DEEP = (None, "PNG", "PPM", "JPEG2000", "TIFF")
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of a TIFF, and a value of the second


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
        """Decodes the whole picture as RGB, as a viewer shows it; see `shown`.

        Raises:
            DataError: if it is missing, truncated, no picture, or cannot be shown.
        """
        try:
            # Of a file that pillow maps into memory, it forgets how it is to be turned.
            source = self.source
            found = source.read_bytes() if isinstance(source, Path) else source()
            if isinstance(found, Image.Image):
                return shown(found, self.name)
            with Image.open(io.BytesIO(found)) as image:
                return shown(image, self.name)
        except DataError:
            raise
        except Exception as error:  # pillow raises many kinds for damaged and for huge pictures
            raise DataError(
                f"the picture {self.name} cannot be read ({error})",
                allowed="whole pictures that pillow reads",
                fix="Copy or download the file again.",
            ) from error


def opened(image: Picture | Image.Image) -> Image.Image:
    """Returns a picture as RGB in memory, whether it was in memory already or not."""
    return image.open() if isinstance(image, Picture) else shown(image, "in memory")


def shown(image: Image.Image, name: str) -> Image.Image:
    """Returns a picture as RGB with 8 bits, as a viewer shows it.

    It is turned as its EXIF says, transparent parts are laid on white, and grey of 16 bits becomes
    grey of 8 by the full range. Of an animated picture it is the first frame. Colour profiles are
    not applied.

    Args:
        image: The picture, in any mode of pillow.
        name: Names it in messages.

    Raises:
        DataError: if its values have no known range, or nothing of it can be seen.
    """
    deep_colours = any("RGB;16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    image.load()  # which turns a TIFF and forgets that it did
    if deep_colours and "transparency" in image.info:
        raise _unseen(name, "has a transparent colour of 16 bits, of which 8 are read")
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    if image.mode == "F" or image.mode.startswith("I"):
        image = _grey(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if not image.getchannel("A").getextrema()[1]:
            raise _unseen(name, "is transparent all over")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _grey(image: Image.Image, name: str) -> Image.Image:
    """Returns a picture of 16 bits with 8, or with 8 and transparency."""
    tags = getattr(image, "tag_v2", {})
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not deep or image.format not in DEEP:
        raise _unseen(name, f"has values (mode {image.mode}) whose black and white nobody knows")
    most = 2 ** tags.get(BITS, (16,))[0] - 1
    values = np.asarray(image).astype(np.int64)
    grey = ((values * 255 + most // 2) // most).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    seen = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(seen)))


def _unseen(name: str, why: str) -> DataError:
    return DataError(
        f"the picture {name} {why}",
        allowed="pictures of 8 or 16 bits per channel with something to see",
        fix="Convert it, for example to a PNG of 8 bits, with the range that it was made with.",
    )
