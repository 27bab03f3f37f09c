"""DINO, a detector with a transformer on any backbone (https://arxiv.org/abs/2203.03605).

The layers of the encoder and the decoder are those of Deformable DETR, from transformers. What lies around them is
DINO's own: the encoder's best tokens give the first boxes but not the queries, which are learned; each decoder layer
embeds its boxes anew, and refines them by its output before the norm, while predictions are made after the norm. While
it trains, the decoder also gets queries of the objects that are to be found, see `contrastive_denoising.py`.

Boxes are (centre x, centre y, width, height) as fractions of the valid area, which is the image without its padding,
and are kept in float32: half precision has too few digits to say where a point lies in a large image.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import load_backbone
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrDecoderLayer,
    DeformableDetrEncoderLayer,
    DeformableDetrMultiscaleDeformableAttention,
    DeformableDetrPreTrainedModel,
)

from .boxes import image_sizes
from .configuration_dino_detector import DinoDetectorConfig
from .contrastive_denoising import NoisyObjects, attention_mask, noisy_objects
from .detection_losses import RARE
from .detector_output import DetectorOutput
from .dino_loss import Prediction, dino_losses
from .layers import initialize_linear, starting_with, zero_linear
from .modeling_detector import Detector
from .multi_scale_deformable_attention import MultiScaleDeformableAttention


@dataclass
class DinoDetectorOutput(DetectorOutput):
    """Detections, and the queries that they come from, as `DeformableDetrForObjectDetection` returns them.

    Args:
        logits: (batch_size, num_queries, num_labels), scores of the classes before the sigmoid. Small images have
            fewer queries, as many as there are tokens.
        pred_boxes: (batch_size, num_queries, 4), centre x, centre y, width and height, as fractions of the valid area;
            they may reach beyond it.
    """

    logits: torch.Tensor | None = None
    pred_boxes: torch.Tensor | None = None


class TokenLayout(NamedTuple):
    """Where in the images the tokens of all feature levels lie, L tokens for each image.

    Args:
        levels: Height and width of each level, and where its tokens begin, as the layers of transformers take them.
        valid: (batch_size, L), false where a token lies in the padding.
        valid_ratios: (batch_size, levels, 2), valid share of the width and of the height of each level.
        centres: (batch_size, L, 2), x and y of each token's centre, as fractions of the valid area.
        sides: (L,), side of the box that each token proposes, as a fraction of the valid area.
        position_embeddings: (batch_size, L, d_model).
    """

    levels: dict[str, torch.Tensor | list[tuple[int, int]]]
    valid: torch.Tensor
    valid_ratios: torch.Tensor
    centres: torch.Tensor
    sides: torch.Tensor
    position_embeddings: torch.Tensor


def sine_embedding(positions: torch.Tensor, width: int, temperature: float) -> torch.Tensor:
    """Sines and cosines, in turn, of positions in [0, 1]: (...) -> (..., width)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angles = (2 * math.pi * positions)[..., None] / temperature**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (..., width / 2, 2) -> (..., width)


def inverse_sigmoid(boxes: torch.Tensor) -> torch.Tensor:
    """The logit of numbers in [0, 1], at most that of 0.999 by magnitude."""
    boxes = boxes.clamp(0, 1)
    return (boxes.clamp(min=1e-3) / (1 - boxes).clamp(min=1e-3)).log()


