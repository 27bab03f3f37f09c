"""Detection in image files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from ..inference.device import choose_device
from ..inference.files import replacing
from ..inference.images import check_picture, read_image
from .load import load_detector
from .overlay import class_colours, draw_detections
from .predict import Detection, detect


def detect_images(
    images: Sequence[str | Path],
    model: str | Path,
    *,
    threshold: float = 0.5,
    out: str | Path | None = None,
    device: str | None = None,
) -> Iterator[list[Detection]]:
    """Find the objects on image files, and write pictures of them.

    Args:
        images: Paths of the images.
        model: Folder or Hub id of a detector.
        threshold: Score above which an object is reported.
        out: File to write for the one image, of a format that Pillow knows by its name, or a folder for a picture of
            each image, under its own name. A picture appears complete or not at all.
        device: "cpu" or "cuda"; by default the GPU where there is one.

    Yields:
        For each image its objects, the surest first.

    Raises:
        InputError: An image cannot be used, `model` cannot be loaded, or `out` cannot be written; before anything is
            written.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold must lie in [0, 1], got {threshold}.")
    images = [Path(image) for image in images]
    pictures = [None] * len(images) if out is None else _pictures(images, Path(out))
    for image in images:
        read_image(image)
    device = choose_device(device)
    processor, detector = load_detector(model)
    detector.to(device)
    colours = class_colours(detector.config)
    for image, picture in zip(images, pictures, strict=True):
        photo = read_image(image)
        detections = detect(detector, processor, photo, threshold)
        if picture is not None:
            with replacing(picture) as beside:
                draw_detections(photo, detections, colours).save(beside)
        yield detections


def _pictures(images: list[Path], out: Path) -> list[Path]:
    """Where the picture of each image goes, none of them over an image or over another picture."""
    if not out.is_dir() and len(images) > 1:
        raise InputError(f"{out}: no folder, which {len(images)} images need. Make it, or name another one.")
    pictures = [out / image.name for image in images] if out.is_dir() else [out]
    originals, seen = {image.resolve() for image in images}, set()
    for picture in map(check_picture, pictures):
        if picture.resolve() in originals:
            raise InputError(f"{picture}: is an image to look at, and would be overwritten. Give another --out.")
        if picture in seen:
            raise InputError(f"{picture}: two images have this name. Detect their objects one after the other.")
        seen.add(picture)
    return pictures
