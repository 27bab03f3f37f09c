"""A page for one's own photos: their labels, and pictures of what the model sees (`examples/space` as a Space).

For a detector it shows the objects that it finds.
"""

import os
from pathlib import Path

from PIL import Image
from transformers import AutoConfig

from ..detection import class_colours, detect, draw_detections, load_detector
from ..errors import InputError
from ..inference.classify import best_labels
from ..inference.device import choose_device
from ..inference.loading import loading
from ..inference.names import DEFAULT, model_folder
from ..inference.tasks import task_of
from .features import draw_features, feature_colours
from .figures import Figure, figure_image
from .image_view import check_size, prepare_image
from .modulation import draw_modulation, is_modulated, modulator_strengths
from .photo import families_with, load_hierarchical, model_name
from .sampling import draw_sampling
from .sampling_points import deformable_layers, is_deformable, sampling_points

os.environ["GRADIO_ANALYTICS_ENABLED"] = "0"  # read at the import: nothing is reported to anyone
try:
    import gradio as gr
except ImportError:
    raise InputError("gradio: not installed, needed by the demo. Run `pip install 'gradio>=6'`.") from None

SAMPLING, MODULATION, FEATURES = "sampling points", "modulation", "features"
# the fonts of the system: gradio's own themes fetch theirs from the internet
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
SMALL, ENLARGED = 128, 256  # sides: the maps of a smaller input are too coarse to show much


def run_demo(model: str | Path = DEFAULT, port: int = 7860, device: str | None = None) -> None:
    """Serve the demo on this machine alone, until it is interrupted.

    Args:
        model: Folder or Hub id of an image classifier or a detector, or "default" for the embedded checkpoint.
        port: Of the loopback interface.
        device: "cpu" or "cuda"; `None` for the GPU where there is one.

    Raises:
        InputError: `model` cannot be loaded, or the port or the device cannot be used.
    """
    page = build_demo(model, device)
    try:
        _, url, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            theme=THEME,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(f"--port {port}: cannot be used. Give another one.") from error
    print(f"{url} (interrupt with Ctrl-C)", flush=True)
    page.block_thread()


