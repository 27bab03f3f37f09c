"""Segmentation checkpoints convert completely and compute what the originals computed."""

import copy
import gzip
import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation
from transformers.modeling_outputs import BackboneOutput
from typer.testing import CliRunner

from hf_models import zoo
from hf_models.cli import app
from hf_models.conversion import convert, verify
from hf_models.conversion.matching import REFUSED
from hf_models.conversion.plan import make_plan
from hf_models.conversion.reading.checkpoint import Checkpoint
from hf_models.conversion.reading.source import Source
from hf_models.errors import InputError
from hf_models.segmentation.predict import class_scores

from ..harness.seeded_checkpoint import seeded_array
from ..harness.segmentation_tester import checkpoint, golden, golden_tensors, write_checkpoint

MANIFESTS = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "fixtures/segmentation_manifests.json.gz").read_bytes())
)
NSMX = "mask2former_flash_internimage_s_640_160k_ade20k_ss_nsmx"
KINDS = [
    ("internimage", "upernet", {}),
    ("internimage", "upernet", {"auxiliary": False}),
    ("internimage", "segformer_head", {}),
    ("internimage_h", "mask2former", {}),
    ("flash_internimage", "upernet", {}),
    ("flash_internimage", "mask2former", {}),
    ("replknet", "upernet", {"feature_norms": True}),
    ("replknet", "upernet", {"align_corners": True}),
    ("smt", "upernet", {}),
]


def auto_class(head: str):
    return AutoModelForUniversalSegmentation if head == "mask2former" else AutoModelForSemanticSegmentation


def converted(tmp_path: Path, state: dict, config: dict, **kwargs) -> tuple[Path, dict]:
    source, original = write_checkpoint(tmp_path, state, config)
    return tmp_path / "out", convert(source, tmp_path / "out", original_config=original, progress=False, **kwargs)


# --- names and shapes


def opened(name: str) -> Checkpoint:
    """A checkpoint of which only names and shapes exist."""
    tensors = {
        key: torch.empty(shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else None, device="meta")
        for key, shape in MANIFESTS[name]["tensors"].items()
    }
    return Checkpoint(Source(f"{name}.pth", []), "model", tensors, {}, {}, [])


