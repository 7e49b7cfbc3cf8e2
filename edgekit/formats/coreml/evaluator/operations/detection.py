"""Non-maximum suppression (``iOS15/tensor_operation.py``, ``iOS17/tensor_operation.py``)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation

_BOXES_LAST = 17


@operation("non_maximum_suppression")
def non_maximum_suppression(call: Call) -> tuple[Tensor, ...]:
    """``iOS15.non_maximum_suppression``, ``iOS17.non_maximum_suppression``.

    Boxes are ``(x, y, width, height)`` of their centres. In falling order of the best class score, a box is dropped
    when its intersection over union with a box kept before is greater than ``iou_threshold``; with
    ``per_class_suppression`` only boxes of the same best class drop each other. What is missing to ``max_boxes`` is
    zero, its index -1. From iOS17 on boxes are in the last dimension, there is no score threshold and no count.
    """
    boxes, scores = call.tensor("boxes"), call.tensor("scores")
    boxes_last = call.opset >= _BOXES_LAST and not call.has("score_threshold")
    if boxes_last:
        boxes, scores = boxes.transpose(1, 2), scores.transpose(1, 2)
    least = -torch.inf if boxes_last else call.number("score_threshold")
    per_class = call.flag("per_class_suppression")
    count, limit = call.integer("max_boxes"), call.number("iou_threshold")
    found = [_keep(boxes[i], scores[i], limit, least, count, per_class) for i in range(boxes.shape[0])]
    kept = [_padded(boxes[i], scores[i], places, count) for i, places in enumerate(found)]
    picked, rated, indices = (torch.stack(column) for column in zip(*kept, strict=True))
    if boxes_last:
        return picked.transpose(1, 2), rated.transpose(1, 2), indices
    return picked, rated, indices, torch.tensor([len(places) for places in found])


def _keep(boxes: Tensor, scores: Tensor, limit: float, least: float, count: int, per_class: bool) -> list[int]:
    """Places of the boxes that stay, best first."""
    best, classes = scores.max(1)
    kept: list[int] = []
    for place in torch.argsort(best, descending=True, stable=True).tolist():
        if best[place] < least or len(kept) == count:
            break
        rivals = [other for other in kept if not per_class or classes[other] == classes[place]]
        if not rivals or float(_overlap(boxes[place], boxes[rivals]).max()) <= limit:
            kept.append(place)
    return kept


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box with several."""
    low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
    lows, highs = others[:, :2] - others[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2
    common = (torch.minimum(high, highs) - torch.maximum(low, lows)).clamp(min=0).prod(1)
    union = box[2] * box[3] + others[:, 2] * others[:, 3] - common
    return torch.where(union > 0, common / union, torch.zeros_like(union))


def _padded(boxes: Tensor, scores: Tensor, places: list[int], count: int) -> tuple[Tensor, Tensor, Tensor]:
    missing = count - len(places)
    picked = torch.cat([boxes[places], boxes.new_zeros(missing, boxes.shape[1])])
    rated = torch.cat([scores[places], scores.new_zeros(missing, scores.shape[1])])
    return picked, rated, torch.tensor(places + [-1] * missing)
