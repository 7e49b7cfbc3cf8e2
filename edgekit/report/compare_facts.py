"""What two builds are, side by side as text, and where they differ in what decides their figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.records import FrameworkName, Manifest

FRAMEWORK_TITLES: dict[FrameworkName, str] = {"pytorch": "PyTorch", "keras": "Keras"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFact:
    """Something that each build says of itself, as text; ``–`` where it does not."""

    name: str
    before: str
    after: str


def build_facts(before: Manifest, after: Manifest) -> tuple[ComparedFact, ...]:
    """Return what each build is: framework, model, size of the model, training, compression, edgekit's version."""
    first, second = _facts(before), _facts(after)
    return tuple(ComparedFact(name=name, before=first[name], after=second[name]) for name in first)


def _facts(manifest: Manifest) -> dict[str, str]:
    source, training = manifest.source, manifest.training
    trained = "–"
    if training is not None:
        epochs = f"{len(training.epochs)} epoch{'' if len(training.epochs) == 1 else 's'}"
        trained = f"{epochs} on {training.device}, autocast {training.autocast}, seed {manifest.seed}"
    return {
        "framework": FRAMEWORK_TITLES[source.framework] if source else "–",
        "model": source.source if source else "–",
        "parameters": f"{source.parameters:,}" if source else "–",
        "training": trained,
        "compression": "; ".join(_step_text(step) for step in manifest.recipe.get("compress") or ()) or "–",
        "data": manifest.data_digest[:12] or "–",
        "edgekit": manifest.edgekit_version,
    }


def _step_text(step: Mapping[str, Any]) -> str:
    """Print one compression step by what names it: ``quantize int8 qat``, ``prune 0.5 2:4``, ``cluster 16``."""
    told = ("precision", "mode", "sparsity", "granularity", "clusters")
    parts = [(kind, rule) for kind, rule in step.items() if isinstance(rule, Mapping)]
    return ", ".join(" ".join([kind, *(str(rule[key]) for key in told if key in rule)]) for kind, rule in parts)


def differences(before: Manifest, after: Manifest, names: tuple[str, str]) -> tuple[str, ...]:
    """Return in sentences what makes a difference of figures no fair one.

    Args:
        before: The first build.
        after: The second.
        names: What to call them.
    """
    return tuple(_differences(before, after, names))


def _differences(before: Manifest, after: Manifest, names: tuple[str, str]) -> Iterator[str]:
    if before.source and after.source and before.source.parameters != after.source.parameters:
        yield (
            f"the models differ in size: {before.source.parameters:,} parameters in {names[0]}, "
            f"{after.source.parameters:,} in {names[1]}"
        )
    if before.data_digest and after.data_digest and before.data_digest != after.data_digest:
        yield "the data, or their settings or code, differ: accuracies and SQNR may be of other samples"
    for section, title in (("train", "training"), ("verify", "verification"), ("profile", "profiling")):
        changed = _changed(before.recipe.get(section), after.recipe.get(section))
        if changed:
            yield f"the settings of the {title} differ: {', '.join(changed)}"
    if _compression(before) != _compression(after):
        texts = [
            "; ".join(_step_text(step) for step in manifest.recipe.get("compress") or ()) or "none"
            for manifest in (before, after)
        ]
        alike = texts[0] == texts[1]
        yield f"the compression differs: {f'{texts[0]}, in its settings' if alike else ' against '.join(texts)}"
    tools = _changed(
        {name: version for name, version in before.tools.items() if name in after.tools},
        {name: version for name, version in after.tools.items() if name in before.tools},
    )
    if tools:
        yield f"the versions of tools differ: {', '.join(tools)}"


def _changed(first: object, second: object) -> list[str]:
    """Return ``key first → second`` for each setting that differs; nothing where a build has no such section."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return []
    keys = [key for key in dict.fromkeys((*first, *second)) if first.get(key) != second.get(key)]
    return [f"{key} {first.get(key, '–')} → {second.get(key, '–')}" for key in keys]


def _compression(manifest: Manifest) -> list[Any]:
    """Return the compression steps without the layers they skip, whose names are each framework's own."""
    steps = manifest.recipe.get("compress") or ()
    return [
        {kind: {key: value for key, value in rule.items() if key not in ("skip", "teacher")} if rule else rule}
        for step in steps
        for kind, rule in step.items()
        if isinstance(rule, Mapping)
    ]
