"""With the package imported, no Auto class and no pipeline asks whether code may run, and none of a folder is run."""

import json
import os
import subprocess
import sys

from PIL import Image

from ..harness.hub_tester import SEGMENTERS, TINY, auto_classes, tiny_folder

PROCESSORS = ["AutoConfig", "AutoImageProcessor", "AutoProcessor", "AutoFeatureExtractor", "AutoTokenizer"]
USER = """
import json, sys

import hf_models
import transformers
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

loaded = {}
for name, auto_classes, tasks in json.loads(sys.argv[1]):
    for auto_class in auto_classes:
        cls = AutoVideoProcessor if auto_class == "AutoVideoProcessor" else getattr(transformers, auto_class)
        try:
            loaded[name, auto_class] = type(cls.from_pretrained(name))
        except (OSError, ValueError, KeyError, ImportError):  # not every folder has everything
            pass
    for task in tasks:
        assert transformers.pipeline(task, model=name)("photo.png")
    for auto_class in ("AutoConfig", "AutoImageProcessor", auto_classes[-1]):
        assert not loaded[name, auto_class].__module__.startswith("transformers_modules.")
assert not any(module.startswith("transformers_modules.") for module in sys.modules)
"""


def test_with_somebody_at_the_keyboard(tmp_path):
    cases = []
    for name in [*TINY, *SEGMENTERS]:
        tiny_folder(tmp_path / name, name)
        known = [auto_class for auto_class in auto_classes(name) if auto_class != "AutoBackbone"]  # asks the Hub
        tasks = ["image-segmentation"] if name in SEGMENTERS else ["image-classification", "image-feature-extraction"]
        cases.append([name, [*PROCESSORS, "AutoVideoProcessor", *known], tasks])
    Image.effect_noise((80, 64), 64).convert("RGB").save(tmp_path / "photo.png")
    child = subprocess.Popen(
        [sys.executable, "-c", USER, json.dumps(cases)],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    child.stdin.write("y\n" * 100)  # who is asked agrees
    child.stdin.flush()
    told = child.stdout.read()  # the keyboard stays connected
    assert child.wait() == 0, told[-3000:]
    assert "custom code" not in told
