"""Trainer's loss does not depend on how many batches a step is made of."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_models.configuration_aligned_upernet import AlignedUperNetConfig
from hf_models.configuration_segformer_head import SegformerHeadConfig
from hf_models.configuration_smt import SMTConfig
from hf_models.modeling_aligned_upernet import AlignedUperNetForSemanticSegmentation
from hf_models.modeling_segformer_head import SegformerHeadForSemanticSegmentation
from hf_models.modeling_smt import SMTForImageClassification

pytest.importorskip("accelerate")
SMALL = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8]}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
HEAD = {"num_labels": 5, "hidden_size": 16}


def classifier():
    return SMTForImageClassification(SMTConfig(**SMALL, num_labels=5))


def segformer_head():
    return SegformerHeadForSemanticSegmentation(
        SegformerHeadConfig(backbone_config=SMTConfig(**SMALL, **STAGES), **HEAD)
    )


def aligned_upernet():
    config = AlignedUperNetConfig(
        backbone_config=SMTConfig(**SMALL, **STAGES), **HEAD, use_auxiliary_head=False, pool_scales=[1]
    )
    return AlignedUperNetForSemanticSegmentation(config)


@pytest.mark.parametrize("build", [classifier, segformer_head, aligned_upernet])
def test_two_batches_of_two_are_one_of_four(build, tmp_path):
    torch.manual_seed(0)
    model = build().double().train()
    for module in model.modules():  # norms of a batch would see the other batch
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout):
            module.eval()
            module.train = lambda mode=True, module=module: module
    labels = torch.arange(4) if build is classifier else torch.randint(0, 5, (4, 64, 64))
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    losses = []
    for steps in (1, 2):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / str(steps)),
            per_device_train_batch_size=4 // steps,
            gradient_accumulation_steps=steps,
            max_steps=1,
            learning_rate=0.0,
            report_to="none",
            use_cpu=True,
        )
        losses.append(Trainer(model=model, args=arguments, train_dataset=rows).train().training_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
