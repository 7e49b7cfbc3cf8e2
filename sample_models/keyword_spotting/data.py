"""Keywords as 49 frames of 10 MFCCs: simulated speech, or a file of real clips.

The simulation strings phonemes together: each has a cepstral pattern, each utterance its own speaker, tempo, position,
loudness and background. It is no replacement for speech, but it has what makes the task hard: words share sounds
(``no``, ``go``; ``on``, ``off``), and ``unknown`` is made of the very same ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset, read_arrays
from edgekit.errors import DataError
from sample_models import splits

FRAMES, COEFFICIENTS = 49, 10
CLASSES = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
"""In the order of MLPerf Tiny."""
WORDS = (
    ("d", "aw", "n"),
    ("g", "ow"),
    ("l", "eh", "f", "t"),
    ("n", "ow"),
    ("o", "f"),
    ("o", "n"),
    ("r", "ay", "t"),
    ("s", "t", "o", "p"),
    ("ah", "p"),
    ("y", "eh", "s"),
)
VOWELS = ("aw", "ow", "eh", "o", "ay", "ah", "iy", "uw")
CONSONANTS = ("d", "n", "g", "l", "f", "t", "r", "s", "p", "y", "m", "k", "b", "z")
SPREAD = np.array([7.0, 4.5, 3.5, 2.8, 2.3, 2.0, 1.7, 1.5, 1.3, 1.2])
"""How far phonemes lie apart in each coefficient; falls as it does in Speech Commands."""
SPEAKER, BACKGROUND = 0.25, 0.35
"""Shares of the spread by which speakers and frames vary."""

Mfcc = NDArray[np.float64]


def load(path: str | None = None, samples: int = 3600, seed: int = 0) -> Dataset:
    """Load real MFCCs, or simulate them.

    Args:
        path: A ``.npz`` with ``mfcc_int8`` (``[N, 49, 10, 1]``), ``mfcc_scale``, ``mfcc_zero`` and ``label``, such as
            ``speech_commands_dev500.npz`` of the development data. None: simulated speech.
        samples: How many utterances to simulate, the classes in equal numbers; a file gives all that it has.
        seed: Draws utterances and splits.

    Returns:
        MFCCs in their own unit (as the published model takes them), float32 ``[N, 1, 49, 10]``.

    Raises:
        DataError: The file is missing or holds something else.
    """
    if path is None:
        generator = np.random.default_rng(seed)
        labels = np.arange(samples, dtype=np.int64) % len(CLASSES)
        mfcc = np.stack([utterance(int(label), generator) for label in labels])[:, None].astype(np.float32)
    else:
        mfcc, labels = _read(Path(path))
    return splits.classification((mfcc,), labels, CLASSES, seed=seed, image=True, input_names=("mfcc",))


def _read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    arrays = read_arrays(path)
    needed = {"mfcc_int8", "mfcc_scale", "mfcc_zero", "label"}
    if not needed <= arrays.keys():
        raise DataError(f"{path}: expected arrays {', '.join(sorted(needed))}; received {', '.join(sorted(arrays))}")
    integers = arrays["mfcc_int8"]
    if integers.ndim != 4 or integers.shape[1:] != (FRAMES, COEFFICIENTS, 1):
        raise DataError(f"{path}: expected mfcc_int8 of shape [N, 49, 10, 1]; received {list(integers.shape)}")
    real = (integers.astype(np.float32) - np.float32(arrays["mfcc_zero"])) * np.float32(arrays["mfcc_scale"])
    return np.ascontiguousarray(real.transpose(0, 3, 1, 2)), arrays["label"]


def _patterns() -> dict[str, Mfcc]:
    """Cepstral pattern of each phoneme; part of the language, so drawn once and for all."""
    generator = np.random.default_rng(20260101)
    return {sound: generator.standard_normal(COEFFICIENTS) * SPREAD for sound in (*VOWELS, *CONSONANTS)}


PATTERNS = _patterns()


def utterance(label: int, generator: np.random.Generator) -> Mfcc:
    """Simulate one clip ``[49, 10]`` of a class."""
    background = np.full(COEFFICIENTS, 0.0)
    background[0] = generator.uniform(-60, 10)
    frames = np.tile(background, (FRAMES, 1))
    if CLASSES[label] != "silence":
        spoken = _speak(_sounds(label, generator), generator)
        spoken[:, 0] += background[0] + generator.uniform(15, 45)
        start = generator.integers(0, FRAMES - len(spoken) + 1)
        frames[start : start + len(spoken)] = spoken
    # Neighbouring frames share samples of sound, so nothing jumps.
    padded = np.pad(frames, ((1, 1), (0, 0)), mode="edge")
    smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return smooth + generator.standard_normal(smooth.shape) * SPREAD * BACKGROUND


def _sounds(label: int, generator: np.random.Generator) -> tuple[str, ...]:
    if label < len(WORDS):
        return WORDS[label]
    while True:
        vowel = VOWELS[generator.integers(len(VOWELS))]
        first, last = (CONSONANTS[index] for index in generator.integers(len(CONSONANTS), size=2))
        sounds = ((first, vowel), (vowel, last), (first, vowel, last))[generator.integers(3)]
        if sounds not in WORDS:
            return sounds


def _speak(sounds: tuple[str, ...], generator: np.random.Generator) -> Mfcc:
    tempo = generator.uniform(0.8, 1.3)
    lengths = [
        max(2, round(tempo * (generator.uniform(7, 12) if sound in VOWELS else generator.uniform(3, 6))))
        for sound in sounds
    ]
    speaker = generator.standard_normal(COEFFICIENTS) * SPREAD * SPEAKER
    frames = np.repeat(np.stack([PATTERNS[sound] for sound in sounds]), lengths, axis=0) + speaker
    return frames[: FRAMES - 4]
