"""Names of classes in lists: named entities and several labels a row, as hub data sets have them."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.data import load_examples, read_table
from clear_peft.data.arrow import table_to_frame
from clear_peft.errors import InputError
from clear_peft.trainer.spans import SpanScheme

TAGS = ["O", "B-PER", "I-PER"]
OF_CLASSES = {"names": TAGS, "_type": "ClassLabel"}


def table_of(column, feature):
    """An Arrow table with the metadata of datasets: a feature as it is written in them."""
    metadata = {"huggingface": json.dumps({"info": {"features": {"tags": feature}}}), "other": "kept"}
    return pa.table({"tags": column}).replace_schema_metadata(metadata)


def plain(cells):
    return [plain(cell) if isinstance(cell, np.ndarray | list) else cell for cell in cells]


@pytest.fixture(params=["parquet", "disk"])
def saved(request, tmp_path):
    """Writes a data set of datasets; tells where it lies."""

    def write(columns, feature):
        data = datasets.Dataset.from_dict(columns)
        data = data.cast(datasets.Features({**data.features, list(columns)[1]: feature}))
        data = data.select([1, 0, 2])
        if request.param == "parquet":
            data.to_parquet(tmp_path / "data.parquet")
            return str(tmp_path / "data.parquet")
        data.save_to_disk(tmp_path / "data")
        return str(tmp_path / "data")

    return write


@pytest.mark.parametrize("of_lists", [datasets.Sequence, datasets.LargeList])
def test_tags_of_words_have_their_names(saved, of_lists):
    columns = {
        "tokens": [["He", "left"], ["Ada", "Lovelace", "flew"], ["So", "Ada"]],
        "ner_tags": [[0, 0], [1, 2, 0], [0, 1]],
    }
    place = saved(columns, of_lists(datasets.ClassLabel(names=TAGS)))
    assert plain(read_table(place)["ner_tags"]) == [["B-PER", "I-PER", "O"], ["O", "O"], ["O", "B-PER"]]
    table = load_examples(place, text_column="text", label_column="label", lists=True)
    assert table.names.words
    assert table.names.names == ("B-PER", "I-PER", "O")
    tags = np.concatenate(table.examples.labels)
    spans = SpanScheme.of(table.names.names).spans(tags, np.array([1, 0, 0, 1, 0, 1, 0], bool))
    assert spans[:, :2].tolist() == [[0, 2], [6, 7]]


def test_several_labels_a_row_have_their_names(saved):
    columns = {"text": ["a b", "c d", "e"], "labels": [[0, 2], [1], []]}
    place = saved(columns, datasets.Sequence(datasets.ClassLabel(names=["joy", "anger", "fear"])))
    table = load_examples(place, label_column="labels", lists=True)
    assert table.names.names == ("anger", "fear", "joy")
    assert table.examples.labels.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": OF_CLASSES, "_type": "List"},
        {"feature": OF_CLASSES, "_type": "LargeList"},
        {"feature": OF_CLASSES, "length": -1, "id": None, "_type": "Sequence"},
        [OF_CLASSES],
    ],
)
def test_all_spellings_of_a_list_of_classes(feature):
    frame = read_table(table_of([[1, 2], [0]], feature))
    assert plain(frame["tags"]) == [["B-PER", "I-PER"], ["O"]]


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"},
        {"feature": {"a": OF_CLASSES}, "_type": "Sequence"},  # a struct
        {"_type": "List"},
        [OF_CLASSES, OF_CLASSES],
        "List",
        None,
    ],
)
def test_lists_of_anything_else_stay_as_they_are(feature):
    assert plain(read_table(table_of([[1, 2], [0]], feature))["tags"]) == [[1, 2], [0]]
    assert read_table(table_of(["x", "y"], feature))["tags"].tolist() == ["x", "y"]


def test_a_column_of_another_type_than_its_feature_stays_as_it_is():
    feature = {"feature": OF_CLASSES, "_type": "List"}
    assert plain(read_table(table_of([["x"], ["y", "z"]], feature))["tags"]) == [["x"], ["y", "z"]]


def test_an_id_of_no_class_is_refused_in_lists_too():
    with pytest.raises(InputError, match="values that pandas cannot"):
        read_table(table_of([[0], [1, 3]], {"feature": OF_CLASSES, "_type": "List"}))


ids = st.one_of(st.none(), st.integers(-1, 2))
shapes = st.sampled_from(
    [
        (pa.list_(pa.int64()), st.lists(ids, max_size=4)),
        (pa.large_list(pa.int16()), st.lists(ids, max_size=4)),
        (pa.list_(pa.int64(), 2), st.lists(ids, min_size=2, max_size=2)),
        (
            pa.list_(pa.list_(pa.int32())),
            st.lists(st.one_of(st.none(), st.lists(ids, max_size=3)), max_size=3),
        ),
    ]
)


def named(cell):
    if isinstance(cell, list):
        return [named(item) for item in cell]
    return None if cell is None or cell < 0 else TAGS[cell]


@settings(deadline=None)
@given(st.data(), shapes)
def test_every_item_has_its_name_and_every_list_its_place(data, shape):
    kind, cells = shape
    parts = data.draw(st.lists(st.lists(st.one_of(st.none(), cells), max_size=4), min_size=1, max_size=3))
    before = data.draw(st.integers(0, 2))
    # chunks that are slices of longer arrays
    chunks = [pa.array(part, kind)[min(before, len(part)) :] for part in parts]
    rows = [row for part in parts for row in part[before:]]
    feature = {"feature": OF_CLASSES, "_type": "List"}
    if not rows:
        return
    frame = read_table(table_of(pa.chunked_array(chunks, kind), feature))
    assert plain(frame["tags"]) == [named(row) for row in rows]


def test_a_table_without_rows_is_refused_in_a_sentence():
    metadata = {"huggingface": json.dumps({"info": {"features": {"tags": OF_CLASSES}}})}
    schema = pa.schema([("tags", pa.int64())], metadata=metadata)
    with pytest.raises(InputError, match="has no rows"):
        table_to_frame(pa.Table.from_batches([], schema), "tags.parquet")
