"""Every reader of a file from outside: valid seeds, and a function that reads a mutated one from its folder."""

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import checkpoint_readers as checkpoint
import data_readers as data
from mutate import mutate_bytes, mutate_json, mutate_value
from safetensors.torch import save

Random = random.Random


@dataclass(frozen=True)
class Reader:
    """How one kind of file is fuzzed.

    Args:
        share: Its part of all runs.
        seeds: Makes the valid inputs, once.
        mutate: A seed and a random generator -> an input.
        read: Writes the input into the working folder and reads it. An [`InputError`] is an answer.
    """

    share: int
    seeds: Callable[[], list]
    mutate: Callable[[Any, Random], Any]
    read: Callable[[Any], None]


READERS = {
    "names": Reader(12, checkpoint.names, checkpoint.mutate_name, checkpoint.read_name),
    "checkpoint, zip": Reader(
        8, lambda: [checkpoint.saved(c) for c in checkpoint.checkpoints()], mutate_bytes, checkpoint.read_checkpoint
    ),
    "checkpoint, pickle in a whole zip": Reader(
        14, checkpoint.pickles_in_zips, mutate_bytes, checkpoint.read_pickle_in_zip
    ),
    "checkpoint, pickle from before 1.6": Reader(
        8,
        lambda: (
            [checkpoint.saved(c, _use_new_zipfile_serialization=False) for c in checkpoint.checkpoints()]
            + [pickle.dumps({"a": [1, checkpoint.Bomb()]}, protocol) for protocol in range(2, 6)]
        ),
        mutate_bytes,
        checkpoint.read_checkpoint,
    ),
    "checkpoint, safetensors": Reader(
        5, lambda: [save(checkpoint.small_state())], mutate_bytes, checkpoint.read_checkpoint
    ),
    "checkpoint, header of safetensors": Reader(
        7, checkpoint.safetensors_headers, mutate_json, checkpoint.read_safetensors_header
    ),
    "checkpoint, names and shapes": Reader(3, checkpoint.plans, checkpoint.mutate_plan, checkpoint.read_plan),
    "index of shards": Reader(5, checkpoint.indexes, mutate_json, checkpoint.read_index),
    "upstream's folder": Reader(
        4, checkpoint.upstream_folders, checkpoint.mutate_files, checkpoint.read_upstream_folder
    ),
    "arguments of the original": Reader(7, checkpoint.arguments, mutate_json, checkpoint.read_arguments),
    "configs of mmseg and mmdet": Reader(5, checkpoint.model_dicts, mutate_json, checkpoint.read_model_dict),
    "converted folder (verify)": Reader(
        1, checkpoint.converted_folder, checkpoint.mutate_files, checkpoint.read_converted
    ),
    "model folder (classify)": Reader(1, checkpoint.model_folders, checkpoint.mutate_files, checkpoint.read_model),
    "recipe of segmentation": Reader(3, data.recipes, mutate_value, data.read_recipe),
    "metadata of species": Reader(2, lambda: [[6, 52.5, 13.4]], mutate_value, data.read_metadata),
    "images": Reader(10, data.pictures, mutate_bytes, data.read_picture),
    "masks": Reader(4, data.masks, mutate_bytes, data.read_mask_file),
    "results, CSV": Reader(6, data.tables_csv, mutate_bytes, data.read_csv),
    "journals": Reader(6, data.journals, data.mutate_lines, data.read_journal),
    "ReaL labels": Reader(3, lambda: [[[1, 2], [], [999]]], mutate_json, data.read_real),
    "annotations of COCO": Reader(6, data.annotations, mutate_json, data.read_annotations),
    "data set, parquet": Reader(1, data.parquets, mutate_bytes, data.read_parquet),
    "data set, tar": Reader(1, data.tars, mutate_bytes, data.read_tar),
}
