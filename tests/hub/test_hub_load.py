"""What users load from the Hub, in processes of their own, is what was published, bit by bit."""

import socket

import pytest
import torch
from huggingface_hub import HfApi, constants
from transformers import pipeline

from hf_models import hub_kernels
from hf_models.conversion.publish import push_model

from ..harness.hub_double import Hub
from ..harness.hub_routes import TOKEN
from ..harness.hub_tester import SEGMENTERS, TINY, auto_classes, backbone_case, local_outputs, run_client, tiny_folder

NAMES = [*TINY, *SEGMENTERS]
TRUST = {"trust_remote_code": True}


class Published:
    """Models of every kind on a Hub, the folders that they were pushed from, and a cache that clients share."""

    def __init__(self, hub: Hub, work):
        self.hub, self.work = hub, work
        api = HfApi(endpoint=hub.url, token=TOKEN)
        self.folders = {name: tiny_folder(work / name, name) for name in NAMES}
        self.commits = {
            name: push_model(folder, f"acme/{name}", api=api, progress=False)["commit"]
            for name, folder in self.folders.items()
        }
        self.expected = {
            f"{name}/{key}": value
            for name, folder in self.folders.items()
            for key, value in local_outputs(name, folder).items()
        }
        self.cache = work / "home"

    def cases(self, names=NAMES, without=(), **kwargs) -> list[dict]:
        return [
            {"name": f"{name}/{auto_class}", "class": auto_class, "id": f"acme/{name}", "kwargs": kwargs}
            for name in names
            for auto_class in auto_classes(name)
            if auto_class not in without
        ]

    def check(self, outputs: dict[str, torch.Tensor]) -> None:
        """Outputs are those of the local models; there are some of every case."""
        for key, value in outputs.items():
            assert torch.equal(value, self.expected[key]), key


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, Hub() as hub:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_MODELS_KERNELS", "off")
        patch.setattr(hub_kernels, "_modules", {})
        hub_kernels._choose.cache_clear()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield Published(hub, tmp_path_factory.mktemp("published"))
        torch.set_num_threads(threads)
        hub_kernels._choose.cache_clear()


@pytest.fixture(scope="module")
def photo(published):
    from PIL import Image

    path = published.work / "photo.png"
    Image.effect_noise((80, 64), 64).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def first_load(published, photo):
    """A fresh machine without hf_models and kernels: every Auto class by id, pipelines, saving and loading again."""
    cases = [{"name": "unasked", "class": "AutoModel", "id": "acme/smt", "refused": True}]
    for name in NAMES:
        cases += published.cases([name], revision=published.commits[name], **TRUST)
    for name, task in (("smt", "image-classification"), ("upernet", "image-segmentation")):
        call = {"top_k": 3} if name == "smt" else {}
        about = {"name": f"pipeline/{name}", "class": "pipeline", "task": task, "image": str(photo), "call": call}
        cases.append(about | {"id": f"acme/{name}", "kwargs": TRUST | {"revision": published.commits[name]}})
    for name in NAMES:
        saved = str(published.work / "saved" / name)
        case = published.cases([name], revision=published.commits[name], **TRUST)[0]
        cases.append(case | {"name": f"again/{name}", "save": saved})
        for auto_class in auto_classes(name):
            case = {"class": auto_class, "id": saved, "kwargs": TRUST}
            case = backbone_case(name, saved) if auto_class == "AutoBackbone" else case
            cases.append(case | {"name": f"saved/{name}/{auto_class}"})
    environment = published.hub.environment(published.cache)
    told, outputs = run_client(
        published.work / "first", environment, cases, absent=["hf_models", "kernels"], kernels=True
    )
    return {case["name"]: result for case, result in zip(cases, told["results"], strict=True)}, outputs, told


