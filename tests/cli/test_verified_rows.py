"""Rows that a person has looked at, from the table or from corrections.csv, through scan and train."""

import json

import numpy as np
import pandas as pd
import pytest

from clear_peft import find_label_issues
from clear_peft.errors import InputError
from clear_peft.pipeline import splits
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.layout import LABEL_QUALITY
from clear_peft.run_folder.quality_file import load_label_quality
from tiny_text import keyword_table

ROWS, LOOKED_AT = 96, 12


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def table():
    return keyword_table(ROWS, seed=0, noise=0.3)


@pytest.fixture
def looked_at():
    return np.sort(np.random.default_rng(0).choice(ROWS, LOOKED_AT, replace=False))


def _true_labels(table, rows):
    return [label if i in set(rows) else "" for i, label in enumerate(table["clean_label"])]


def _corrections(folder, table, rows):
    wrong = (table["label"] != table["clean_label"]).to_numpy()
    frame = pd.DataFrame(
        {
            "row": rows,
            "action": np.where(wrong[rows], "relabel", "keep"),
            "label": np.where(wrong[rows], table["clean_label"].to_numpy()[rows], ""),
            "given_label": table["label"].to_numpy()[rows],
            "text": table["text"].str[:200].to_numpy()[rows],
        }
    )
    frame.to_csv(folder / "corrections.csv", index=False)
    return folder / "corrections.csv"


def _scanned(cli, place, data, output, *words):
    done = cli("scan", "--data", data, "--model", place.model, "--output", output, "--format", "json", *words)
    assert done.status == 0, done.err
    return json.loads(done.out), pd.read_csv(output / "label_issues.csv")


def test_a_column_and_corrections_say_the_same(cli, place, tmp_path, table, looked_at):
    table.assign(checked=_true_labels(table, looked_at)).to_csv(tmp_path / "table.csv", index=False)
    corrections = _corrections(tmp_path, table, looked_at)
    data = tmp_path / "table.csv"
    said, by_column = _scanned(cli, place, data, tmp_path / "a", "--verified-column", "checked")
    _, by_file = _scanned(cli, place, data, tmp_path / "b", "--verified", corrections)
    pd.testing.assert_frame_equal(by_column, by_file)
    assert said["verified"] == LOOKED_AT
    last = by_column.tail(LOOKED_AT)
    assert sorted(last["row"]) == looked_at.tolist(), "what has been looked at comes last"
    right = table["label"] == table["clean_label"]
    assert last["clean_probability"].tolist() == right[last["row"]].astype(float).tolist()
    assert last["verified"].tolist() == table["clean_label"][last["row"]].tolist()
    assert by_column["verified"].isna().sum() == ROWS - LOOKED_AT


def test_true_stands_for_a_given_label_that_is_right(table, looked_at):
    right = (table["label"] == table["clean_label"]).to_numpy()
    embeddings = (
        np.random.default_rng(0).normal(size=(ROWS, 8)) + 2 * np.eye(8)[pd.factorize(table["clean_label"])[0]]
    )
    looked = [bool(i in set(looked_at) and right[i]) for i in range(ROWS)]
    issues = find_label_issues(None, table["label"], embeddings=embeddings, verified=looked)
    assert issues["verified"].notna().sum() == sum(looked)
    assert (issues.set_index("row")["clean_probability"][np.flatnonzero(looked)] == 1).all()


def test_nobody_has_looked_at_anything(table):
    embeddings = np.random.default_rng(0).normal(size=(ROWS, 8))
    without = find_label_issues(None, table["label"], embeddings=embeddings)
    issues = find_label_issues(None, table["label"], embeddings=embeddings, verified=[None] * ROWS)
    pd.testing.assert_frame_equal(issues, without)


