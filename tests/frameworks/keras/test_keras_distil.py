"""Distillation: the loss by hand, and a student that learns from its teacher alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
import tiny_keras as tiny

from edgekit.errors import ModelError
from edgekit.frameworks.keras.distil import Distiller, distillation_loss, load_distiller
from edgekit.recipe.schema import DistilRule, ModelSection

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_loss_is_what_a_hand_computes() -> None:
    student, teacher, temperature = [2.0, 0.0], [0.0, 4.0], 2.0
    p = [1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)]  # softmax of the teacher's [0, 2]
    q = [math.e / (1 + math.e), 1 / (1 + math.e)]  # softmax of the student's [1, 0]
    by_hand = temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = distillation_loss(tf.constant([student]), tf.constant([teacher]), temperature)
    assert float(found) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_does_not_vanish_when_the_temperature_is_high(temperature: float) -> None:
    student = tf.Variable([[1.0, -1.0, 0.5]])
    with tf.GradientTape() as tape:
        loss = distillation_loss(student, tf.constant([[-1.0, 1.0, 0.0]]), temperature)
    assert 0.3 < float(tf.norm(tape.gradient(loss, student))) < 3.0


@pytest.mark.parametrize("softmax", [False, True])
def test_terms_are_weighted_by_alpha(softmax: bool) -> None:
    """Whether teacher and student end in a softmax does not change what they say."""
    teacher = tiny.perceptron(softmax=softmax)
    logits = tiny.perceptron()
    x = tiny.vectors().train.inputs[0][:4]  # type: ignore[attr-defined]
    outputs = tf.constant(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    soft = float(distillation_loss(outputs, logits(x, training=False), 2.0))
    distiller = Distiller(teacher, DistilRule(teacher="a:b", temperature=2.0, alpha=0.25))
    said = tf.nn.softmax(outputs) if softmax else outputs
    distiller.settle((x,), said)
    assert float(distiller((x,), said, tf.constant(8.0))) == pytest.approx(0.75 * 8.0 + 0.25 * soft, rel=1e-4)


@pytest.mark.parametrize(("teacher_library", "student_library"), [("keras", "tf_keras"), ("tf_keras", "keras")])
def test_student_follows_the_teacher_when_labels_have_no_weight(teacher_library: str, student_library: str) -> None:
    data = tiny.vectors()
    teacher = tiny.perceptron(teacher_library, seed=5)
    before = teacher.get_weights()
    student = tiny.plain_perceptron(student_library)
    rule = DistilRule(teacher="a:b", temperature=2.0, alpha=1.0)
    how = tiny.settings(epochs=8, batch_size=8, weight_decay=0.0, lr=3e-2)
    tiny.fit(student, data, how, distiller=Distiller(teacher, rule))
    x = data.train.inputs[0]  # type: ignore[attr-defined]
    said, taught = (model(x, training=False).numpy().argmax(axis=1) for model in (student, teacher))
    assert (said == taught).mean() > 0.9
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights(), strict=True))
    assert len(student.trainable_variables) == 4, "the teacher is no part of the student"


def test_teacher_is_refused_when_it_knows_other_classes() -> None:
    distiller = Distiller(tiny.two_classes(), DistilRule(teacher="a:b"))
    with pytest.raises(ModelError, match=r"student's shape \(32, 3\); received \(32, 2\)"):
        tiny.fit(tiny.plain_perceptron(), tiny.vectors(), tiny.settings(), distiller=distiller)


def test_teacher_is_loaded_by_name() -> None:
    rule = DistilRule(teacher=ModelSection(source="tiny_keras:perceptron", args={"seed": 3}))
    assert isinstance(load_distiller(rule), Distiller)