def test_all_manifests_are_here():
    """37 of InternImage and FlashInternImage, 4 of RepLKNet, 2 of SMT.

    One published checkpoint has no manifest of its own: it differs from another in its data only.
    """
    assert len(MANIFESTS) == 43
    published = {entry["published"] for entry in MANIFESTS.values()} - {None}
    missing = set(zoo.list_models(task="image-segmentation")) - published
    assert missing == {"RepLKNet-31B_22Kpretrain_upernet_160k_ade20k_640"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_checkpoint_maps_exactly_onto_its_model(name, tmp_path):
    entry, source = MANIFESTS[name], opened(name)
    config = copy.deepcopy(entry["config"])
    if name == NSMX:  # refused below
        config["decode_head"]["pixel_decoder"]["encoder"]["transformerlayers"]["attn_cfgs"]["use_softmax"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    source.source.given = "mine.pth"
    plan = make_plan(source, None, tmp_path / "config.json")
    assert plan.key_map.sources == set(entry["tensors"])
    assert plan.key_map.origins.keys() | plan.constants.keys() == plan.expected.keys()
    parameters = sum(t.numel() for key, t in plan.expected.items() if key not in plan.buffers)
    assert parameters == entry["parameters"]
    if entry["published"]:
        # the authors' arguments and the zoo agree, also in what the weights do not show
        published = zoo.find_checkpoint(entry["published"]).config(plan.config.num_labels)
        ours, theirs = (json.loads(c.to_json_string(use_diff=False)) for c in (plan.config, published))
        for key in ("segmentation_recipe", "id2label", "label2id", "auxiliary_in_channels"):
            ours.pop(key, None), theirs.pop(key, None)
        for key in ("drop_path_rate", "reparameterized"):
            ours["backbone_config"].pop(key, None), theirs["backbone_config"].pop(key, None)
        assert ours == theirs


@pytest.mark.parametrize("name", ["upernet_internimage_b_512_160k_ade20k", "upernet_RepLKNet-XL_ade20k"])
def test_a_published_checkpoint_needs_its_name_only(name):
    entry, source = MANIFESTS[name], opened(name)
    plan = make_plan(source, entry["published"], None)
    assert plan.published.name == entry["published"] and plan.config.id2label[0] == "wall"
    assert plan.convertible.title == f"UperNet on {plan.published.family}"


def test_the_weights_decide_the_number_of_classes():
    """The authors' config says 150 for the 19 classes of Cityscapes."""
    source = opened("upernet_internimage_t_512x1024_160k_cityscapes")
    assert make_plan(source, None, None).config.id2label[149] == "unused 149"
    for name, tensor in source.tensors.items():
        if ".conv_seg." in name:
            source.tensors[name] = tensor[:19]
    config = make_plan(source, None, None).config
    assert config.num_labels == 19 and config.id2label[18] == "bicycle"


# --- the goldens


class Stored(nn.Module):
    """A backbone that returns given feature maps."""

    def __init__(self, feature_maps):
        super().__init__()
        self.feature_maps = feature_maps
        self.channels = [feature_map.shape[1] for feature_map in feature_maps]

    def forward(self, pixel_values, **kwargs):
        return BackboneOutput(feature_maps=self.feature_maps)

    forward_with_filtered_kwargs = forward


def golden_model(name: str, weights: dict, tmp_path: Path, head: str):
    """The golden through the converter. Its 8 groups cannot be told transformers, so they are set afterwards."""
    stored = golden(name)
    config = stored["model_cfg"]
    if head == "mask2former":
        config["decode_head"]["pixel_decoder"]["norm_cfg"]["num_groups"] = 32
    source, original = write_checkpoint(tmp_path, weights, config)
    arguments = ["convert", str(source), str(tmp_path / "out"), "--original-config", str(original)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    model = auto_class(head).from_pretrained(tmp_path / "out").eval()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 8
    return model


@pytest.mark.parametrize(("name", "head"), [("upernet_t_like", "upernet"), ("mask2former_h_like", "mask2former")])
def test_golden_head_on_stored_features(name, head, tmp_path):
    stored, expected = golden(name), golden_tensors(name, expected=True)
    backbone = {n: torch.from_numpy(seeded_array(n, tuple(s), d)) for n, (s, d) in stored["backbone"].items()}
    model = golden_model(name, golden_tensors(name) | backbone, tmp_path, head)
    features = Stored(tuple(expected[f"feat{stage}"] for stage in range(1, 5)))
    if head == "mask2former":
        model.model.pixel_level_module.encoder = features
    else:
        model.backbone = features
    size = stored["input_shape"][2:]
    with torch.inference_mode():
        scores = class_scores(model, torch.zeros(stored["input_shape"]))
    wanted = F.interpolate(expected["head_logits"], size=size, mode="bilinear", align_corners=False)
    assert (scores - wanted).abs().max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), [("upernet_t_like", "upernet"), ("mask2former_h_like", "mask2former")])
def test_golden_end_to_end(name, head, tmp_path):
    """With the backbone's own weights; the masks of Mask2Former may flip on noise, hence the median."""
    folder = Path(os.environ.get("HF_MODELS_PARITY", "none")) / "golden"
    if not folder.is_dir():
        pytest.skip("HF_MODELS_PARITY names no folder with golden/")
    tensors = load_file(folder / f"seg_{name}.safetensors")
    weights = {n.removeprefix("weights."): tensor for n, tensor in tensors.items() if n.startswith("weights.")}
    model = golden_model(name, weights, tmp_path, head)
    with torch.inference_mode():
        error = (class_scores(model, tensors["pixel_values"]) - tensors["encode_decode"]).abs()
    assert error.median() <= 1e-5 and (head == "mask2former" or error.max() <= 1e-4)


# --- Mask2Former where masked attention works in every layer


def attention(query, key, value, state: dict, name: str, heads: int, blocked=None) -> torch.Tensor:
    """nn.MultiheadAttention of the original, by hand: (length, width) in and out; `blocked` (queries, keys)."""
    parts = zip(state[f"{name}.in_proj_weight"].chunk(3), state[f"{name}.in_proj_bias"].chunk(3), strict=True)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(1, (heads, -1)).transpose(0, 1)  # (heads, length, width of a head)
        for x, (weight, bias) in zip((query, key, value), parts, strict=True)
    )
    logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    if blocked is not None:
        logits = logits.masked_fill(blocked, float("-inf"))
    merged = (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)
    return F.linear(merged, state[f"{name}.out_proj.weight"], state[f"{name}.out_proj.bias"])