def test_training_believes_them_and_holds_none_out(cli, place, tmp_path, table, looked_at):
    table.assign(checked=_true_labels(table, looked_at)).to_csv(tmp_path / "table.csv", index=False)
    words = place.options(
        tmp_path / "run",
        data=tmp_path / "table.csv",
        verified_column="checked",
        epochs=4,
        batch_size=8,
        validation_fraction=0.4,
    )
    done = cli("train", *words)
    assert done.status == 0, done.err
    names = sorted(table["label"].unique())
    quality, _ = load_label_quality(tmp_path / "run" / LABEL_QUALITY, names)
    right = (table["label"] == table["clean_label"]).to_numpy()
    assert np.flatnonzero(quality.verified >= 0).tolist() == looked_at.tolist()
    assert quality.clean_probability[looked_at].tolist() == right[looked_at].astype(float).tolist()
    issues = pd.read_csv(tmp_path / "run" / "label_issues.csv").set_index("row")
    assert set(issues["split"][looked_at]) == {"train"}
    assert sorted(issues.index[-LOOKED_AT:]) == looked_at.tolist()
    for command in (["audit"], ["report"]):
        assert cli(*command, "--run", tmp_path / "run", "--format", "quiet").status == 0


@pytest.mark.parametrize("more", [{"method": "plain"}, {"preset": "paper"}])
def test_methods_without_a_probe_train_on_the_true_labels(cli, place, tmp_path, table, looked_at, more):
    """As on a table in which they have been set right."""
    held = {"validation": place.test}
    table.assign(checked=_true_labels(table, looked_at)).to_csv(tmp_path / "a.csv", index=False)
    table.loc[looked_at, "label"] = table.loc[looked_at, "clean_label"]
    table.to_csv(tmp_path / "b.csv", index=False)
    metrics = []
    for name, verified in (("a", "checked"), ("b", None)):
        words = place.options(
            tmp_path / name, data=tmp_path / f"{name}.csv", verified_column=verified, **held, **more
        )
        assert cli("train", *words).status == 0
        metrics.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert metrics[0]["validation"] == metrics[1]["validation"]
    assert [e.get("train_loss") for e in metrics[0]["epochs"]] == [
        e.get("train_loss") for e in metrics[1]["epochs"]
    ]


def test_a_run_is_not_resumed_with_other_verified_rows(tmp_path, table, looked_at):
    config = RunConfig(model="m", data=str(tmp_path / "t.csv"), output="o", verified_column="checked")
    digests = []
    for rows in (looked_at, looked_at[:-1]):
        table.assign(checked=_true_labels(table, rows)).to_csv(tmp_path / "t.csv", index=False)
        digests.append(splits.read_tables(config).digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({3: "farmin"}, "'farmin' in 1 row (3;"),
        ({2: "farming", 5: "true"}, "'true' in 1 row (5;"),
        ({1: "true", 4: "perhaps"}, "'perhaps' in 1 row (4;"),
    ],
)
def test_what_is_neither_a_label_nor_true_or_false_is_refused(cli, place, tmp_path, table, cells, said):
    table.assign(checked=[cells.get(i, "") for i in range(ROWS)]).to_csv(tmp_path / "t.csv", index=False)
    done = cli("scan", "--data", tmp_path / "t.csv", "--model", place.model, "--verified-column", "checked")
    assert done.status == 2
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_corrections_of_another_table_are_refused(cli, place, tmp_path, table, looked_at):
    corrections = _corrections(tmp_path, table, looked_at)
    done = cli("scan", "--data", place.test, "--model", place.model, "--verified", corrections)
    assert done.status == 2


@pytest.mark.parametrize("verified", [[None] * 3, ["x"] * ROWS])
def test_bad_arrays_are_refused(table, verified):
    with pytest.raises(InputError):
        find_label_issues(None, table["label"], embeddings=np.ones((ROWS, 2)), verified=verified)


def test_supplied_predictions_are_final(table):
    with pytest.raises(InputError, match="Verified rows teach a probe"):
        find_label_issues(
            None, table["label"], pred_probs=np.full((ROWS, 3), 1 / 3), verified=list(table["clean_label"])
        )