def check_every_class_by_id(published, first_load):
    results, outputs, _ = first_load
    loaded = {key: value for key, value in outputs.items() if not key.startswith(("again/", "saved/"))}
    assert loaded.keys() == published.expected.keys()
    published.check(loaded)
    for case in published.cases():
        result = results[case["name"]]
        assert result["module"].startswith("transformers_modules.acme."), "the code of the repository"
        missing = result["problems"].pop("missing_keys", [])
        assert all(name.startswith("hidden_states_norms.") for name in missing), "which only ConvNext's backbones have"
        assert result["problems"].keys() <= {"unexpected_keys"}, "of heads that the class does not have"
        assert not result["problems"] or case["class"] in ("AutoModel", "AutoBackbone")


def check_no_code_runs_unasked(first_load):
    assert "pass the argument `trust_remote_code=True`" in first_load[0]["unasked"]["error"]


def check_saved_again_it_carries_its_code(published, first_load):
    _, outputs, _ = first_load
    saved = {key.removeprefix("saved/"): value for key, value in outputs.items() if key.startswith("saved/")}
    assert saved.keys() == published.expected.keys()
    published.check(saved)
    for name in NAMES:
        code = {path.name: path.read_bytes() for path in (published.work / "saved" / name).glob("*.py")}
        assert code == {p: data for p, data in published.hub.files(f"acme/{name}").items() if p.endswith(".py")}


def check_pipelines(published, photo, first_load):
    results, _, _ = first_load
    found = pipeline("image-classification", model=str(published.folders["smt"]))(str(photo), top_k=3)
    assert results["pipeline/smt"]["labels"] == [[entry["label"], entry["score"]] for entry in found]
    found = pipeline("image-segmentation", model=str(published.folders["upernet"]))(str(photo))
    assert results["pipeline/upernet"]["labels"] == [[entry["label"], entry["score"]] for entry in found]


def check_without_kernels_the_reference_runs(first_load):
    reasons = first_load[2]["kernels"]
    assert reasons and all("the kernels library does not import" in reason for reason in reasons)


def check_offline_from_the_cache(published):
    environment = published.hub.environment(published.cache) | {"HF_HUB_OFFLINE": "1"}
    environment |= {"HF_MODELS_KERNELS_DIR": str(published.work / "none")}  # the reference computed what is expected
    before = len(published.hub.requests)
    cases = []
    for name in NAMES:
        cases += published.cases([name], without=("AutoBackbone",), revision=published.commits[name], **TRUST)
        if name in TINY:
            cases.append(backbone_case(name, f"acme/{name}", revision=published.commits[name]))
    _, outputs = run_client(published.work / "offline", environment, cases, absent=["hf_models"])
    assert outputs.keys() == published.expected.keys()
    published.check(outputs)
    assert len(published.hub.requests) == before


def test_a_fresh_machine(published, photo, first_load):
    """One test for one process of pytest-xdist, because the first load takes long."""
    check_every_class_by_id(published, first_load)
    check_no_code_runs_unasked(first_load)
    check_saved_again_it_carries_its_code(published, first_load)
    check_pipelines(published, photo, first_load)
    check_without_kernels_the_reference_runs(first_load)
    check_offline_from_the_cache(published)


def test_with_the_package_no_remote_code_runs(published):
    environment = published.hub.environment(published.work / "second_home")
    cases = published.cases()
    told, outputs = run_client(
        published.work / "second", environment, cases, absent=["kernels"], present=["hf_models"]
    )
    published.check(outputs)
    assert {result["module"].split(".")[0] for result in told["results"]} == {"hf_models", "transformers"}
    assert not (published.work / "second_home" / "modules").exists()


def test_a_local_folder_needs_no_hub(published, tmp_path):
    """Neither does the search for kernels: a Hub that never answers is not asked."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        silent.setblocking(False)
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        environment |= {"HF_MODELS_KERNELS_DIR": str(tmp_path / "none")}
        case = {"name": "internimage/AutoModelForImageClassification", "class": "AutoModelForImageClassification"}
        case |= {"id": str(published.folders["internimage"]), "kwargs": {}}
        told, outputs = run_client(
            tmp_path / "client", environment, [case], absent=[], present=["hf_models"], kernels=True
        )
        published.check(outputs)
        assert told["kernels"][0].endswith("HF_MODELS_TRUST_KERNELS names no repository of it")
        with pytest.raises(BlockingIOError):
            silent.accept()
