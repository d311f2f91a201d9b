"""Untrained dictionaries beside an audit: encoded as any other, ranked with it, and no better than chance says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import planted_for_tests
import polars as pl
import pytest
from audit_for_tests import SETTINGS, run

from visae.activations.store import ActivationStore
from visae.audit.audit import AuditFiles
from visae.audit.headline import audit_lines
from visae.audit.results import SCHEMA, beside_untrained
from visae.audit.untrained import _encoded
from visae.config.settings import FigureSettings
from visae.features.codes import scan_codes
from visae.figures import audit as figure_of_audit
from visae.sae import load_sae


def _table(source: str, scores: list[float | None], share: float = 0.0) -> pl.DataFrame:
    """Proposals with their average precision, and the share of units that have the meaning."""
    rows = [{"source": source, "average_precision": x, "share": None if x is None else share} for x in scores]
    return pl.DataFrame(rows, schema=SCHEMA)


def test_a_proposal_is_ranked_among_those_of_untrained_dictionaries_from_the_same_source() -> None:
    others = [_table("labels", [0.1, 0.2, 0.3]), _table("labels", [0.4] * 96), _table("exemplars", [0.9])]
    # What 0.7 is worth where guessing has 0.5 is 0.4.
    own = [_table("labels", [0.5, 0.4, 0.05, None]), _table("labels", [0.7, 0.71], share=0.5), _table("mine", [0.9])]
    found = beside_untrained(pl.concat(own), others)
    # Ties count against it; nothing is said where there is nothing to compare with.
    assert found["p_untrained"].to_list() == [0.01, 0.97, 1.0, None, 0.97, 0.01, None]
    assert found["above_untrained"].to_list() == [True, False, False, None, False, True, None]
    assert beside_untrained(own[0], [])["p_untrained"].null_count() == 4


def test_an_untrained_dictionary_is_above_others_no_more_often_than_chance_says() -> None:
    random = np.random.default_rng(0)
    tables = [_table("labels", random.random(100).tolist()) for _ in range(20)]
    found = pl.concat(beside_untrained(one, [*tables[:n], *tables[n + 1 :]]) for n, one in enumerate(tables))
    assert (found["p_untrained"] <= 0.05).mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2000))
    assert found["above_untrained"].sum() <= 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """A model whose every class is one direction, and an SAE that has it; more pictures than other tests need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_for_tests, "N_FIT", 24)
        patch.setattr(planted_for_tests, "N_MEASURE", 36)
        return planted_for_tests.make_planted(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def of_world(world) -> AuditFiles:
    folder = world.folder
    return AuditFiles(
        codes=str(folder / "codes/manifest.json"),
        index=str(folder / "index.parquet"),
        labels=str(folder / "patch_labels.parquet"),
        sae=str(world.sae_config),
        manifest=str(world.manifests[planted_for_tests.LAST]),
    )


def test_codes_made_on_the_spot_are_those_that_encoding_writes(world, of_world: AuditFiles, tmp_path: Path) -> None:
    drawn = {"train": np.array([0, 2, 3, 20]), "val": np.array([24, 30, 59])}
    store, sae = ActivationStore.open(of_world.manifest), load_sae(of_world.sae)
    made = scan_codes(_encoded(sae, store, drawn, tmp_path)).collect()
    ids = np.concatenate(list(drawn.values())).tolist()
    kept = scan_codes(of_world.codes).filter(pl.col("image_id").is_in(ids)).collect()
    key = ["image_id", "token", "latent"]
    assert len(made) > 100
    assert made.sort(key).drop("value").equals(kept.sort(key).drop("value"))
    np.testing.assert_allclose(made.sort(key)["value"], kept.sort(key)["value"], rtol=1e-5)


def test_untrained_dictionaries_stand_beside_and_figure_and_headline_show_them(of_world, tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "topk" / "scenes"
    settings = replace(SETTINGS, untrained=3, permutations=99)
    table, yields, summary = run(of_world, folder, settings)
    planted = table.filter(pl.col("source") == "labels", pl.col("latent").is_between(10, 12))
    assert planted["survives"].all()
    assert planted["meaning"].sort().to_list() == ["class 1", "class 2", "class 3"]
    assert yields["untrained"].unique().to_list() == [None, 0, 1, 2]
    beside = next(row for row in summary["sources"] if row["source"] == "labels")["untrained"]
    assert beside["n"] == 3
    assert 0 <= beside["survived"]["low"] <= beside["survived"]["mean"] <= beside["survived"]["high"] <= 1
    # Rank of one among four.
    assert beside["specific"]["p"] in (0.25, 0.5, 0.75, 1)
    shown = figure_of_audit.data({"topk": yields, "other": yields})
    assert set(shown["untrained"]) == {0, 3}
    figure = figure_of_audit.draw(shown, FigureSettings())
    assert [axes.get_title(loc="left") for axes in figure.axes][:2] == ["Above chance", "Above untrained"]
    lines = audit_lines(folder, "topk")
    assert any(line.startswith("    labels") and "untrained" in line for line in lines)
    assert audit_lines(tmp_path, "topk") == []
