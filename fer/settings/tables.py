"""Every setting of the commands about rows and about runs: `fer-clean`, `fer-summary`, `fer-search`, `fer-card`."""

from pydantic import Field

from fer.settings.base import PathText, Settings, Whole, setting
from fer.settings.train import VOTES_FILE, SourceSettings


class CleanDataSettings(SourceSettings):
    """What is looked through."""

    path: PathText = Field(description="as train.py takes it: a CSV, an archive, class folders")
    ferplus_path: PathText | None = setting(None, f"the votes of FER+; a missing {VOTES_FILE} is fetched; null: none")


class CleanSettings(Settings):
    """All settings of the list of doubtful rows."""

    data: CleanDataSettings = Field(description="data.path=SOURCE says what is looked through")
    predictions: PathText | list[PathText] | None = setting(
        None,
        "predictions.csv files of runs, or directories that hold some, for likely label errors; "
        "python train.py -m data.folds=5 'data.fold=range(5)' predicts every row",
    )
    output: PathText | None = setting(None, "the directory to write to; null: outputs/TIME_cleaning")


class SummarySettings(Settings):
    """All settings of the table of many runs."""

    runs: PathText | list[PathText] = Field(description="run directories, or directories that hold some")


class CardSettings(Settings):
    """All settings of the model card."""

    report: PathText = Field(description="a run's directory, or its metrics.json")
    output: PathText | None = setting(None, "the file to write; null: README.md beside the numbers")


class SearchSettings(Settings):
    """The search's own settings; all others are those of train.py, shared by all trials."""

    trials: Whole = setting(40, "completed or pruned, earlier starts included", ge=1, le=1_000_000)
    space: PathText | None = setting(None, "the file that says what is searched; null: configs/search/recipe.yaml")
