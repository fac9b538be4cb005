"""Recipes of feature sets read strictly, and can be varied key by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmath_stream.training.feature_recipe import FeatureRecipe, cmath_recipe, read_feature_recipe, varied
from cmath_stream.training.recipe import model_config
from realtime.errors import SettingsError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("name", ("mosi", "iemocap", "meld-features"))
def test_the_shipped_recipes_read(name: str) -> None:
    recipe = read_feature_recipe(CONFIGS / f"train-{name}.toml")
    assert recipe.kind == "features"
    assert Path(recipe.features).suffix in (".npz", ".pkl")
    model_config(cmath_recipe(recipe, 1), (("text", 9), ("audio", 8)), 6)


def test_what_a_recipe_does_not_say_is_default() -> None:
    recipe = FeatureRecipe(name="x", features="x.npz")
    changed = varied(recipe, {"schedule": {"epochs": 3}, "loss": {"variational": 0}, "model": {"width": 8}})
    assert changed.schedule.epochs == 3
    assert changed.schedule.absent == recipe.schedule.absent == 0.0
    assert changed.loss.variational == 0.0
    assert changed.model == {"width": 8}
    assert cmath_recipe(changed, 7).schedule.seed == 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = ", "TOML|value"),
        ('name = "x"', "features"),
        ('name = "x"\nfeatures = "x.npz"\nkind = "graft"', "kind"),
        ('name = "x"\nfeatures = "x.npz"\nspeed = 9', "speed"),
        ('name = "x"\nfeatures = "x.npz"\ntext = "letters"', "text"),
        ('name = "x"\nfeatures = "x.npz"\nfolds = 1', "folds"),
        ('name = "x"\nfeatures = "x.npz"\nfolds = "many"', "folds"),
        ('name = "x"\nfeatures = "x.npz"\n[model]\nwitdh = 9', "witdh"),
        ('name = "x"\nfeatures = "x.npz"\n[model]\nheads = 5', "heads"),
        ('name = "x"\nfeatures = "x.npz"\n[schedule]\nepoch = 9', "schedule.epoch"),
        ('name = "x"\nfeatures = "x.npz"\n[schedule]\nepochs = "all"', "schedule.epochs"),
        ('name = "x"\nfeatures = "x.npz"\n[loss]\nkl = 9', "loss.kl"),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=rf"wrong\.toml: .*({reason})"):
        read_feature_recipe(path)


def test_no_file_and_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        read_feature_recipe(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="unknown table corpora"):
        varied(FeatureRecipe(name="x", features="x.npz"), {"corpora": {}})
