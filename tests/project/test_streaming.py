"""Training images from shards: each once in an epoch, whoever shares them and wherever an epoch goes on."""

import importlib.util
import io
import tarfile
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from hf_models.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "examples" / "streaming.py"


@pytest.fixture(scope="module")
def streaming():
    spec = importlib.util.spec_from_file_location("streaming", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoded(value: int) -> bytes:
    """A picture of one pixel, of this grey."""
    file = io.BytesIO()
    Image.fromarray(np.full((1, 1, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, values) -> Path:
    with tarfile.open(path, "w") as tar:
        for value in values:
            for name, content in ((f"{value:04}.png", encoded(value)), (f"{value:04}.cls", str(value % 3).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path: Path, values) -> Path:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = [{"image": {"bytes": encoded(value), "path": None}, "label": value % 3} for value in values]
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    return path


@pytest.fixture(scope="module", params=["tar", "parquet"])
def shards(request, tmp_path_factory):
    """37 pictures in four shards, of which each is another grey."""
    folder, write = tmp_path_factory.mktemp("shards"), {"tar": write_tar, "parquet": write_parquet}[request.param]
    parts = np.split(np.arange(37), [5, 6, 25])
    return [write(folder / f"train-{i}.{request.param}", part.tolist()) for i, part in enumerate(parts)]


def grey(row, random) -> int:
    value = Image.open(io.BytesIO(row["image"]["bytes"])).getpixel((0, 0))[0]
    assert value % 3 == row["label"]
    return value


def batches(stream, workers=0) -> list[list[int]]:
    loader = DataLoader(stream, stream.batch_size, num_workers=workers, collate_fn=list)
    found = list(loader)
    assert len(found) == len(loader)
    return found


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_image_comes_once_in_an_epoch(streaming, shards, processes):
    streams = [streaming.Shards(shards, grey, 4, process, processes, mixed=7) for process in range(processes)]
    epochs = []
    for epoch in range(2):
        for stream in streams:
            stream.set_epoch(epoch)
        epochs.append([batches(stream) for stream in streams])
        assert len({len(of_process) for of_process in epochs[-1]}) == 1, (
            "a process without a batch would be waited for"
        )
        values = [value for of_process in epochs[-1] for batch in of_process for value in batch]
        assert max(Counter(values).values()) == 1
        assert len(values) == 37 if processes < 3 else len(values) >= 36
    assert epochs[0] != epochs[1]


def test_an_epoch_goes_on_where_it_was_stopped(streaming, shards):
    stream = streaming.Shards(shards, grey, 4, process=1, processes=2, mixed=7)
    stream.set_epoch(5)
    whole = batches(stream)
    for had in range(len(whole) + 1):
        again = streaming.Shards(shards, grey, 4, process=1, processes=2, mixed=7)
        again.set_epoch(5, had)
        assert list(DataLoader(again, 4, collate_fn=list)) == whole[had:]


def test_workers_share_the_images(streaming, shards):
    stream = streaming.Shards(shards, grey, 4, process=0, processes=2, workers=2, mixed=7)
    other = streaming.Shards(shards, grey, 4, process=1, processes=2, workers=2, mixed=7)
    whole = batches(stream, workers=2)
    values = [value for of_process in (whole, batches(other, workers=2)) for batch in of_process for value in batch]
    assert sorted(values) == list(range(37))
    for had in (2, 3):
        stream.set_epoch(0, had)
        assert list(DataLoader(stream, 4, num_workers=2, collate_fn=list)) == whole[had:]


@pytest.mark.parametrize("total", [*range(1, 30), 1000])
@pytest.mark.parametrize("workers", [1, 3])
def test_shares_make_as_many_batches_for_every_process(streaming, total, workers):
    shares = streaming.shares(total, 3, workers, 4)
    of_processes = [sum(-(-size // 4) for size in of_workers) for of_workers in shares]
    assert len(set(of_processes)) == 1
    assert 0 <= total - sum(map(sum, shares)) < 3


def test_bad_shards_are_named(streaming, tmp_path):
    damaged = write_parquet(tmp_path / "a.parquet", range(5))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read"):
        streaming.Shards([damaged], grey, 2)
    with pytest.raises(InputError, match="1 images, fewer than the 2 processes"):
        streaming.Shards([write_tar(tmp_path / "b.tar", [1])], grey, 2, processes=2)
    datasets.Dataset.from_dict({"image": [{"bytes": encoded(1), "path": None}], "kind": [1]}).to_parquet(
        tmp_path / "c.parquet"
    )
    with pytest.raises(InputError, match=r"c\.parquet: no column of images or labels, only image, kind"):
        list(streaming.Shards([tmp_path / "c.parquet"], grey, 2))


def test_rows_are_told_apart(streaming, shards):
    rows = list(streaming.read_rows(shards[2], start=3))
    assert len(rows) == 16
    assert rows[0]["image"]["path"].startswith(f"{shards[2]}, row 3")
