"""What a sweep stands for: its members, each with a name of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, fields
from itertools import product
from typing import Any

from visae.config.consistency import of_sae
from visae.config.published import PublishedSettings
from visae.config.sections import parse_section
from visae.config.settings import AnySae, Settings, StudySettings, SweepSettings
from visae.config.sweeps import LIMITED
from visae.errors import ConfigError
from visae.files import text_sha256


def sweep_members(name: str, sweep: SweepSettings, base: AnySae) -> dict[str, AnySae]:
    """Members of a sweep by name, in the order of the configuration; members that are equal are one.

    A member's name is the sweep's with a hash of the member's own settings: what else is in the sweep has no
    part in it.

    Raises
    ------
    ConfigError
        If a member has an unknown key or a value out of range; the member is named.
    """
    found = {}
    for point in _points(sweep):
        where = f"sweeps: {name}: member {json.dumps(point)}"
        if "variant" in point:
            raise ConfigError(f"{where}: variant: a sweep has one variant, its base's; write another sweep")
        if "tokens" in point:
            raise ConfigError(f"{where}: tokens: a sweep has one kind of tokens, its base's; write another sweep")
        member = parse_section(AnySae, {**asdict(base), **point}, where)
        found[f"{name}-{text_sha256(json.dumps(own_settings(member), sort_keys=True))[:8]}"] = member
    return found


def own_settings(sae: AnySae) -> dict[str, Any]:
    """Settings that are not at their defaults, variant included; `from_plain` makes the section of them again.

    They stay the same when a later version adds a setting.
    """
    own = {}
    for spec in fields(sae):
        default = spec.default_factory() if spec.default_factory is not MISSING else spec.default
        if getattr(sae, spec.name) != default:
            own[spec.name] = getattr(sae, spec.name)
    return own


def further_megabytes(together: list[AnySae], d_model: int) -> int:
    """Memory of SAEs that train in one job with another, as large as the largest of them.

    Each has encoder and decoder, their gradients, and Adam's two moments of both.
    """
    each = [2 * 4 * 4 * sae.expansion * d_model**2 for sae in together]
    return round((sum(each) - max(each)) / 1e6)


def every_sae(settings: Settings) -> dict[str, AnySae]:
    """Sections of all SAEs that can be trained, by name: those of `saes`, and the members of all sweeps."""
    found = trained(settings)
    for name, sweep in settings.sweeps.items():
        found |= sweep_members(name, sweep, found[sweep.base])
    return found


def trained(settings: Settings) -> dict[str, AnySae]:
    """Sections of `saes` that are trained, by name; the others are published ones."""
    return {name: sae for name, sae in settings.saes.items() if not isinstance(sae, PublishedSettings)}


def of_study(settings: Settings, study: StudySettings) -> dict[str, AnySae]:
    """SAEs that are trained for a study, by name: those that it lists, and the members of sweeps that it lists."""
    found: dict[str, AnySae] = {}
    own = trained(settings)
    for name in study.saes:
        if name in settings.sweeps:
            sweep = settings.sweeps[name]
            found |= sweep_members(name, sweep, own[sweep.base])
        elif name in own:
            found[name] = own[name]
    return found


def scored_on(settings: Settings, study: StudySettings, sae: str) -> str | None:
    """Data set on which the members of a sweep are scored for a study; None for one that does not want it, and SAEs."""
    masked = (dataset for dataset in study.describe if settings.datasets[dataset].has_masks)
    return next(masked, None) if sae in settings.sweeps and settings.sweeps[sae].score else None


def transcoder_problems(settings: Settings) -> Iterator[str]:
    """Yield a line for each transcoder that a study cannot use; all names must be known to exist."""
    for name, study in settings.studies.items():
        tasks = list(study.tasks)
        for sae, section in of_study(settings, study).items():
            at = f"studies: {name}: saes: {sae!r} is a transcoder (target_layer: {section.target_layer})"
            if section.target_point is not None and tasks:
                yield f"{at}, which can be described, not edited; leave {' and '.join(tasks)} out"
            if section.target_point is not None and study.model is None:
                yield f"{at} and needs a model, from which both layers are read"
            if section.target_point == study.point:
                yield f"{at} of the study's own layer; leave target_layer out"


def sweep_problems(settings: Settings) -> Iterator[str]:
    """Yield a line for each mistake in a sweep."""
    taken = set(settings.saes)
    for name, sweep in settings.sweeps.items():
        at = f"sweeps: {name}"
        if name in settings.saes:
            yield f"{at}: this name is in saes too; choose another"
        unknown = sorted(set(sweep.select.at_most) - set(LIMITED))
        if unknown:
            yield f"{at}: select: at_most: unknown metric {unknown[0]!r}; allowed: {', '.join(LIMITED)}"
        if sweep.base not in settings.saes:
            yield f"{at}: base: {sweep.base!r} is not in saes ({', '.join(sorted(settings.saes))})"
            continue
        if sweep.base not in trained(settings):
            yield f"{at}: base: {sweep.base!r} is published, and a sweep trains its members; name one that is trained"
            continue
        if bool(sweep.grid) == bool(sweep.list):
            yield f"{at}: give either grid or list, with at least one member"
            continue
        if sweep.score and settings.saes[sweep.base].tokens == "class":
            yield f"{at}: score: scores are of patches, and {sweep.base} is of class tokens; leave score out"
        empty = [key for key, values in sweep.grid.items() if not values]
        if empty:
            yield f"{at}: grid: {empty[0]}: [] has no values; give at least one"
            continue
        try:
            members = sweep_members(name, sweep, trained(settings)[sweep.base])
        except ConfigError as error:
            yield str(error)
            continue
        for member in members.values():
            yield from of_sae(f"{at}: member {json.dumps(own_settings(member))}", member)
        if members.keys() & taken:
            yield f"{at}: another SAE is called {min(members.keys() & taken)!r} already; rename it"
        taken |= members.keys()


def _points(sweep: SweepSettings) -> list[dict[str, Any]]:
    """What each member changes in the base."""
    if sweep.list:
        return sweep.list
    return [dict(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]
