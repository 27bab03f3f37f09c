"""What can be looked at while a model trains: the curves as a picture, and pictures in TensorBoard or trackio."""

from pathlib import Path

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback

from hf_models.inference.files import replacing
from hf_models.visualize.figures import OKABE_ITO, PALE, new_figure, save_figure, style


class CurvePicture(TrainerCallback):
    """Draws the loss and a metric over the epochs, anew after each.

    Args:
        picture: File to write.
        metric: Name of the metric, without "eval_".
    """

    def __init__(self, picture: Path, metric: str):
        self.picture, self.metric = picture, metric

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer."""
        if state.is_world_process_zero:
            self._draw(state.log_history)

    @style
    def _draw(self, history: list[dict[str, float]]) -> None:
        figure = new_figure(7, 3, "Training")
        names = ("loss", f"eval_{self.metric}")
        for axes, name, colour in zip(figure.subplots(1, 2), names, (OKABE_ITO[5], OKABE_ITO[4]), strict=True):
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, marker="o", markersize=2)
            axes.set_title(name.removeprefix("eval_"))
            axes.set_xlabel("epochs")
            axes.grid(color=PALE, alpha=0.2)
        save_figure(figure, self.picture)


def show_picture(picture: Image.Image, file: Path, trainer: Trainer) -> None:
    """Write a picture to a file and, while it trains, to TensorBoard and trackio where the Trainer reports to them."""
    with replacing(file) as beside:
        picture.save(beside)
    for callback in trainer.callback_handler.callbacks if trainer.is_in_train else ():
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer:
            callback.tb_writer.add_image(file.stem, np.asarray(picture), trainer.state.global_step, dataformats="HWC")
        elif isinstance(callback, TrackioCallback):
            import trackio

            trackio.log({file.stem: trackio.Image(picture)})