def rows_of(table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows of each image: (batch_size, rows, width) and (batch_size, n) -> (batch_size, n, width)."""
    # `take_along_dim` would fix the sizes of an exported program
    return table.gather(1, indices[..., None].expand(-1, -1, table.shape[2]))


def lay_out(shapes: list[tuple[int, int]], pixel_mask: torch.Tensor, level_embed: torch.Tensor) -> TokenLayout:
    """The layout of the tokens of all levels.

    Args:
        shapes: Height and width of each level.
        pixel_mask: (batch_size, height, width), 1 in the image and 0 in its padding.
        level_embed: (levels, d_model), what tells the levels apart in the position embeddings.
    """
    device, width = pixel_mask.device, level_embed.shape[1] // 2
    valid, valid_ratios, centres, sides, embeddings = [], [], [], [], []
    for level, (rows, columns) in enumerate(shapes):
        # (B, height, width) -> (B, 1, height, width) -> (B, rows, columns)
        mask = F.interpolate(pixel_mask[:, None].float(), size=(rows, columns), mode="nearest")[:, 0].bool()
        valid.append(mask.flatten(1))
        counts = torch.stack((mask[:, 0].sum(1), mask[:, :, 0].sum(1)), dim=-1)  # (B, 2), columns and rows
        valid_ratios.append(torch.stack((counts[:, 0] / columns, counts[:, 1] / rows), dim=-1))
        x, y = (torch.arange(count, dtype=torch.float32, device=device) + 0.5 for count in (columns, rows))
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)  # (rows * columns, 2)
        centres.append(grid / counts[:, None])
        sides.append(torch.full((rows * columns,), 0.05 * 2**level, device=device))
        # what is embedded is not a token's centre but its far edge, which is 1 for the last in the image
        down, across = mask.cumsum(1, dtype=torch.float32), mask.cumsum(2, dtype=torch.float32)
        down, across = down / (down[:, -1:] + 1e-6), across / (across[:, :, -1:] + 1e-6)
        embedding = torch.cat([sine_embedding(edge, width, temperature=20) for edge in (down, across)], dim=-1)
        embeddings.append(embedding.flatten(1, 2) + level_embed[level])  # (B, rows, columns, d) -> (B, tokens, d)
    spatial_shapes = torch.tensor(shapes, device=device)
    starts = F.pad(spatial_shapes.prod(1).cumsum(0)[:-1], (1, 0))
    return TokenLayout(
        levels={"spatial_shapes": spatial_shapes, "spatial_shapes_list": shapes, "level_start_index": starts},
        valid=torch.cat(valid, dim=1),
        valid_ratios=torch.stack(valid_ratios, dim=1),
        centres=torch.cat(centres, dim=1),
        sides=torch.cat(sides),
        position_embeddings=torch.cat(embeddings, dim=1),
    )


class DinoEncoder(nn.Module):
    """Layers of deformable attention from every token to all levels around it."""

    def __init__(self, config: DinoDetectorConfig):
        super().__init__()
        self.layers = nn.ModuleList(DeformableDetrEncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, tokens: torch.Tensor, layout: TokenLayout) -> torch.Tensor:
        """Takes and returns tokens (batch_size, L, d_model)."""
        # (B, L, 1, 2) * (B, 1, levels, 2): a token's centre, as a fraction of each level with its padding
        centres = layout.centres[:, :, None] * layout.valid_ratios[:, None]
        for layer in self.layers:
            tokens = layer(
                tokens,
                layout.valid,
                spatial_position_embeddings=layout.position_embeddings.to(tokens.dtype),
                reference_points=centres,
                **layout.levels,
            )
        return tokens


def rare_classes(width: int, num_labels: int) -> nn.Linear:
    """A linear layer that starts with small weights, and with the bias of rare classes."""
    return starting_with(
        partial(init.normal_, std=0.02), nn.Linear(width, num_labels), partial(init.constant_, val=RARE)
    )


class BoxHead(nn.Sequential):
    """Three linear layers with ReLU between them: a change of a box, before the sigmoid."""

    def __init__(self, width: int):
        super().__init__(nn.Linear(width, width), nn.Linear(width, width), zero_linear(width, 4))

    def forward(self, hidden_states: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Takes states (..., width) and boxes (..., 4) before the sigmoid; returns the changed boxes after it."""
        first, second, last = self
        change = last(F.relu(second(F.relu(first(hidden_states)))))
        return (boxes + change.float()).sigmoid()


class DinoDecoder(nn.Module):
    """Layers of self-attention among the queries, and of deformable attention from each to what its box is around."""

    def __init__(self, config: DinoDetectorConfig):
        super().__init__()
        width = config.d_model
        self.layers = nn.ModuleList(DeformableDetrDecoderLayer(config) for _ in range(config.decoder_layers))
        self.reference_head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        i: int,
        hidden_states: torch.Tensor,
        boxes: torch.Tensor,
        memory: torch.Tensor,
        layout: TokenLayout,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The output of one layer.

        Args:
            i: Index of the layer.
            hidden_states: (batch_size, num_queries, d_model), the queries or the output of the layer before.
            boxes: (batch_size, num_queries, 4), where each query looks.
            memory: (batch_size, L, d_model), the encoder's tokens.
            layout: Their layout.
            mask: (batch_size, 1, num_queries, num_queries), added to the attention among the queries.
        """
        # (B, queries, 1, 4) * (B, 1, levels, 4): the boxes, as fractions of each level with its padding
        references = boxes[:, :, None] * layout.valid_ratios.repeat(1, 1, 2)[:, None]
        return self.layers[i](
            hidden_states,
            self.embed_boxes(references[:, :, 0]),
            references,
            **layout.levels,
            encoder_hidden_states=memory,
            encoder_attention_mask=layout.valid,
            attention_mask=mask,
        )

    def embed_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """Position embeddings (batch_size, num_queries, d_model) of boxes (batch_size, num_queries, 4)."""
        first = self.reference_head[0].weight
        width = first.shape[1] // 4
        y_x_w_h = sine_embedding(boxes[..., [1, 0, 2, 3]], width, temperature=10000).flatten(-2)
        return self.reference_head(y_x_w_h.to(first.dtype))


class DinoDetectorForObjectDetection(Detector, DeformableDetrPreTrainedModel):
    """DINO on any backbone: the authors' test is part of it, up to the best detections, and their loss."""

    config: DinoDetectorConfig
    config_class = DinoDetectorConfig
    base_model_prefix = ""
    _can_compile_fullgraph = True
    _supports_flash_attn = False  # in training, a mask says which queries see which
    _no_split_modules = ["DinoEncoder", "DeformableDetrDecoderLayer", "BoxHead"]
    _keys_to_ignore_on_load_missing = [r"^label_embedding\."]  # of models that were converted before it was kept

    def __init__(self, config: DinoDetectorConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
        self.input_projections = nn.ModuleList(self._projections(self.backbone.channels))
        self.level_embed = nn.Parameter(torch.empty(config.num_feature_levels, config.d_model))
        self.encoder = DinoEncoder(config)
        self.enc_output = nn.Linear(config.d_model, config.d_model)
        self.enc_output_norm = nn.LayerNorm(config.d_model)
        self.query_embed = nn.Embedding(config.num_queries, config.d_model)
        self.label_embedding = nn.Embedding(config.num_labels, config.d_model)  # of known objects
        self.decoder = DinoDecoder(config)
        # one of each for every layer of the decoder, and the last for the encoder's proposals
        heads = config.decoder_layers + 1
        self.class_heads = nn.ModuleList(rare_classes(config.d_model, config.num_labels) for _ in range(heads))
        self.box_heads = nn.ModuleList(BoxHead(config.d_model) for _ in range(heads))
        for attention in self._deformable_attentions():
            attention.attn = MultiScaleDeformableAttention()
        self.post_init()

    def _projections(self, channels: list[int]) -> list[nn.Module]:
        """A 1x1 convolution and a norm for each feature map, and a 3x3 one with stride 2 for each further level."""
        width, groups = self.config.d_model, self.config.group_norm_groups
        further = self.config.num_feature_levels - len(channels)
        if further < 0:
            raise ValueError(
                f"num_feature_levels: the backbone gives {len(channels)} feature maps (out_features of "
                f"backbone_config), which are more than the {self.config.num_feature_levels} levels"
            )
        convs = [nn.Conv2d(inputs, width, kernel_size=1, bias=False) for inputs in channels]
        for inputs in [channels[-1], *[width] * further][:further]:
            convs.append(nn.Conv2d(inputs, width, kernel_size=3, stride=2, padding=1, bias=False))
        return [nn.Sequential(conv, nn.GroupNorm(groups, width)) for conv in convs]

    def _deformable_attentions(self) -> list[DeformableDetrMultiscaleDeformableAttention]:
        return [module for module in self.modules() if isinstance(module, DeformableDetrMultiscaleDeformableAttention)]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As DINO does it; its deformable attention is that of Deformable DETR."""
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            initialize_linear(module, getattr(module, "initialize_weight", init.xavier_uniform_))
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        else:
            super()._init_weights(module)
        if module is self:
            # In code from a repository, modules without parameters of their own are never initialised by themselves.
            for attention in self._deformable_attentions():
                super()._init_weights(attention)

    def find(
        self,
        feature_maps: tuple[torch.Tensor, ...],
        pixel_mask: torch.Tensor,
        labels: list[dict] | None = None,
    ) -> DinoDetectorOutput:
        """See [`Detector`]; with `logits` and `pred_boxes` of all queries."""
        device = pixel_mask.device  # of all that lies between the modules, wherever these are
        levels = [level.to(device) for level in self.project(feature_maps)]
        layout = lay_out([tuple(level.shape[2:]) for level in levels], pixel_mask, self.level_embed)
        # (B, d_model, rows, columns) of each level -> (B, L, d_model)
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        memory = self.encoder(tokens, layout).to(device)
        proposed = self.select(*self.propose(memory, layout))
        boxes = proposed.boxes.detach()  # the encoder learns by its own part of the loss alone
        own = boxes.shape[1]
        queries = self.query_embed(torch.arange(own, device=device))
        queries = queries.expand(pixel_mask.shape[0], -1, -1)  # (queries, d_model) -> (B, queries, d_model)
        noisy = mask = None
        if labels is not None and self.training:
            noisy = noisy_objects(labels, self.config, device)
            queries, boxes, mask = self.add_known(queries, boxes, noisy)
        decoded = self.decode(queries, boxes, memory, layout, mask)
        last = self.config.decoder_layers - 1
        first = last if labels is None else 0  # whose predictions are wanted
        predictions = [self.predict(i, *decoded[i]) for i in range(first, last + 1)]
        logits, boxes = predictions[-1] if noisy is None else predictions[-1].split(own)[0]
        output = DinoDetectorOutput(**self.best(logits, boxes), logits=logits, pred_boxes=boxes)
        if labels is not None:
            sizes = image_sizes(pixel_mask)
            output.loss_dict = dino_losses(proposed, predictions, noisy, labels, sizes, self.config)
        return output

    def project(self, feature_maps: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """The backbone's feature maps as levels of one width, with further levels from the last of them."""
        levels = [
            project(feature_map) for project, feature_map in zip(self.input_projections, feature_maps, strict=False)
        ]
        last = feature_maps[-1]
        for project in self.input_projections[len(levels) :]:
            last = project(last)
            levels.append(last)
        return levels

    def propose(self, memory: torch.Tensor, layout: TokenLayout) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (batch_size, L, d_model) that boxes are proposed by, and a box for each, before the sigmoid.

        Tokens in the padding, and those whose box would lie at the very border or be as large as the image, have no
        features, and their box is at infinity.
        """
        sides = layout.sides[None, :, None].expand_as(layout.centres)
        boxes = torch.cat((layout.centres, sides), dim=-1)  # (B, L, 4)
        proposes = layout.valid[..., None] & ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
        features = self.enc_output_norm(self.enc_output(memory.masked_fill(~proposes, 0)))
        return features.to(boxes.device), boxes.logit().masked_fill(~proposes, math.inf)

    def select(self, features: torch.Tensor, proposals: torch.Tensor) -> Prediction:
        """What the features with the best score in any class predict: `num_queries` of them, or all of fewer."""
        logits = self.class_heads[-1](features).to(proposals.device)  # (B, L, classes)
        best = logits.amax(-1).float().topk(min(self.config.num_queries, logits.shape[1]), dim=1).indices
        boxes = self.box_heads[-1](rows_of(features, best), rows_of(proposals, best)).to(proposals.device)
        return Prediction(rows_of(logits, best), boxes)

    def add_known(
        self, queries: torch.Tensor, boxes: torch.Tensor, noisy: NoisyObjects
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and boxes with those of N known objects after them, and the mask between the two."""
        known = self.label_embedding(noisy.classes).masked_fill(~noisy.known[..., None], 0)
        mask = attention_mask(noisy.group, queries.shape[1], len(queries), queries.dtype)
        return torch.cat((queries, known), dim=1), torch.cat((boxes, noisy.boxes), dim=1), mask

    def refine(self, i: int, states: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (batch_size, num_queries, 4), changed by what a layer's box head makes of states."""
        return self.box_heads[i](states, inverse_sigmoid(boxes)).to(boxes.device)

    def decode(
        self,
        states: torch.Tensor,
        boxes: torch.Tensor,
        memory: torch.Tensor,
        layout: TokenLayout,
        mask: torch.Tensor | None,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Refine queries (batch_size, num_queries, d_model) and boxes (batch_size, num_queries, 4) in turn.

        Returns:
            Of each layer the output, and the boxes that it has looked at, which are still to be changed by it.
        """
        decoded = []
        for i in range(self.config.decoder_layers):
            if i > 0:
                # "look forward twice": what a layer predicts also teaches the layer before, but none further back
                boxes = self.refine(i - 1, states, boxes.detach())
            states = self.decoder(i, states, boxes.detach(), memory, layout, mask)
            decoded.append((states, boxes))
        return decoded

    def predict(self, i: int, states: torch.Tensor, boxes: torch.Tensor) -> Prediction:
        """What a layer predicts, from its output and the boxes that it has looked at."""
        states = self.decoder.norm(states)
        return Prediction(self.class_heads[i](states).to(boxes.device), self.refine(i, states, boxes))

    def best(self, logits: torch.Tensor, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """The best of all pairs of a query and a class, as [`DetectorOutput`] describes them."""
        scores = logits.float().sigmoid().flatten(1)  # (B, queries * classes)
        scores, pairs = scores.topk(min(self.config.max_detections, scores.shape[1]))
        queries, labels = pairs // logits.shape[-1], pairs % logits.shape[-1]
        centres, sizes = rows_of(boxes, queries).split(2, dim=-1)
        edges = torch.cat((centres - sizes / 2, centres + sizes / 2), dim=-1).clamp(0, 1)
        if empty := self.config.max_detections - scores.shape[1]:  # places, of images with few tokens
            scores, labels = F.pad(scores, (0, empty)), F.pad(labels, (0, empty), value=-1)
            edges = F.pad(edges, (0, 0, 0, empty))
        return {"scores": scores, "labels": labels, "boxes": edges}


__all__ = ["DinoDetectorForObjectDetection"]
