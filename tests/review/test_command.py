"""``clear-peft review`` from its start to its end."""

import shlex

import pytest
from tables import written_table
from typer.testing import CliRunner

from clear_peft.cli.app import app
from clear_peft.errors import InputError
from clear_peft.review import ReviewServer


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command, and stops it by Ctrl+C after an answer.

    Returns what the command has said, and the links that browsers were started with.
    """
    written_table(tmp_path).rename(columns={"label": "team"}).to_csv(tmp_path / "my table.csv", index=False)
    links = []
    monkeypatch.setattr("typer.launch", links.append)

    def serve(server):
        server.review.answer(0, "keep")
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "serve_forever", serve)

    def running(*more):
        table = ["--data", str(tmp_path / "my table.csv"), "--label-column", "team"]
        embeddings = ["--embeddings", str(tmp_path / "features.npy"), "--output", str(tmp_path / "scan")]
        return CliRunner().invoke(app, ["review", *table, *embeddings, *more]), links

    return running


def test_answers_that_were_not_judged_are_told_at_the_end(run, tmp_path):
    done, links = run()
    assert done.exit_code == 0, done.output
    assert "1 labels are right, 0 wrong" in done.stdout
    assert (tmp_path / "scan" / "report.html").exists()
    command = shlex.split(done.stdout.partition("Train with your answers: ")[2])
    assert command[:6] == [
        "clear-peft", "train", "--data", str(tmp_path / "my table.csv"), "--label-column", "team"
    ]  # fmt: skip
    # what train cannot do without
    assert command[-4:] == ["--model", "MODEL", "--output", "FOLDER"]
    # who may list the processes sees this one, so it is not the link that is printed
    (link,) = links
    assert link not in done.stderr
    assert "/?token=" in done.stderr


def test_no_browser_is_started_where_none_is_wanted(run):
    done, links = run("--no-browser")
    assert done.exit_code == 0, done.output
    assert links == []


def test_labels_of_words_are_refused_in_a_sentence(tmp_path):
    table = tmp_path / "ner.conll"
    table.write_text("Anna B-PER\nsleeps O\n\nBob B-PER\nruns O\n")
    done = CliRunner().invoke(app, ["review", "--data", str(table), "--output", str(tmp_path / "scan")])
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"'{table}' has labels of words, which are not reviewed: use scan."
    assert not (tmp_path / "scan").exists()
