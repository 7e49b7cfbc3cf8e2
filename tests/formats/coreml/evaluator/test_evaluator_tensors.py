"""Shapes, slices, gather, scatter, sorting and resizing against coremltools' value inference, numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formats.coreml.evaluator.mil_programs import Case, check, mb, run

from edgekit.errors import ArtifactError, ToolError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
IMAGE = RANDOM.normal(size=(1, 8, 4, 6)).astype(np.float32)
ONE = RANDOM.normal(size=(2, 1, 3, 1)).astype(np.float32)


def _depth_to_space(x, b=2):
    n, c, h, w = x.shape
    return x.reshape(n, b, b, c // 4, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // 4, h * b, w * b)


SHAPES = [
    Case("expand_dims", {"x": X}, {"axes": [0, -1]}),
    Case("squeeze", {"x": ONE}, {"axes": [1]}),
    Case("squeeze", {"x": ONE}, note="all"),
    Case("reshape", {"x": X}, {"shape": [0, -1, 2]}, X.reshape(2, 6, 2), note="zero-keeps"),
    Case("reshape", {"x": X}, {"shape": [1, -1, 0]}, X.reshape(1, 6, 4), ios=17, note="zero-from-the-right"),
    Case("transpose", {"x": X}, {"perm": [2, 0, 1]}),
    Case("reverse", {"x": X}, {"axes": [0, 2]}),
    Case("slice_by_index", {"x": X}, {"begin": [0, -1, 3], "end": [2, 0, 0], "stride": [1, -1, -2],
         "begin_mask": [True, False, False], "end_mask": [False, True, True]}, X[:2, -1::-1, 3::-2], note="negative"),
    Case("slice_by_index", {"x": X}, {"begin": [1, 0, -2], "end": [0, 3, 0], "end_mask": [False, False, True],
         "squeeze_mask": [True, False, False]}, X[1, 0:3, -2:], note="squeeze"),
    Case("slice_by_size", {"x": X}, {"begin": [0, 1, 1], "size": [2, -1, 2]}, X[:, 1:, 1:3]),
    Case("sliding_windows", {"x": X}, {"axis": 2, "size": 2, "stride": 2},
         lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 2)[:, :, ::2]),
    Case("depth_to_space", {"x": IMAGE}, {"block_size": 2}, _depth_to_space),
    Case("space_to_depth", {"x": _depth_to_space(IMAGE)}, {"block_size": 2}, IMAGE),
    Case("pixel_shuffle", {"x": IMAGE}, {"upscale_factor": 2}, lambda x: F.pixel_shuffle(torch.from_numpy(x), 2)),
    Case("pixel_unshuffle", {"x": IMAGE}, {"downscale_factor": np.uint32(2)},
         lambda x: F.pixel_unshuffle(torch.from_numpy(x), 2), ios=16),
    Case("flatten2d", {"x": X}, {"axis": -1}, X.reshape(6, 4)),
    Case("concat", {"values": (X, X[:, :1])}, {"axis": 1}, lambda values: np.concatenate(values, 1)),
    Case("concat", {"values": (X, -X)}, {"axis": -1, "interleave": True}, np.stack([X, -X], 3).reshape(2, 3, 8),
         note="interleave"),
    Case("stack", {"values": (X, -X)}, {"axis": 1}, lambda values: np.stack(values, 1)),
    Case("split", {"x": X}, {"split_sizes": [1, 3], "axis": -1}, (X[..., :1], X[..., 1:])),
    Case("split", {"x": X}, {"num_splits": 2, "axis": 2}, (X[..., :2], X[..., 2:]), note="equal"),
    *(Case("pad", {"x": X}, {"pad": [1, 2, 0, 3], "mode": mode}, np.pad(X, [(0, 0), (1, 2), (0, 3)], numpy_mode),
           note=mode)
      for mode, numpy_mode in (("reflect", "reflect"), ("replicate", "edge"))),
    Case("pad", {"x": X}, {"pad": [1, 0], "constant_val": -3.0},
         np.pad(X, [(0, 0), (0, 0), (1, 0)], constant_values=-3)),
    Case("tile", {"x": X}, {"reps": [1, 2, 3]}),
    Case("reverse_sequence", {"x": X, "lengths": np.int32([1, 3])}, {"seq_axis": 1, "batch_axis": 0},
         np.stack([X[0], X[1, ::-1]])),
    Case("band_part", {"x": X}, {"lower": 1, "upper": 0}),
    Case("cumsum", {"x": X}, {"axis": 1}, X.cumsum(1)),
    Case("cumsum", {"x": X}, {"axis": 1, "exclusive": True, "reverse": True}, note="exclusive-reverse",
         expected=lambda x: x[:, ::-1].cumsum(1)[:, ::-1] - x),
    Case("one_hot", {"indices": np.int32([0, 2, -1])}, {"one_hot_vector_size": 3, "axis": 0, "on_value": 5.0,
         "off_value": 1.0}, np.float32([[5, 1, 1], [1, 1, 1], [1, 5, 1]]), note="axis"),
    Case("fill_like", {"ref_tensor": X}, {"value": 2.5}, np.full_like(X, 2.5), ios=16),
    Case("non_zero", {"x": np.float32([[0, 2], [3, 0]])}, expected=np.int32([[0, 1], [1, 0]])),
    Case("shape", {"x": X}, expected=np.int32([2, 3, 4])),
    Case("range_1d", {"start": np.float32(1), "end": np.float32(3), "step": np.float32(0.75)},
         expected=np.float32([1, 1.75, 2.5])),
    Case("topk", {"x": np.float32([[1, 3, 3, 2]])}, {"k": 3, "axis": 1},
         (np.float32([[3, 3, 2]]), np.int32([[1, 2, 3]]))),
    Case("topk", {"x": X}, {"k": 2, "axis": 1, "ascending": True},
         lambda x: (np.sort(x, 1)[:, :2], np.argsort(x, 1, kind="stable")[:, :2]), note="least"),
    Case("argsort", {"x": X}, {"axis": 1, "ascending": True}, np.argsort(X, 1, kind="stable")),
    Case("space_to_batch", {"x": IMAGE}, {"block_shape": [2, 3], "paddings": [[1, 1], [0, 0]]},
         np.concatenate([np.pad(IMAGE, [(0, 0), (0, 0), (1, 1), (0, 0)])[:, :, i::2, j::3]
                         for i in (0, 1) for j in range(3)])),
    Case("reshape_like", {"x": X, "ref_tensors": (np.zeros((2, 5), np.float32), np.zeros((4, 12), np.float32))},
         {"begins": [0, 1], "ends": [1, 0], "end_masks": [False, True]}, X.reshape(2, 12), ios=16),
    Case("slice_update", {"x": X, "update": np.zeros((1, 2, 4), np.float32)}, {"begin": [1, 0, 0], "end": [2, 3, 4],
         "stride": [1, 2, 1]}, np.concatenate([X[:1], X[1:] * np.float32([0, 1, 0])[:, None]]), ios=18),
]  # fmt: skip
DATA = RANDOM.normal(size=(4, 3)).astype(np.float32)
AT = np.int32([2, 0, 2])
UPDATES = RANDOM.normal(size=(3, 3)).astype(np.float32)


def _scattered(ufunc):
    def reference(data, indices, updates):
        result = data.copy()
        ufunc.at(result, indices, updates)
        return result

    return reference


GATHERS = [
    Case("gather", {"x": X, "indices": np.int32([[2, 0], [-1, 1]])}, {"axis": 1}, X[:, [[2, 0], [-1, 1]]]),
    Case("gather", {"x": X, "indices": np.int32([[2, 0], [1, 1]])}, {"axis": 1, "batch_dims": 1}, ios=16, note="batch",
         expected=np.stack([X[0, [2, 0]], X[1, [1, 1]]])),
    Case("gather_along_axis", {"x": X, "indices": np.int32([[[0, 1, 2, -1]], [[2, 2, 1, 0]]])}, {"axis": 1},
         lambda x, indices: np.take_along_axis(x, indices, 1)),
    Case("gather_nd", {"x": X, "indices": np.int32([[1, 2], [0, -1]])}, expected=X[[1, 0], [2, -1]]),
    Case("gather_nd", {"x": X, "indices": np.int32([[[2, 0]], [[1, 3]]])}, {"batch_dims": 1}, ios=16, note="batch",
         expected=np.float32([[X[0, 2, 0]], [X[1, 1, 3]]])),
    *(Case("scatter", {"data": DATA, "indices": AT, "updates": UPDATES}, {"mode": mode}, _scattered(ufunc), note=mode)
      for mode, ufunc in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide),
                          ("max", np.maximum), ("min", np.minimum))),
    Case("scatter", {"data": DATA, "indices": np.int32([2, 0]), "updates": DATA[:, 1:]}, {"mode": "update", "axis": 1},
         np.stack([DATA[:, 2], DATA[:, 1], DATA[:, 1]], 1), note="update-axis"),
    Case("scatter_along_axis", {"data": DATA, "indices": np.int32([[0, 3, 3]]), "updates": UPDATES[:1]},
         {"axis": 0, "mode": "add"}, note="add",
         expected=lambda data, indices, updates: torch.from_numpy(data).scatter_add(
             0, torch.from_numpy(indices).long(), torch.from_numpy(updates))),
    Case("scatter_nd", {"data": DATA, "indices": np.int32([[1, 2], [1, 2]]), "updates": np.float32([1, 2])},
         expected=lambda data, indices, updates: data + 3 * (np.arange(12).reshape(4, 3) == 5)),
]  # fmt: skip


def _sampled(points):
    def reference(x):
        rows = [np.interp(points, np.arange(x.shape[-1]), row) for row in x.reshape(-1, x.shape[-1])]
        return np.array(rows, np.float32).reshape(*x.shape[:-1], len(points))

    return reference


TWO = np.float32([[[[0.0, 1.0]]]])
SMALL = IMAGE[:, :2]
TORCH_PADDING = {"constant": "zeros", "symmetric": "reflection"}
RESIZES = [
    *(Case("resize_bilinear", {"x": TWO}, {"target_size_height": 1, "target_size_width": 5, "sampling_mode": mode},
           np.float32(points).reshape(1, 1, 1, 5), note=mode, atol=5e-3)
      for mode, points in (  # the grid points that the opset's page lists
          ("UNALIGN_CORNERS", [0, 0.1, 0.5, 0.9, 1]), ("STRICT_ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
          ("ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]), ("DEFAULT", [0, 0.4, 0.8, 1, 1]),
          ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]))),
    *(Case("resize_bilinear", {"x": SMALL}, {"target_size_height": 7, "target_size_width": 3, "sampling_mode": mode},
           lambda x, aligned=aligned: F.interpolate(
               torch.from_numpy(x), (7, 3), mode="bilinear", align_corners=aligned),
           note=f"torch-{aligned}")
      for mode, aligned in (("STRICT_ALIGN_CORNERS", True), ("UNALIGN_CORNERS", False))),
    *(Case("upsample_bilinear", {"x": SMALL}, {"scale_factor_height": 2, "scale_factor_width": 3,
           "align_corners": aligned},
           lambda x, aligned=aligned: F.interpolate(
               torch.from_numpy(x), scale_factor=(2, 3), mode="bilinear", align_corners=aligned),
           note=f"{aligned}") for aligned in (True, False)),
    Case("upsample_bilinear", {"x": TWO}, {"scale_factor_height": 1, "scale_factor_width": 3, "align_corners": False,
         "half_pixel_centers": False}, _sampled(np.arange(6) / 3), ios=16, note="asymmetric"),
    Case("resize_nearest_neighbor", {"x": SMALL}, {"target_size_height": 7, "target_size_width": 4},
         lambda x: F.interpolate(torch.from_numpy(x), (7, 4))),
    Case("upsample_nearest_neighbor", {"x": SMALL}, {"scale_factor_height": 2.0, "scale_factor_width": 1.5},
         lambda x: F.interpolate(torch.from_numpy(x), scale_factor=(2, 1.5))),
    Case("resize", {"x": SMALL}, {"shape": np.int32([1, 0, 9]), "resized_dims": np.uint32(2),
         "interpolation_mode": "LINEAR",
         "sampling_mode": "STRICT_ALIGN_CORNERS"}, _sampled(np.linspace(0, 5, 9)), ios=17),
    Case("resize", {"x": np.float32([[[[-6.0], [9.0]]]])}, {"shape": np.int32([1, 1, 3, 2]),
         "resized_dims": np.uint32(2),
         "interpolation_mode": "NEAREST_NEIGHBOR", "sampling_mode": "DEFAULT"}, ios=17, note="nearest",
         expected=np.float32([[[[-6, -6], [9, 9], [9, 9]]]])),
    Case("crop", {"x": SMALL}, {"crop_height": [1, 1], "crop_width": [0, 2]}, SMALL[:, :, 1:3, :4]),
    Case("upsample_nearest_neighbor", {"x": np.float32([[[[1.5, -2.5, 3.5]]]])}, {"scale_factor_height": 2.0,
         "scale_factor_width": 1.12}, np.float32([[[[1.5, -2.5, 3.5]] * 2]]), note="rounded-size"),
    *(Case("resample", {"x": SMALL, "coordinates": RANDOM.uniform(-1.4, 1.4, (1, 3, 5, 2)).astype(np.float32)},
           {"sampling_mode": "bilinear", "padding_mode": kind, "padding_value": 0.0,
            "coordinates_mode": "normalized_minus_one_to_one", "align_corners": aligned},
           lambda x, coordinates, kind=kind, aligned=aligned: F.grid_sample(
               torch.from_numpy(x), torch.from_numpy(coordinates), padding_mode=TORCH_PADDING.get(kind, kind),
               align_corners=aligned), note=f"{kind}-{aligned}")
      for kind, aligned in (("constant", True), ("constant", False), ("border", True), ("reflection", True),
                            ("symmetric", False))),
    Case("affine", {"x": SMALL}, {"transform_matrix": np.float32([[0.8, 0.1, 0.2, -0.1, 1.1, 0]]), "output_height": 3,
         "output_width": 5, "sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": 0.0,
         "coordinates_mode": "normalized_minus_one_to_one", "align_corners": True},
         lambda x: F.grid_sample(torch.from_numpy(x), F.affine_grid(torch.tensor([[[0.8, 0.1, 0.2], [-0.1, 1.1, 0]]]),
                                 (1, 2, 3, 5), align_corners=True), align_corners=True)),
    Case("crop_resize", {"x": SMALL}, {"roi": np.float32([0, 1, 2, 3, 5]).reshape(1, 1, 5, 1, 1), "target_height": 3,
         "target_width": 4, "sampling_mode": "ALIGN_CORNERS"}, SMALL[None, :, :, 1:4, 2:6]),
    Case("crop_resize", {"x": SMALL, "boxes": np.float32([[-1, 0, 1, 5]])}, {"target_height": 3, "target_width": 6,
         "sampling_mode": "ALIGN_CORNERS", "pad_value": 9.0}, ios=17, note="outside",
         expected=lambda x, boxes: np.concatenate([np.full_like(x[:, :, :1], 9), x[:, :, :2]], 2)),
]  # fmt: skip


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_shaping_operation_gives_the_reference(case: Case) -> None:
    check(case, SHAPES)


@pytest.mark.parametrize("case", GATHERS, ids=str)
def test_gather_or_scatter_gives_the_reference(case: Case) -> None:
    check(case, GATHERS)


@pytest.mark.parametrize("case", RESIZES, ids=str)
def test_resize_gives_the_reference(case: Case) -> None:
    check(case, RESIZES)


def test_batch_to_space_undoes_space_to_batch() -> None:
    def build(x):
        parts = mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [0, 3]])
        return mb.batch_to_space(x=parts, block_shape=[2, 3], crops=[[1, 1], [0, 3]])

    np.testing.assert_array_equal(run(build, {"x": IMAGE})[0], IMAGE)


def test_shapes_computed_at_run_time_are_followed() -> None:
    def build(x):
        sizes = mb.shape(x=x)
        rows = mb.gather(x=sizes, indices=0, axis=0)
        return mb.reshape(x=mb.fill(shape=sizes, value=2.0), shape=mb.stack(values=[rows, np.int32(-1)], axis=0))

    np.testing.assert_array_equal(run(build, {"x": X})[0], np.full((2, 12), 2.0))


@pytest.mark.parametrize("index", [-1, 3])
def test_index_that_core_ml_leaves_open_is_refused_from_ios17_on(index: int) -> None:
    with pytest.raises((ArtifactError, ToolError), match=r"gather.*indices from 0 to 2"):
        run(lambda x, i: mb.gather(x=x, indices=i, axis=1), {"x": X, "i": np.int32([index])}, ios=17)


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.float32([[[1, 1, 2, 2], [1.1, 1, 2, 2], [5, 5, 2, 2], [9, 9, 1, 1]]])
    scores = np.float32([[[0.8, 0.1], [0.9, 0.2], [0.3, 0.7], [0.05, 0.01]]])

    def build(boxes, scores):
        return mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=0.5, score_threshold=0.1, max_boxes=3
        )

    kept, rated, places, counts = run(build, {"boxes": boxes, "scores": scores})
    np.testing.assert_array_equal(places, [[1, 2, -1]])
    np.testing.assert_array_equal(kept[0, :2], boxes[0, [1, 2]])
    np.testing.assert_array_equal(rated[0, :2], scores[0, [1, 2]])
    assert not rated[0, 2].any()
    np.testing.assert_array_equal(counts, [2])
