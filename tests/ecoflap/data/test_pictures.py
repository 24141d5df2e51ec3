"""Pictures as people have them, against what was drawn into them: values worked out by hand."""

import io

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from ecoflap import data
from ecoflap.data import inspect
from ecoflap.data.builtin import easy_vqa
from ecoflap.data.picture import Picture, opened
from ecoflap.errors import DataError

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
DEEP = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)  # 65535 is 255 x 257
TAGS = TiffImagePlugin.ImageFileDirectory_v2


def written(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(source):
    image = Picture("x", lambda: source).open()
    assert image.mode == "RGB"
    return [tuple(pixel) for row in np.asarray(image) for pixel in row]


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_grey_of_16_bits_is_scaled_by_its_full_range(format):
    deep = np.repeat(np.repeat(DEEP, 8, axis=0), 8, axis=1)  # JPEG 2000 needs some pixels
    options = {"irreversible": False} if format == "JPEG2000" else {}
    found = pixels(written(Image.fromarray(deep), format, **options))
    assert found[:32:8] == [BLACK, (1, 1, 1), (128, 128, 128), WHITE]  # 32768 / 257 = 127.5


def test_grey_of_16_bits_in_memory_is_scaled_too():
    assert opened(Image.fromarray(DEEP)).getpixel((2, 0)) == (128, 128, 128)


def test_grey_of_12_bits_and_grey_whose_zero_is_white():
    # 12 bits per value, packed: 4095 and 0; 2048 / 4095 of 255 is 127.5, so 128.
    strip = bytes([0xFF, 0xF0, 0x00, 0x80, 0x00, 0x00])
    assert pixels(tiff(strip, 4, 12, photometric=1))[:3] == [WHITE, BLACK, (128, 128, 128)]
    strip = np.array([0, 65535], "<u2").tobytes()
    assert pixels(tiff(strip, 2, 16, photometric=0)) == [WHITE, BLACK]


def tiff(strip, width, bits, photometric):
    """A TIFF of one row, written by hand: pillow writes neither of these forms."""
    tags = TAGS(prefix=b"II")
    values = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1}
    for tag, value in {**values, 273: 0, 279: len(strip)}.items():
        tags[tag] = value
        tags.tagtype[tag] = 4
    return b"II*\0" + (8).to_bytes(4, "little") + tags.tobytes(8) + strip  # pillow sets 273


TURNED = {  # which corner of the upright picture the first stored pixel is, by the EXIF standard
    1: (0, 0),
    2: (3, 0),
    3: (3, 1),
    4: (0, 1),
    5: (0, 0),
    6: (1, 0),
    7: (1, 3),
    8: (0, 3),
}


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG", "MPO"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_is_turned_as_its_exif_says(format, orientation):
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"WEBP": {"lossless": True}, "MPO": {"save_all": True, "append_images": [image]}}
    source = written(image, format, exif=exif, **options.get(format, {}))
    upright = Picture("x", lambda: source).open()
    assert upright.size == ((64, 32) if orientation < 5 else (32, 64))
    column, row = TURNED[orientation]
    for x in range(upright.width // 16):
        for y in range(upright.height // 16):
            red, _, blue = upright.getpixel((16 * x + 8, 16 * y + 8))
            assert (red > blue) == ((x, y) == (column, row))


def test_an_exif_with_odd_entries_turns_a_picture_all_the_same():
    # Make (0x10f) of the kind float: pillow reads it, and fails where it writes an EXIF anew.
    entries = b"\x0f\x01\x0b\x00\x01\x00\x00\x00\x00\x00\x80\x3f"
    entries += b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + b"\0\0\0\0"
    source = written(Image.new("RGB", (4, 2)), "JPEG", exif=exif)
    assert Picture("x", lambda: source).open().size == (2, 4)


def palette(**options):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return written(image, **options)


HALF = Image.fromarray(np.array([[[255, 0, 0, 0], [0, 0, 255, 128]]], np.uint8), "RGBA")
GREY = Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), "LA")
SPLIT = Image.fromarray(np.array([[RED, BLUE]], np.uint8))
TRANSPARENT = {
    "half": (written(HALF), [WHITE, (127, 127, 255)]),  # 255 - 128
    "webp": (written(HALF, "WEBP", lossless=True, exact=True), [WHITE, (127, 127, 255)]),
    "tiff": (written(HALF, "TIFF"), [WHITE, (127, 127, 255)]),
    "grey with alpha": (written(GREY), [WHITE, BLACK]),
    "palette, one colour": (palette(transparency=0), [WHITE, BLUE]),
    "palette, by colour": (palette(transparency=b"\xff\x00"), [RED, WHITE]),
    "gif": (palette(format="GIF", transparency=0), [WHITE, BLUE]),
    "one colour": (written(SPLIT, transparency=RED), [WHITE, BLUE]),
    "one grey": (written(GREY.convert("L"), transparency=7), [BLACK, BLACK]),
    "one of 16 bits": (
        written(Image.fromarray(DEEP), transparency=32768),
        [BLACK, (1, 1, 1), WHITE, WHITE],
    ),
}