def positions(height: int, width: int, features: int) -> torch.Tensor:
    """Sine positions of the original, normalised to 2 pi: (height * width, 2 * features), y before x."""
    scales = 10000 ** (2 * torch.div(torch.arange(features), 2, rounding_mode="floor") / features)
    parts = []
    for axis, size in ((0, height), (1, width)):
        place = torch.arange(1, size + 1) / (size + 1e-6) * 2 * torch.pi
        angles = place[:, None] / scales
        waves = torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)  # (size, features)
        shape = (size, 1, features) if axis == 0 else (1, size, features)
        parts.append(waves.view(shape).expand(height, width, features))
    return torch.cat(parts, dim=2).flatten(0, 1)


def original_decoder(state: dict, levels, mask_features, heads: int, layers: int):
    """The transformer decoder of the original for one image, written from its names and equations.

    Returns:
        Class logits, mask logits, and the share of keys that each layer's masks block.
    """
    state = {name.removeprefix("decode_head."): tensor for name, tensor in state.items()}

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def predict(query):
        query = norm(query, "transformer_decoder.post_norm")
        embedded = linear(linear(linear(query, "mask_embed.0").relu(), "mask_embed.2").relu(), "mask_embed.4")
        return linear(query, "cls_embed"), torch.einsum("qc,chw->qhw", embedded, mask_features)

    query, place = state["query_feat.weight"], state["query_embed.weight"]
    classes, masks = predict(query)
    shares = []
    for layer in range(layers):
        level = layer % 3
        memory = levels[level].flatten(1).T + state["level_embed.weight"][level]  # (height * width, width)
        keys = memory + positions(*levels[level].shape[1:], memory.shape[1] // 2)
        small = F.interpolate(masks[None], size=levels[level].shape[1:], mode="bilinear", align_corners=False)[0]
        blocked = small.sigmoid().flatten(1) < 0.5
        blocked[blocked.all(dim=1)] = False
        shares.append(blocked.float().mean().item())
        name = f"transformer_decoder.layers.{layer}"
        attended = attention(query + place, keys, memory, state, f"{name}.attentions.0.attn", heads, blocked)
        query = norm(query + attended, f"{name}.norms.0")
        attended = attention(query + place, query + place, query, state, f"{name}.attentions.1.attn", heads)
        query = norm(query + attended, f"{name}.norms.1")
        hidden = linear(query, f"{name}.ffns.0.layers.0.0").relu()
        query = norm(query + linear(hidden, f"{name}.ffns.0.layers.1"), f"{name}.norms.2")
        classes, masks = predict(query)
    return classes, masks, shares


def test_masked_attention_in_every_layer(tmp_path):
    """The converted decoder against the equations of the original, where masks block much in each layer.

    It takes its inputs from transformers' pixel decoder, for which the golden stands.
    """
    state, config = checkpoint("internimage_h", "mask2former", seed=3)
    output, _ = converted(tmp_path, state, config)
    model = AutoModelForUniversalSegmentation.from_pretrained(output).eval()
    decoder_inputs = {}
    model.model.transformer_module.register_forward_pre_hook(
        lambda module, args, kwargs: decoder_inputs.update(kwargs), with_kwargs=True
    )
    torch.manual_seed(0)
    with torch.inference_mode():
        outputs = model(torch.randn(1, 3, 224, 288))
        levels = [feature_map[0] for feature_map in decoder_inputs["multi_scale_features"]]
        assert [tuple(level.shape[1:]) for level in levels] == [(7, 9), (14, 18), (28, 36)]
        inputs = (levels, decoder_inputs["mask_features"][0], 4, 4)
        classes, masks, shares = original_decoder(state, *inputs)
        assert all(0.1 < share < 0.9 for share in shares), shares
        error = (outputs.masks_queries_logits[0] - masks).abs()
        assert (outputs.class_queries_logits[0] - classes).abs().max() < 1e-4
        assert error.max() < 1e-4 * masks.abs().max()

        # the case would notice: queries, keys and values of the self-attention exchanged
        for order in ((1, 0, 2), (0, 2, 1)):
            exchanged = dict(state)
            for name, tensor in state.items():
                if ".attentions.1.attn.in_proj" in name:
                    parts = tensor.chunk(3)
                    exchanged[name] = torch.cat([parts[i] for i in order])
            wrong = original_decoder(exchanged, *inputs)[0]
            assert (wrong - classes).abs().max() > 1e-2


# --- small checkpoints, all the way


@pytest.mark.parametrize(("family", "head", "kwargs"), KINDS)
def test_small_checkpoint(family, head, kwargs, tmp_path):
    """Converted in shards, verified, loaded."""
    state, config = checkpoint(family, head, **kwargs)
    output, report = converted(tmp_path, state, config, max_shard_size="300KB")
    assert len(report["files"]) > 1 and report["dropped"] == {"meta": "not weights (dict)"}
    sources = {source.split(" (part")[0] for source in report["written"].values()}
    assert sources == set(state)
    assert report["computed"] == (["criterion.empty_weight"] if head == "mask2former" else [])
    assert any(note.startswith("preprocessing is assumed: short side 512") for note in report["notes"])
    assert verify(output, source=tmp_path / "original.pth", progress=False)["tensors"] > len(state) - 1

    model, info = auto_class(head).from_pretrained(output, output_loading_info=True)
    assert not any(info.values()) and model.config.architectures == [type(model).__name__]
    assert report["parameters"] == model.num_parameters()
    assert type(model).__name__.startswith("Aligned") == kwargs.get("align_corners", False)
    assert model.config.segmentation_recipe["align_corners"] == kwargs.get("align_corners", False)
    AutoImageProcessor.from_pretrained(output)
    with torch.inference_mode():
        scores = class_scores(model.eval(), torch.randn(1, 3, 64, 96))
    assert scores.shape[2:] == (64, 96) and scores.isfinite().all()
    assert "not one that the authors" in (output / "README.md").read_text()


@pytest.mark.parametrize(
    ("family", "head", "part", "field"),
    [
        ("smt", "segformer_head", "backbone_config", "depths"),
        ("smt", "segformer_head", "backbone_config", "num_modulation_heads"),
        ("internimage", "upernet", None, "auxiliary_num_convs"),
        ("internimage_h", "mask2former", None, "encoder_layers"),
        ("internimage_h", "mask2former", None, "decoder_layers"),
    ],
)
def test_verify_builds_no_model_of_a_million_layers(family, head, part, field, tmp_path):
    state, config = checkpoint(family, head)
    output, _ = converted(tmp_path, state, config)
    content = json.loads((output / "config.json").read_text())
    section = content[part] if part else content
    many = 10**6 if field != "num_modulation_heads" else 9_600  # which divides nothing that is there
    section[field] = [many] * 4 if isinstance(section[field], list) else many
    if field == "num_modulation_heads":
        section["hidden_sizes"] = [many * size for size in (1, 2, 4, 8)]
    (output / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"{field} is .*{many}.*, the files hold \d+ tensors\). Convert it again"):
        verify(output, progress=False)


def test_fused_tensors_are_parted_and_the_unused_layer_is_dropped(tmp_path):
    state, config = checkpoint("internimage_h", "mask2former")
    state["decode_head.conv_seg.weight"] = torch.zeros(11, 32, 1, 1)
    output, report = converted(tmp_path, state, config)
    assert report["dropped"]["decode_head.conv_seg.weight"].endswith("Mask2Former does not use it")
    written = load_file(output / "model.safetensors")
    layer = "model.transformer_module.decoder.layers.2.self_attn"
    source = "decode_head.transformer_decoder.layers.2.attentions.1.attn.in_proj_weight"
    assert report["written"][f"{layer}.k_proj.weight"] == f"{source} (part 2 of 3)"
    parts = [written[f"{layer}.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), state[source])
    assert written["criterion.empty_weight"].tolist() == [1.0] * 11 + [pytest.approx(0.1)]


def test_a_changed_part_is_noticed(tmp_path):
    from safetensors.torch import save_file

    state, config = checkpoint("internimage_h", "mask2former")
    output, _ = converted(tmp_path, state, config)
    path = output / "model.safetensors"
    tensors = load_file(path)
    tensors["model.transformer_module.decoder.layers.0.self_attn.v_proj.weight"][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.safetensors changed since the conversion"):
        verify(output, progress=False)


@pytest.mark.parametrize(("feature_norms", "mean"), [(True, [0.5] * 3), (False, [0.485, 0.456, 0.406])])
def test_images_are_prepared_as_the_backbone_saw_them(tmp_path, feature_norms, mean):
    state, config = checkpoint("replknet", "upernet", feature_norms=feature_norms)  # of RepLKNet-XL, or of the others
    output, report = converted(tmp_path, state, config)
    assert AutoModelForSemanticSegmentation.from_pretrained(output).config.segmentation_recipe["mean"] == mean
    assert json.loads((output / "preprocessor_config.json").read_text())["image_mean"] == mean
    assert any(("image_mean [0.5, 0.5, 0.5]" in note) == feature_norms for note in report["notes"])


def test_sliding_windows_come_from_the_test_config(tmp_path):
    state, config = checkpoint("internimage", "upernet")
    config["test_cfg"] = {"mode": "slide", "crop_size": [64, 64], "stride": [42, 42]}
    output, _ = converted(tmp_path, state, config)
    recipe = AutoModelForSemanticSegmentation.from_pretrained(output).config.segmentation_recipe
    assert recipe["crop_size"] == [64, 64] and recipe["stride"] == [42, 42]


# --- what is refused


@pytest.mark.parametrize(
    ("family", "head", "path", "value", "message"),
    [
        ("internimage", "upernet", "decode_head.norm_cfg.type", "GN", "decode_head.norm_cfg.type='GN' is not supp"),
        ("internimage", "upernet", "decode_head.type", "PSPHead", "decode_head.type='PSPHead' is not supported"),
        ("internimage", "upernet", "decode_head.in_index", [0, 1], r"decode_head.in_index=\[0, 1\] is not supported"),
        ("internimage", "upernet", "auxiliary_head.in_index", 1, "auxiliary_head.in_index=1 is not supported"),
        ("internimage", "upernet", "decode_head.nonsense", 1, "unknown argument decode_head.nonsense"),
        ("internimage", "upernet", "decode_head.channels", "8", "decode_head.channels must be of type int"),
        ("internimage", "upernet", "decode_head.channels", 16, "decode_head.channels is 8 in the weights, 16 in"),
        ("internimage", "upernet", "decode_head.num_classes", 7, "num_classes is 5 in the weights, 7 in"),
        ("internimage", "upernet", "decode_head.pool_scales", [1], "decode_head.pool_scales is 2 in the weights"),
        ("internimage", "upernet", "auxiliary_head", None, "auxiliary_head is true in the weights, false in"),
        ("internimage", "upernet", "decode_head", None, "backbone or decode_head is missing"),
        ("internimage", "upernet", "type", "CascadeEncoderDecoder", "type='CascadeEncoderDecoder' is not supported"),
        ("internimage", "upernet", "backbone.out_indices", [1, 2, 3], r"backbone.out_indices=\[1, 2, 3\] is not"),
        (
            "internimage",
            "upernet",
            "backbone.channels",
            32,
            r"backbone.channels is \[16, 32, 64, 128\] in the weights",
        ),
        ("internimage", "upernet", "test_cfg", 3, "test_cfg=3 is not supported"),
        ("internimage", "upernet", "test_cfg.mode", "crop", "test_cfg=.*'crop'.* is not supported"),
        ("internimage", "segformer_head", "decode_head.align_corners", True, "decode_head.align_corners=True is not"),
        ("internimage", "segformer_head", "decode_head.interpolate_mode", "nearest", "interpolate_mode='nearest'"),
        ("internimage_h", "mask2former", "decode_head.pixel_decoder.norm_cfg.num_groups", 8, "num_groups=8 is not"),
        (
            "internimage_h",
            "mask2former",
            "decode_head.pixel_decoder.encoder.transformerlayers.attn_cfgs.use_softmax",
            False,
            "use_softmax=False is not supported",
        ),
        (
            "internimage_h",
            "mask2former",
            "decode_head.transformer_decoder.transformerlayers.attn_cfgs.num_heads",
            2,
            "num_heads=2 is not supported beside the others, only 4 is",
        ),
        (
            "internimage_h",
            "mask2former",
            "decode_head.transformer_decoder.num_layers",
            3,
            "decoder layers is 4 in the",
        ),
        ("internimage_h", "mask2former", "decode_head.enforce_decoder_input_project", True, "input_project=True is"),
    ],
)
def test_unsupported_settings_are_refused_by_name_and_value(family, head, path, value, message, tmp_path):
    state, config = checkpoint(family, head)
    *parents, leaf = path.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[leaf] = value
    source, original = write_checkpoint(tmp_path, state, config)
    with pytest.raises(InputError, match=message) as caught:
        convert(source, tmp_path / "out", original_config=original, progress=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_deformable_attention_without_softmax_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"_nsmx: cannot be converted: .*use_softmax=False"):
        make_plan(opened(NSMX), None, None)
    renamed = opened(NSMX)
    renamed.source.given = "other.pth"
    with pytest.raises(InputError, match="use_softmax=False"):
        make_plan(renamed, NSMX, None)
    assert list(REFUSED) == [NSMX]


def test_other_heads_are_refused(tmp_path):
    state, config = checkpoint("internimage", "upernet")
    state = {name.replace("decode_head.", "roi_head."): tensor for name, tensor in state.items()}
    source, original = write_checkpoint(tmp_path, state, config)
    with pytest.raises(InputError, match=r"internimage with a head that cannot be converted\. .* UperNet"):
        convert(source, tmp_path / "out", original_config=original, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decode_head.bottleneck.conv.weight"), "1 parameters not filled: decode_head.bottle"),
        (lambda state: state.update({"decode_head.extra": torch.zeros(1)}), "1 checkpoint keys were not used"),
        (lambda state: state.update({"neck.extra": torch.zeros(1)}), "1 checkpoint keys were not used: neck.extra"),
        (
            lambda state: state.update({"decode_head.conv_seg.bias": torch.zeros(3)}),
            r"decode_head.conv_seg.bias is \(3,\), expected \(5,\)",
        ),
    ],
)
def test_every_key_is_used(change, message, tmp_path):
    state, config = checkpoint("internimage", "upernet")
    change(state)
    source, original = write_checkpoint(tmp_path, state, config)
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out", original_config=original, progress=False)


def test_names_of_other_checkpoints_are_refused(tmp_path):
    source = opened("upernet_internimage_t_512_160k_ade20k")
    with pytest.raises(InputError, match=r"looks like UperNet on internimage, not internimage_t_1k_224. Did you mean"):
        make_plan(source, "internimage_t_1k_224", None)
    with pytest.raises(InputError, match=r"looks like upernet_internimage_t.*backbone.channels \[64.*Did you mean"):
        make_plan(source, "upernet_internimage_b_512_160k_ade20k", None)
