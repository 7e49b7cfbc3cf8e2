"""Sentences from a grammar: is a review good, bad or balanced?

A review speaks of one to three things, each with a verdict that may be negated:
``the staff was rude but the food was not very bad and the room was plain``. The class is the sign of the sum of the
verdicts, so a model has to bind each ``not`` to its own word; a count of good and bad words does not tell.
"""

from __future__ import annotations

import numpy as np

from edgekit.data import Dataset
from sample_models import splits

LENGTH = 24
CLASSES = ("negative", "balanced", "positive")
ASPECTS = ("food", "staff", "room", "view", "price", "music")
VERDICTS = (
    ("bad", "rude", "awful", "poor", "dull", "sad"),
    ("average", "usual", "ordinary", "plain"),
    ("good", "great", "lovely", "superb", "nice", "fine"),
)
ADVERBS = ("very", "really", "quite", "so")
JOINTS = ("and", "but", "while")
WORDS = (
    "[pad]",
    *ASPECTS,
    *(word for group in VERDICTS for word in group),
    *ADVERBS,
    *JOINTS,
    "the",
    "was",
    "not",
)
"""The vocabulary; a word's id is its position, and 0 is padding."""


def load(samples: int = 8000, seed: int = 0) -> Dataset:
    """Write sentences.

    Args:
        samples: Sentences in all splits together.
        seed: Draws sentences and splits.

    Returns:
        Token ids and padding mask, both int64 ``[N, 24]``.
    """
    generator = np.random.default_rng(seed)
    ids = np.zeros((samples, LENGTH), dtype=np.int64)
    labels = np.zeros(samples, dtype=np.int64)
    number = {word: index for index, word in enumerate(WORDS)}
    for row in range(samples):
        words, labels[row] = sentence(generator)
        ids[row, : len(words)] = [number[word] for word in words]
    mask = (ids != 0).astype(np.int64)
    return splits.classification((ids, mask), labels, CLASSES, seed=seed, input_names=("ids", "mask"))


def sentence(generator: np.random.Generator) -> tuple[list[str], int]:
    """Write one review; return its words and its class."""
    aspects = [ASPECTS[index] for index in generator.permutation(len(ASPECTS))[: int(generator.integers(1, 4))]]
    words: list[str] = []
    total = 0
    for position, aspect in enumerate(aspects):
        verdict = int(generator.integers(-1, 2))
        adjectives = VERDICTS[verdict + 1]
        adjective = adjectives[int(generator.integers(len(adjectives)))]
        # A negated neutral word has no clear meaning, so only clear verdicts are negated.
        negated = verdict != 0 and bool(generator.random() < 0.4)
        adverb = [ADVERBS[int(generator.integers(len(ADVERBS)))]] if generator.random() < 0.5 else []
        joint = [JOINTS[int(generator.integers(len(JOINTS)))]] if position else []
        words += [*joint, "the", aspect, "was", *(["not"] if negated else []), *adverb, adjective]
        total += -verdict if negated else verdict
    return words, int(np.sign(total)) + 1
