"""Draws the gallery: what the embedded checkpoint sees in the sample photos. `make gallery` runs it."""

from pathlib import Path

from PIL import Image

from hf_models.inference.images import read_image
from hf_models.visualize.erf import contribution_scores, covered_areas, draw_erf
from hf_models.visualize.features import draw_features, feature_colours
from hf_models.visualize.figures import Figure, figure_image
from hf_models.visualize.image_view import prepare_image
from hf_models.visualize.photo import load_hierarchical, model_name
from hf_models.visualize.sampling import draw_sampling
from hf_models.visualize.sampling_points import sampling_points

EXAMPLES = Path(__file__).parent
FOLDER = EXAMPLES / "gallery"
SIZE = 256  # at the 64 pixels that it was trained on, the last maps have 4 x 4 positions
README = """# What the embedded checkpoint sees

`make gallery` draws these pictures from the two sample photos, which the model sees at {size} x {size} pixels.
`hf-models visualize` draws the same for your photos and for any model of this package.
`docs/pictures.md` explains the pictures.
"""


def draw_gallery() -> dict[str, tuple[str, Figure]]:
    """File name -> (the command that draws such a picture, the picture)."""
    processor, model = load_hierarchical()
    name = model_name(model)
    photos = {path.stem: read_image(path) for path in (EXAMPLES / "sample.jpg", EXAMPLES / "cat.jpg")}
    pictures = {}
    for photo, image in photos.items():
        pixel_values, view = prepare_image(image, processor, SIZE)
        arguments = f"examples/{photo}.jpg --size {SIZE}"
        figure = draw_sampling(image, view, sampling_points(model, pixel_values, view))
        pictures[f"sampling_{photo}.png"] = f"sampling {arguments}", figure
        figure = draw_features(image, view, feature_colours(model, pixel_values), name)
        pictures[f"features_{photo}.png"] = f"features {arguments}", figure
    scores = contribution_scores(model, processor, list(photos.values()), SIZE)
    title = f"{name}: effective receptive field, {len(photos)} photos"
    command = " ".join(["erf", *(f"examples/{photo}.jpg" for photo in photos), f"--size {SIZE}"])
    pictures["erf.png"] = command, draw_erf(scores, covered_areas(scores), title)
    return pictures


def main() -> None:
    pictures = draw_gallery()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    text = README.format(size=SIZE)
    for name, (command, figure) in pictures.items():
        image = figure_image(figure)
        # 256 colours keep the files small; this method keeps rare ones, such as the ends of the colour scales
        image = image.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        image.save(FOLDER / name, optimize=True)
        text += f"\n    hf-models visualize {command}\n\n![{command.split()[0]}]({name})\n"
    (FOLDER / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
