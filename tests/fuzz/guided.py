"""The same readers, led by coverage: atheris keeps the inputs that reach new lines of this package.

    pip install atheris
    python tests/fuzz/guided.py "checkpoint, zip" -max_total_time=60

What follows the reader's name goes to libFuzzer. It stops at the first finding and leaves that input beside it.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before anything reads them
import atheris

sys.path.insert(0, str(Path(__file__).parent))
import fuzz

PARTS = [
    "hf_models.conversion",
    "hf_models.evaluate",
    "hf_models.inference.classify",
    "hf_models.inference.weight_files",
    "hf_models.zoo.segmentation_recipe",
]


def main() -> None:
    name, *options = sys.argv[1:]
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with atheris.instrument_imports(include=[*PARTS, "hf_models.inference.files", "hf_models.configuration_base"]):
            fuzz.prepare()
        import readers

        reader = readers.READERS[name]
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for number, seed in enumerate(reader.seeds()):
            data = seed if isinstance(seed, bytes) else readers.mutate_json(seed, readers.Random(number))
            (seeds / str(number)).write_bytes(data)

        def one(data: bytes) -> None:
            outcome = fuzz.fuzz_one(reader, data, Path(folder, "input"))
            if outcome not in ("accepted", "refused"):
                raise RuntimeError(outcome)

        atheris.Setup(
            [
                sys.argv[0],
                str(seeds),
                f"-artifact_prefix={here}/",
                "-rss_limit_mb=8000",
                "-len_control=0",
                "-max_len=20000",
                *options,
            ],
            one,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
