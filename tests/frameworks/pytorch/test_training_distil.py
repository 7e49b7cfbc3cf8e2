"""Distillation: the loss by hand, and a student that learns from its teacher alone."""

from __future__ import annotations

import math

import pytest
import tiny_training as tiny
import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.frameworks.pytorch.distil import Distiller, distillation_loss
from edgekit.frameworks.pytorch.loop import run_epochs
from edgekit.recipe.schema import DistilRule


def test_loss_is_what_a_hand_computes() -> None:
    student, teacher, temperature = [2.0, 0.0], [0.0, 4.0], 2.0
    p = [1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)]  # softmax of the teacher's [0, 2]
    q = [math.e / (1 + math.e), 1 / (1 + math.e)]  # softmax of the student's [1, 0]
    by_hand = temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = distillation_loss(torch.tensor([student]), torch.tensor([teacher]), temperature)
    assert float(found) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_does_not_vanish_when_the_temperature_is_high(temperature: float) -> None:
    student = torch.tensor([[1.0, -1.0, 0.5]], requires_grad=True)
    distillation_loss(student, torch.tensor([[-1.0, 1.0, 0.0]]), temperature).backward()
    assert student.grad is not None
    assert 0.3 < float(student.grad.norm()) < 3.0


def test_terms_are_weighted_by_alpha() -> None:
    teacher = nn.Identity()
    outputs, inputs = torch.tensor([[3.0, 0.0]]), (torch.tensor([[0.0, 1.0]]),)
    soft = float(distillation_loss(outputs, inputs[0], 2.0))
    mixed = Distiller(teacher, DistilRule(teacher="a:b", temperature=2.0, alpha=0.25))(
        inputs, outputs, torch.tensor(8.0)
    )
    assert float(mixed) == pytest.approx(0.75 * 8.0 + 0.25 * soft)


def test_student_follows_the_teacher_when_labels_have_no_weight() -> None:
    data = tiny.vectors()
    teacher = tiny.perceptron(seed=5)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = tiny.plain_perceptron()
    rule = DistilRule(teacher="a:b", temperature=2.0, alpha=1.0)
    run_epochs(student, data, tiny.settings(epochs=120, weight_decay=0.0), distiller=Distiller(teacher, rule))
    x = torch.from_numpy(data.train.inputs[0])  # type: ignore[attr-defined]
    with torch.no_grad():
        agreement = (student(x).argmax(1) == teacher(x).argmax(1)).float().mean()
    assert float(agreement) > 0.9
    assert not teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_teacher_is_refused_when_it_knows_other_classes() -> None:
    distiller = Distiller(nn.Linear(8, 5), DistilRule(teacher="a:b"))
    with pytest.raises(ModelError, match=r"student's shape \(32, 3\); received \(32, 5\)"):
        run_epochs(tiny.perceptron(), tiny.vectors(), tiny.settings(), distiller=distiller)
