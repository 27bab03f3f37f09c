"""Publishing a model folder: weights, configs, card, and the code that loads it without this package."""

import json
import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel

from hf_models.errors import InputError, reason
from hf_models.inference.files import read_json
from hf_models.inference.tasks import model_class_of
from hf_models.model_cards import render_card
from hf_models.remote_code import auto_map_of, code_files, stock_classes

from ..report import REPORT
from ..verify import verify
from ..writing.expected import cast_floating, saved_tensors
from ..writing.shards import INDEX, WEIGHTS, check_shards, check_values, read_shards, stored_dtype
from .repository import Content, Repository, check_repo_id, hub_errors

CARD = "README.md"
PROCESSOR = "preprocessor_config.json"
OUR_PROCESSORS = {  # class -> file
    "ImageNetImageProcessor": "image_processing_imagenet",
    "SemanticMask2FormerImageProcessor": "image_processing_mask2former",
    "DetectionImageProcessor": "image_processing_detection",
}
FOLDER = "path/to/this/folder"  # what the examples of a card load
PIN = re.compile(r'revision="([0-9a-f]{40})"')


def push_model(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
    api: HfApi | None = None,
) -> dict:
    """Publish a model folder, converted or fine-tuned, in one commit; a second one pins the card's examples to it.

    A push that was interrupted is run again; one that changes nothing makes no commit.

    Args:
        folder: What `convert` or `save_pretrained` wrote.
        repo_id: `ORG/NAME` on the Hub, made if need be.
        private: Make it private.
        revision: Branch, made if need be; `"main"` by default.
        dry_run: Check the folder and touch nothing.
        progress: Show progress bars, on a terminal.
        api: The client; by default that of the environment.

    Returns:
        `{"repo": str, "commit": str | None, "files": {path: bytes}, "changed": [path]}`; `commit` is the one that the
        card names.

    Raises:
        InputError: The folder is not in order, or the Hub refuses. Nothing was published, or all of it.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    content, card = folder_content(folder, progress)
    sizes = {path: len(data) if isinstance(data, bytes) else data.stat().st_size for path, data in content.items()}
    result = {"repo": repo_id, "commit": None, "files": sizes | {CARD: len(card.encode())}, "changed": []}
    if dry_run:
        return result
    with hub_errors(repo_id):
        repository = Repository(api or HfApi(), repo_id, branch=revision or "main")
        repository.create(private)
        head = repository.head()
        changes = repository.changes(content, head, _is_weights)
        if changes:
            unpinned = repository.changes({CARD: card_for(card, repo_id).encode()}, head)
            head = pin = repository.commit(changes + unpinned, "Publish", head)
            result["changed"] = [change.path_in_repo for change in changes]
        else:
            known = PIN.search(repository.text(CARD, head))
            pin = known[1] if known else head
        # a commit cannot name itself: the card's examples get theirs in a second one
        if changes := repository.changes({CARD: card_for(card, repo_id, pin).encode()}, head):
            repository.commit(changes, f"Pin the card to {pin[:7]}", head)
            result["changed"].append(CARD)
    return result | {"commit": pin}


def folder_content(folder: Path, progress: bool) -> tuple[Content, str]:
    """What is published of a folder, after it was checked, and its card. Other files in it stay where they are.

    Raises:
        InputError: The folder is not in order.
    """
    config = _checked_config(folder, progress)
    stored, processor = read_json(folder / "config.json"), read_json(folder / PROCESSOR)
    auto_map = auto_map_of(config)
    code = {path.name: path.read_bytes() for path in code_files(auto_map)}
    if (name := processor.get("image_processor_type")) in OUR_PROCESSORS:
        processor["auto_map"] = {"AutoImageProcessor": f"{OUR_PROCESSORS[name]}.{name}"}
        code |= {path.name: path.read_bytes() for path in code_files(processor["auto_map"])}
    weights = [folder / file for file in read_shards(folder)]
    index = [] if folder / WEIGHTS in weights else [INDEX]  # beside whole weights it is a rest
    others = [folder / name for name in (*index, REPORT) if (folder / name).is_file()]
    content = {
        **{path.relative_to(folder).as_posix(): path for path in weights + others},
        "config.json": _json(stored | {"auto_map": auto_map}),
        PROCESSOR: _json(processor),
        **code,
    }
    card = folder / CARD
    return content, card.read_text(encoding="utf-8") if card.is_file() else render_card(None, config)


def card_for(card: str, repo_id: str, commit: str | None = None) -> str:
    """A card whose examples load the repository, at a commit, instead of the folder."""
    pinned = f'"{repo_id}", revision="{commit}"' if commit else f'"{repo_id}"'
    for call in ('from_pretrained("{}"', 'model="{}"'):
        card = card.replace(call.format(FOLDER), call.replace('"{}"', pinned))
    return card.replace(FOLDER, repo_id)


def _checked_config(folder: Path, progress: bool) -> PreTrainedConfig:
    """The config of a folder whose weights are complete, finite and, for a converted one, what the report says."""
    if (folder / REPORT).is_file():
        verify(folder, progress=progress)
    read_json(folder / "config.json")  # for its plain words on what is wrong with the file
    try:
        config = AutoConfig.from_pretrained(folder)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: config.json is not that of a model here ({reason(error)}).") from error
    if not all(auto_map_of(part) for part in (config, getattr(config, "backbone_config", config))):
        raise InputError(f"{folder}: model_type {config.model_type!r} is none of this package's.")
    if not (folder / REPORT).is_file():
        shards = read_shards(folder)
        expected = saved_tensors(_model_class(folder, config), config)
        check_shards(folder, shards, cast_floating(expected, stored_dtype(folder, shards)))
        check_values(folder, shards, progress)
    return config


def _model_class(folder: Path, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that a folder's weights are of: the one with a head, or another one that loads its config."""
    classes = stock_classes(config) | {"AutoBackbone": AutoBackbone._model_mapping.get(type(config), None)}
    named = {model_class.__name__: model_class for model_class in classes.values() if model_class}
    architecture = (config.architectures or [getattr(model_class_of(config), "__name__", "")])[0].removeprefix("Hub")
    if architecture not in named:
        raise InputError(f"{folder}: architectures is {config.architectures}, expected one of {', '.join(named)}.")
    return named[architecture]


def _is_weights(path: str) -> bool:
    return path.endswith((".safetensors", ".safetensors.index.json"))


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()  # as transformers writes it
