"""`read_mask` on the forms in which image files hold class numbers, as tools that shrink files leave them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_models.errors import InputError
from hf_models.evaluate.data.ade20k import read_mask as read_ade20k_mask
from hf_models.evaluate.data.images import Sample
from hf_models.segmentation.masks import IGNORED, read_mask
from hf_models.zoo.segmentation_labels import class_colours, voc_colour

VOC = [voc_colour(index) for index in range(256)]
ADE20K = [(0, 0, 0), *class_colours("ade20k").values()]
VALUES = [0, 1, 16, 149]


def values_of(*values):
    return np.random.default_rng(0).choice(np.array(values, np.uint8), (8, 12))


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_palette(indices, colours, form="PNG", **options):
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return encoded(image, form, **options)


def grey(*values):
    return [(value,) * 3 for value in values]


def grey_png(bits, values):
    """A greyscale PNG of one row, of fewer than 8 bits."""
    row = int("".join(f"{value:0{bits}b}" for value in values).ljust(-(-len(values) * bits // 8) * 8, "0"), 2)
    row = row.to_bytes(-(-len(values) * bits // 8), "big")
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    data = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_greyscale(form):
    mask = values_of(*VALUES, IGNORED)
    assert np.array_equal(read_mask(encoded(Image.fromarray(mask), form), 150), mask)


@pytest.mark.parametrize("values", [[0, 1, 16, 149], [0, 1], [7], [1, 2, 3], [0, 255], range(150)])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_palette_of_greys_is_greyscale(values, backwards):
    """What a lossless optimiser makes of an 8-bit mask: only the greys that occur, in any order."""
    mask, greys = values_of(*values), sorted(values, reverse=backwards)
    indices = np.vectorize(greys.index)(mask)
    if list(greys) == [0, 255]:  # also what a 1-bit image is displayed with
        with pytest.raises(
            InputError, match=r"mask: 1 or 255 may be meant, a stored value or its shade of grey\. Save"
        ):
            read_mask(with_palette(indices, grey(*greys)), 150, name="mask")
        return
    assert np.array_equal(read_mask(with_palette(indices, grey(*greys)), 150), mask)
    assert np.array_equal(read_mask(with_palette(indices, grey(*greys), "TIFF"), 150), mask)


@pytest.mark.parametrize(("bits", "values"), [(1, [0, 1]), (2, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (4, [0, 8, 9, 15])])
def test_few_bits_are_the_stored_values(bits, values):
    """Pillow returns 0, 85, 170, 255 or multiples of 17, which are no labels of 20 classes."""
    mask = read_mask(grey_png(bits, values), 20, reduce_zero_label=True)
    assert mask.tolist() == [[IGNORED if value == 0 else value - 1 for value in values]]


@pytest.mark.parametrize(
    ("bits", "values", "num_labels", "words"),
    [
        (1, [0, 1], 20, "1 or 255 may be meant"),  # 255 is ignored
        (2, [0, 1], 150, "1 or 85 may be meant"),
        (4, [0, 3], 150, "3 or 51 may be meant"),
        (4, [0, 9], 5, "label 9 outside 0..4 (255 = ignored)"),
    ],
)
def test_few_bits_that_may_be_shades_are_refused(bits, values, num_labels, words):
    with pytest.raises(InputError) as error:
        read_mask(grey_png(bits, values), num_labels, name="mask.png")
    assert f"mask.png: {words}" in str(error.value)


def test_few_bits_that_can_only_be_shades():
    assert read_mask(grey_png(1, [0, 1]), 1).tolist() == [[0, IGNORED]]


def test_other_scales_of_greyscale_are_undone():
    """A PGM with a largest value of its own, which Pillow makes 255."""
    assert read_mask(b"P5 4 1 150\n\x00\x01\x02\x95", 150).tolist() == [[0, 1, 2, 149]]
    assert read_mask(b"P2 3 1 300\n0 1 149\n", 150).tolist() == [[0, 1, 149]]


def test_0_for_white_is_refused():
    white = encoded(Image.fromarray(values_of(*VALUES)), "TIFF", tiffinfo={262: 0})
    for content in (white, b"P1 4 1\n0 1 1 0\n"):
        with pytest.raises(InputError, match="mask: 0 is white in it, and some tools read its numbers from the other"):
            read_mask(content, 150)


def test_16_and_32_bits():
    for dtype, form in ((np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF")):
        mask = values_of(*VALUES).astype(dtype)
        assert np.array_equal(read_mask(encoded(Image.fromarray(mask), form), 150), mask)
    with pytest.raises(InputError, match=r"mask: label 300 outside 0\.\.149"):
        read_mask(encoded(Image.fromarray(np.array([[0, 300]], np.uint16))), 150, name="mask")


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_indices_of_a_palette_of_colours(form):
    for values, colours in (
        ([0, 1, 7, 20], VOC),
        ([0, 7], VOC),  # the colours of both are greys, those of the palette are not
        ([0, 3, 149], ADE20K),
        ([0, 1, 2], [(0, 0, 0), (200, 10, 3), (3, 4, 90)]),
    ):
        mask = values_of(*values)
        assert np.array_equal(read_mask(with_palette(mask, colours, form), 150), mask)


@pytest.mark.parametrize(
    ("values", "colours"), [([0, 15], VOC), ([5], VOC), ([1, 2, 3], VOC), (range(21), VOC), ([0, 3, 150], ADE20K)]
)
def test_a_renumbered_palette_is_refused(values, colours):
    """What a lossless optimiser makes of PASCAL VOC's masks: the colours that occur, backwards."""
    kept = [colours[value] for value in values][::-1]
    indices = values_of(*range(len(kept)))
    with pytest.raises(InputError, match=r"mask: its palette was renumbered: 0 has the colour of \d+. Save the class"):
        read_mask(with_palette(indices, kept), 150, name="mask")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded(Image.new("RGB", (4, 4))), "mode RGB, a mask has one channel"),
        (encoded(Image.new("LA", (4, 4))), "mode LA, a mask has one channel"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "mode F, a mask has one channel"),
        (encoded(Image.new("L", (4, 4)), "JPEG"), "a JPEG file, which does not keep class numbers"),
        (b"no image", "cannot be read completely"),
    ],
)
def test_what_is_no_mask(content, words):
    with pytest.raises(InputError) as error:
        read_mask(content, 150, name="mask")
    assert f"mask: {words}" in str(error.value)


def test_turned_as_its_exif_data_say():
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = values_of(*VALUES)
    turned = encoded(Image.fromarray(mask).rotate(90, expand=True), exif=exif)
    assert np.array_equal(read_mask(turned, 150), mask)


def test_the_evaluation_reads_the_same(tmp_path):
    """Before and after an optimiser: the masks of issue 15 were read as other classes, without an error."""
    mask = values_of(0, 1, 2, 17, 150)
    Image.fromarray(mask).save(tmp_path / "a.png")
    greys = [150, 17, 2, 1, 0]
    (tmp_path / "b.png").write_bytes(with_palette(np.vectorize(greys.index)(mask), grey(*greys)))
    before, after = (read_ade20k_mask(Sample(0, "x", b"", tmp_path / n), (12, 8), True) for n in ("a.png", "b.png"))
    assert np.array_equal(before, after) and sorted(set(before.flatten().tolist())) == [0, 1, 16, 149, IGNORED]
