"""An evaluation whose metric no sum of counts gives: average precision over all detections of a data set.

As a script, which `torchrun` can start: `ranking_evaluation.py RESULTS` resumes it and prints what comes out.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

from hf_models.evaluate.checkpoint import Loaded
from hf_models.evaluate.data.images import ImageData, Sample, Selection
from hf_models.evaluate.evaluation import Evaluation, Outcome
from hf_models.evaluate.run import run
from hf_models.evaluate.settings import Settings
from hf_models.image_processing_imagenet import ImageNetImageProcessor

NUM_IMAGES = 40
DETECTION = np.dtype([("score", "<f4"), ("right", "?")])


class Doubling(nn.Module):
    """The model."""

    config, dtype = PreTrainedConfig(), torch.float32

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return 2 * scores


class RankingEvaluation(Evaluation):
    """Each image has from 0 to 6 detections; a record is these."""

    def prepare(self, sample: Sample) -> np.ndarray:
        random = np.random.default_rng(sample.index)
        return random.random(sample.index % 7, dtype=np.float32)

    def measure(self, batch: list[np.ndarray]) -> list[bytes]:
        records = []
        for scores in batch:
            detections = np.empty(len(scores), DETECTION)
            detections["score"], detections["right"] = self.model(torch.from_numpy(scores)), scores**2 > 0.3
            records.append(detections.tobytes())
        return records

    def reduce(self, records: list[bytes]) -> Outcome:
        return Outcome({"AP": average_precision(records)}, {"detections": [len(record) for record in records]})


def average_precision(records: list[bytes]) -> float:
    """The mean precision at the right detections, ranked by their scores, in percent."""
    detections = np.frombuffer(b"".join(records), DETECTION)
    right = detections["right"][np.argsort(-detections["score"], kind="stable")]
    return float(100 * (right.cumsum() / np.arange(1, len(right) + 1))[right].mean())


def ranking_evaluation(count: int | None = NUM_IMAGES) -> RankingEvaluation:
    """Of a data set that says it holds `count` images."""
    data = ImageData("numbers", "f", count, lambda: (Sample(i, f"{i}", b"", None) for i in range(NUM_IMAGES)), None)
    loaded = Loaded("doubling", "r", ImageNetImageProcessor(), Doubling())
    return RankingEvaluation(loaded, Selection(data, "numbers", "", count, None), size="1 x 1")


if __name__ == "__main__":
    rows, details = run(ranking_evaluation(), Settings(4, device="cpu", results=Path(sys.argv[1]), resume=True))
    if rows:
        print(json.dumps([rows, details]))