def test_the_page_lists_none_of_them(table, looked_at):
    from clear_peft.audit import audit
    from clear_peft.label_quality import fit_probe
    from clear_peft.report.page.rows import row_columns

    names = sorted(table["label"].unique())
    labels, true = (np.array([names.index(x) for x in table[c]]) for c in ("label", "clean_label"))
    verified = np.where(np.isin(np.arange(ROWS), looked_at), true, -1)
    features = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    _, quality = fit_probe(features, labels, 3, verified=verified)
    issues = quality.issues(names)
    issues.insert(1, "text", table["text"].to_numpy()[issues["row"]])
    found = audit(issues, quality, names, noise_found=False)
    shown = row_columns(found.issues, names, 1 << 20)
    assert sorted(shown["row"]) == sorted(set(range(ROWS)) - set(looked_at))
    assert (shown["total"], shown["shown"]) == (ROWS, ROWS - LOOKED_AT)


def test_several_files_count_together_and_the_last_one_wins(cli, place, tmp_path, table, looked_at):
    table.to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "first").mkdir()
    first = _corrections(tmp_path / "first", table, looked_at[:8])
    second = _corrections(tmp_path, table, looked_at[4:])
    frame = pd.read_csv(second, keep_default_na=False)
    frame.loc[0, ["action", "label"]] = ["drop", ""]
    frame.to_csv(second, index=False)
    _, issues = _scanned(
        cli, place, tmp_path / "train.csv", tmp_path / "scan", "--verified", first, "--verified", second
    )
    verified = issues.dropna(subset="verified").set_index("row")["verified"]
    assert set(verified.index) == set(looked_at) - {looked_at[4]}
    assert (verified == table["clean_label"][verified.index]).all()


def test_the_report_proposes_rows_and_a_scan_counts_the_random_ones(cli, place, tmp_path, table):
    table.to_csv(tmp_path / "table.csv", index=False)
    seen, files = [], []
    for turn in range(3):
        words = [word for file in files for word in ("--verified", file)]
        said, _ = _scanned(cli, place, tmp_path / "table.csv", tmp_path / str(turn), *words)
        page = (tmp_path / str(turn) / "report.html").read_text(encoding="utf-8")
        rows = json.loads(page.partition('id="row-data">')[2].partition("</script>")[0])
        proposed = np.sort(np.array(rows["row"])[rows["proposed"]])
        assert len(proposed) == 20
        assert not set(proposed) & set(seen)
        (tmp_path / f"answers-{turn}").mkdir()
        seen += proposed.tolist()
        files.append(_corrections(tmp_path / f"answers-{turn}", table, proposed))
    assert said["random_rows"] >= 10
    low, high = said["noise_rate_interval"]
    assert low <= (table["label"] != table["clean_label"]).mean() <= high


@pytest.mark.filterwarnings("ignore:.*they have no label:clear_peft.errors.ClearWarning")
def test_rows_without_a_label_are_predicted_by_verified_rows_too(cli, tmp_path):
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], 60)
    features = 3 * np.eye(8)[true] + 0.5 * rng.normal(size=(180, 8))
    given = np.array(["ale", "bun", "cod"], dtype=object)[
        np.where((true == 2) & (rng.random(180) < 0.7), 0, true)
    ]
    checked = np.where(rng.random(180) < 0.3, np.array(["ale", "bun", "cod"], dtype=object)[true], "")
    left = np.flatnonzero((true == 2) & (checked == ""))[:10]
    given[left] = ""
    np.save(tmp_path / "features.npy", features)
    pd.DataFrame({"text": [f"row {i}" for i in range(180)], "label": given, "checked": checked}).to_csv(
        tmp_path / "table.csv", index=False
    )

    def predicted(*words):
        source = ("--data", tmp_path / "table.csv", "--embeddings", tmp_path / "features.npy", "--overwrite")
        done = cli("scan", *source, "--output", tmp_path / "scan", *words)
        assert done.status == 0, done.err
        found = pd.read_csv(tmp_path / "scan" / "unlabelled.csv")
        assert sorted(found["row"]) == left.tolist()
        return set(found["predicted_label"])

    assert "ale" in predicted()
    assert predicted("--verified-column", "checked") == {"cod"}
