"""Run by torchrun: a step of training small models as accelerate divides them by FSDP2, beside a step of one process.

    torchrun --nproc-per-node 2 sharded_training.py FOLDER NAME ...

Where a NAME ends in `+checkpointing`, accelerate has layers computed again. FOLDER gets the trained models, and a file
`report.json` with what is known of each.
"""

import copy
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import FSDPModule

sys.path.insert(0, str(Path(__file__).parents[2]))
from transformers import AutoConfig, AutoModelForObjectDetection, PreTrainedModel

from hf_models import register
from hf_models.layers import DropPath
from tests.harness.hub_tester import SEGMENTERS, TINY, tiny_model

IMAGES = 4
ALL = 10**6  # anchors and regions are learned from: none are drawn
DETECTORS = {
    "backbone_rcnn": {
        **{"fpn_channels": 16, "box_hidden_size": 16, "with_masks": False, "rpn_samples": ALL, "box_samples": ALL},
        **{"rpn_train_pre_nms": 50, "rpn_train_post_nms": 30},
    },
    "dino_detector": {
        **{"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 2},
        **{"num_queries": 20, "max_detections": 20, "group_norm_groups": 4, "num_denoising": 0},
    },
}


def small_model(name: str) -> PreTrainedModel:
    """A model of any kind with random weights."""
    if name not in DETECTORS:
        return tiny_model(name)
    torch.manual_seed(0)
    backbone = AutoConfig.for_model("internimage", **TINY["internimage"])
    backbone.out_features = backbone.stage_names[2 if name == "dino_detector" else 1 :]
    config = AutoConfig.for_model(name, backbone_config=backbone, num_labels=5, **DETECTORS[name])
    return AutoModelForObjectDetection.from_config(config)


def labels_of(name: str) -> torch.Tensor | list[dict[str, torch.Tensor]]:
    """What is to be learned of the images."""
    if name in DETECTORS:
        boxes = torch.tensor([[0.5, 0.5, 0.4, 0.5], [0.3, 0.3, 0.2, 0.2]])
        return [{"class_labels": torch.tensor([i, 1]), "boxes": boxes + 0.02 * i} for i in range(IMAGES)]
    labels = torch.randint(0, 5, (IMAGES, 64, 64))
    return labels if name in SEGMENTERS else labels[:, 0, 0]


def still(model: nn.Module) -> nn.Module:
    """The model in training mode, without what is random or depends on the other images."""
    for module in model.train().modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
        elif isinstance(module, (nn.BatchNorm2d, nn.Dropout2d)):
            module.eval()
    return model


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, pixel_values: torch.Tensor, labels: torch.Tensor | list
) -> float:
    loss = model(pixel_values, labels=labels).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def divided(accelerator: Accelerator, checkpointing: bool) -> None:
    """Bring the accelerator to where `accelerate launch` with FSDP2 does on GPUs; on a CPU it would choose DDP."""
    for state in (accelerator.state, PartialState()):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
        activation_checkpointing=checkpointing,
    )


def train(accelerator: Accelerator, name: str, checkpointing: bool, folder: Path) -> dict[str, float]:
    model = still(small_model(name))
    alone = copy.deepcopy(model)
    images, labels = torch.randn(IMAGES, 3, 64, 64), labels_of(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    loss = step(alone, torch.optim.SGD(alone.parameters(), lr=0.1), images, labels)

    divided(accelerator, checkpointing)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    losses = accelerator.gather(torch.tensor(step(model, optimizer, images[share], labels[share])))
    weights = accelerator.get_state_dict(model)
    held = sum(parameter.to_local().nbytes for parameter in model.parameters())
    units = sum(isinstance(module, FSDPModule) for module in model.modules())
    accelerator.unwrap_model(model).save_pretrained(
        folder, state_dict=weights, is_main_process=accelerator.is_main_process
    )
    accelerator.clear()
    if not accelerator.is_main_process:
        return {}
    moved = max((tensor - before[key]).abs().max().item() for key, tensor in alone.state_dict().items())
    apart = max((tensor - weights[key]).abs().max().item() for key, tensor in alone.state_dict().items())
    return {
        "loss": loss,
        "mean_loss": losses.mean().item(),
        "moved": moved,
        "apart": apart,
        "held": held,
        "units": units,
    }


def main(folder: str, *names: str) -> None:
    register()
    accelerator, report = Accelerator(cpu=True), {}
    for name in names:
        family, _, checkpointing = name.partition("+")
        report[name] = train(accelerator, family, bool(checkpointing), Path(folder) / name)
    if accelerator.is_main_process:
        (Path(folder) / "report.json").write_text(json.dumps(report))
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
