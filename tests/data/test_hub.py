"""Names on the hub, without the hub."""

import datasets
import pytest

from clear_peft.data import read_table
from clear_peft.errors import InputError


@pytest.fixture
def hub(monkeypatch):
    """The arguments of the last call; every name gives the same three rows."""
    calls = []
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "n": datasets.Value("int64"),
        }
    )
    data = datasets.Dataset.from_dict(
        {"text": ["a", "b", "c"], "label": [1, 0, -1], "n": [1, None, 3]}, features
    )

    def load_dataset(name, config, *, split):
        calls.append((name, config, split))
        return data.select([2, 0, 1])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("ag_news", ("ag_news", None, "train")),
        ("ag_news@test", ("ag_news", None, "test")),
        ("nyu-mll/glue:sst2@validation", ("nyu-mll/glue", "sst2", "validation")),
        ("user/data-v1.0@train[:10%]", ("user/data-v1.0", None, "train[:10%]")),
    ],
)
def test_names_configurations_and_splits(hub, source, call):
    frame = read_table(source)
    assert hub == [call]
    assert frame["text"].tolist() == ["c", "a", "b"]
    assert frame["label"].isna().tolist() == [True, False, False]
    assert frame["label"].tolist()[1:] == ["pos", "neg"]
    assert frame["n"].tolist() == [3, 1, None]


@pytest.mark.parametrize("source", ["", "two words", "https://x.org/a", "@train", "a/b/c", "name@"])
def test_what_is_no_name_never_reaches_the_hub(hub, source):
    with pytest.raises(InputError, match="neither a file nor a hub data set"):
        read_table(source)
    assert hub == []


def test_offline_gives_a_sentence():
    with pytest.raises(InputError, match="cannot be loaded from the hub") as caught:
        read_table("clear-peft-no-such-user/no-such-data")
    assert "\n" not in str(caught.value)