def build_demo(model: str | Path = DEFAULT, device: str | None = None) -> gr.Blocks:
    """Build the page for a model; arguments and errors as for `run_demo`."""
    device, folder = choose_device(device), model_folder(model)
    with loading(folder, "a model"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    page = detector_page if task_of(config) == "object-detection" else classifier_page
    return page(model, device)


def detector_page(model: str | Path, device: str) -> gr.Blocks:
    """The page for a detector: the objects on a photo, drawn and listed."""
    processor, detector = load_detector(model)
    detector.to(device)
    colours = class_colours(detector.config)

    def objects(photo: Image.Image | None, threshold: float):
        if photo is None:
            return None, None
        try:
            found = detect(detector, processor, photo, threshold)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        rows = [[one.label, f"{one.score:.1%}", *map(round, one.box)] for one in found]
        return draw_detections(photo, found, colours), rows

    name = model_name(detector)
    with gr.Blocks(title=f"hf_models: {name}") as page:
        gr.Markdown(f"## What {name} finds\nDrop a photo: the picture shows the objects on it.")
        with gr.Row():
            photo = _photo()
            edges = ["left", "top", "right", "bottom"]
            table = gr.Dataframe(headers=["object", "score", *edges], label="objects", elem_id="labels")
        threshold = gr.Slider(0, 1, value=0.5, step=0.05, label="score above which an object is shown")
        shown = _picture()
        for changed in (photo.change, threshold.release):
            changed(objects, [photo, threshold], [shown, table], concurrency_id="model", concurrency_limit=1)
    return page


def classifier_page(model: str | Path, device: str) -> gr.Blocks:
    """The page for a classifier: its labels for a photo, and what it sees."""
    processor, classifier = load_hierarchical(model)
    classifier.to(device)
    views = [SAMPLING] * is_deformable(classifier) + [MODULATION] * is_modulated(classifier) + [FEATURES]
    stages = deformable_layers(classifier)
    layers = [(stage, layer) for stage, found in enumerate(stages, 1) for layer in range(1, len(found) + 1)]
    stride = classifier.config.output_stride
    side = prepare_image(Image.new("RGB", (64, 64)), processor)[1].size[0]

    def labels(photo: Image.Image | None) -> dict[str, float] | str | None:
        if photo is None:
            return None
        best = best_labels(classifier, processor(photo, return_tensors="pt").pixel_values.to(device))
        if classifier.config.problem_type == "regression":  # any numbers, of which bars would show percentages
            return ", ".join(f"{entry['label']}: {entry['score']:.4g}" for entry in best)
        return {entry["label"]: entry["score"] for entry in best}

    def picture(photo: Image.Image | None, view: str, layer: int | None, size: int, pixel: list[int] | None):
        if photo is None:
            return None
        try:
            return figure_image(draw(photo, view, layer, size, pixel))
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def draw(photo: Image.Image, view: str, layer: int | None, size: int, pixel: list[int] | None) -> Figure:
        check_size(size, stride)
        pixel_values, image_view = prepare_image(photo, processor, size)
        pixel_values = pixel_values.to(device)
        if view == SAMPLING:
            stage, number = layers[layer]
            points = sampling_points(classifier, pixel_values, image_view, at=pixel, stage=stage, layer=number)
            return draw_sampling(photo, image_view, points)
        if view == MODULATION:
            strengths = modulator_strengths(classifier, pixel_values)
            return draw_modulation(photo, image_view, strengths, model_name(classifier))
        return draw_features(photo, image_view, feature_colours(classifier, pixel_values), model_name(classifier))

    def clicked(event: gr.SelectData) -> list[int]:
        return event.index

    with gr.Blocks(title=f"hf_models: {model_name(classifier)}") as page:
        gr.Markdown(f"## What {model_name(classifier)} sees\n{_hint(views)}")
        with gr.Row():
            photo = _photo()
            answer = gr.Label(num_top_classes=5, label=f"labels, at {side} x {side} pixels", elem_id="labels")
        with gr.Row():
            view = gr.Radio(views, value=views[0], label="picture")
            layer = gr.Dropdown(
                [(f"stage {stage}, layer {layer}", index) for index, (stage, layer) in enumerate(layers)],
                value=max((index for index, (stage, _) in enumerate(layers) if stage <= 3), default=None),
                label="layer",
                visible=SAMPLING in views,
            )
            size = gr.Slider(
                max(64, stride),
                max(512, side),
                value=side if side >= SMALL else ENLARGED,
                step=stride,
                label="side of what the model sees here",
            )
        shown = _picture()
        pixel = gr.State()

        # One request at a time: hooks on the model take what passes by.
        alone = {"concurrency_id": "model", "concurrency_limit": 1}
        inputs = [photo, view, layer, size, pixel]
        photo.change(lambda: None, None, pixel).then(labels, photo, answer, **alone).then(
            picture, inputs, shown, **alone
        )
        if SAMPLING in views:
            photo.select(clicked, None, pixel).then(picture, inputs, shown, **alone)
        for control in (view, layer):
            control.change(picture, inputs, shown, **alone)
        size.release(picture, inputs, shown, **alone)
    return page


def _photo() -> gr.Image:
    return gr.Image(type="pil", label="photo", sources=["upload", "clipboard"], elem_id="photo", height=320)


def _picture() -> gr.Image:
    # no label: the picture has a title, or needs none
    return gr.Image(
        interactive=False, show_label=False, format="png", buttons=["download", "fullscreen"], elem_id="picture"
    )


def _hint(views: list[str]) -> str:
    if SAMPLING in views:
        return "Drop a photo, then click on a pixel of it: the picture shows where a layer reads to compute it."
    return (
        f"Drop a photo: the picture shows its {views[0]}. "
        f"(In a model of {families_with(is_deformable)}, a click would show where a layer reads.)"
    )