@pytest.mark.parametrize("case", TRANSPARENT)
def test_what_is_transparent_is_laid_on_white(case):
    source, expected = TRANSPARENT[case]
    assert pixels(source) == expected


def test_plain_forms_are_as_pillow_converts_them():
    one = Image.new("1", (2, 1))
    one.putpixel((1, 0), 1)
    assert pixels(written(one)) == [BLACK, WHITE]
    assert pixels(palette()) == [RED, BLUE]
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert set(pixels(written(ink, "TIFF"))) == {RED}
    red, green, _ = pixels(written(ink, "JPEG"))[0]
    assert (red > 240, green < 16) == (True, True)


def test_of_an_animated_picture_the_first_frame_is_seen():
    frames = [Image.new("RGB", (2, 1), colour) for colour in ("red", "blue")]
    source = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(source) == [RED, RED]


FLOATS = np.array([[0.0, 0.5, 1.0]], np.float32)
UNSEEN = {
    "float": (Image.fromarray(FLOATS), "TIFF", "mode F"),
    "32 bits": (Image.fromarray(np.array([[7, 70000]], np.int32)), "TIFF", "mode I"),
    "nothing": (Image.new("RGBA", (2, 2)), "PNG", "transparent all over"),
}


@pytest.mark.parametrize("case", UNSEEN)
def test_what_cannot_be_shown_is_told_when_it_is_opened_and_by_the_check(tmp_path, case):
    image, format, said = UNSEEN[case]
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(written(image, format))
    (tmp_path / "a.txt").write_text("red", encoding="utf-8")
    with pytest.raises(DataError, match=said):
        Picture("a", path).open()
    entry = {"name": "x", "split": "s", "view": "captions", "layout": "image-text"}
    with pytest.raises(DataError, match=f"(?s)1 problem.*{said}"):
        inspect.check({**entry, "folder": str(tmp_path)})


def test_a_transparent_colour_of_16_bits_is_refused():
    # A PNG of one pixel (0, 1, 2), of which (0, 0, 0) is transparent; pillow reads both as black.
    source = png16(bytes([0, 0, 0, 1, 0, 2]), transparency=bytes(6))
    with pytest.raises(DataError, match="transparent colour of 16 bits"):
        Picture("x", lambda: source).open()
    assert pixels(png16(b"\xff\xff\x00\x00\x80\x00")) == [(255, 0, 128)]


def png16(pixel, transparency=b""):
    import struct
    import zlib

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    extra = chunk(b"tRNS", transparency) if transparency else b""
    content = zlib.compress(b"\0" + pixel)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def test_pictures_of_the_hub_are_opened_the_same_way(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    kinds = datasets.Features({"image": datasets.Image(), "captions": datasets.Value("string")})
    rows = {"image": [str(tmp_path / "deep.png")], "captions": ["a"]}
    table = datasets.Dataset.from_dict(rows, features=kinds)
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "test.parquet")
    entry = {"name": "x", "split": "test", "view": "captions", "layout": "hub"}
    (example,) = data.load({**entry, "folder": str(tmp_path / "hub")})
    assert opened(example["image"]).getpixel((3, 0)) == WHITE
    assert opened(example["image"]).getpixel((2, 0)) == (128, 128, 128)


def test_a_picture_in_memory_that_needs_nothing_is_the_same_object():
    image = Image.new("RGB", (2, 2))
    assert opened(image) is image


def test_the_pictures_of_easy_vqa_are_what_they_were():
    (example,) = easy_vqa.load(split="test", view="vqa", limit=1)
    _, paths = easy_vqa.questions_of("test")
    found = example["image"].tobytes()
    assert any(Image.open(path).convert("RGB").tobytes() == found for path in paths.values())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16"])
def test_an_uncompressed_tiff_is_turned_whether_it_is_read_by_path_or_not(mode, tmp_path):
    """Pillow maps such a file into memory when it opens it by its path."""
    colour = {"RGB": "red", "RGBA": "red"}.get(mode, 0)
    image = Image.new(mode, (8, 4), colour)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "a.tif", exif=exif)
    from_path = Picture("a", tmp_path / "a.tif").open()
    from_bytes = Picture("a", (tmp_path / "a.tif").read_bytes).open()
    assert from_path.size == from_bytes.size == (4, 8)
