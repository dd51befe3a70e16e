"""Feed broken files to everything that reads one: tables, options, corrections, label names, label issues.

Run it with `python benchmarks/fuzz.py --minutes 30`. Seeds of every format are mutated (bytes flipped, cut,
doubled, spliced, odd characters put in). Anything but success or `InputError` of one sentence is a finding,
and so are ten seconds without an answer and a file left half-written; the input is kept in the folder
`--findings`. Exits 1 where there is a finding.
"""

import argparse
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.audit import read_corrections
from clear_peft.audit.issues import read_issues
from clear_peft.data import LabelNames, load_examples, read_table, unescape_formulas, write_table
from clear_peft.errors import InputError
from clear_peft.run_folder.config import RunConfig, read_yaml

LIMIT = 10  # seconds for one input
NAMES = LabelNames(("a", "b", "c"))

TABLE = 'id,text,label\n1,wheat and barley,a\n2,"anchor, ""mast""",b\n3,\'=loom,a\n4,näht\u2028e,b\n5,x,b\n'
CORRECTIONS = (
    "row,action,label,given_label,text\n0,relabel,b,a,wheat and barley\n2,drop,,a,''=loom\n4,keep,,b,x\n"
)
ISSUES = (
    "row,text,given_label,predicted_label,clean_probability,label_quality,is_label_issue,split\n"
    "1,b,a,b,0.1,0.2,True,train\n0,a,b,b,0.9,0.8,False,validation\n"
)
OPTIONS = (
    "model: m\ndata: d.csv\noutput: o\nepochs: 3\nlearning_rate: 1e-3\npeft_options: {r: 8}\n"
    "target_modules: [query, value]\ntraining: {route: false}\nseed: 5\n"
)
RECORDS = (
    '{"id": 1, "text": "wheat", "label": "a", "more": [1, {"x": null}]}\n'
    '{"text": "an\\u0001chor", "label": "a"}\n{"text": "x", "label": 2}\n{"text": "y", "label": 2}\n'
)
ODD = [
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b'"',
        b"'",
        b",",
        b"\t",
        b"\r",
        b"\n",
        b"\r\n",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(
        b"=",
        b"NaN",
        b"Infinity",
        b"-0",
        b"1e999",
        b"9" * 5000,
        b"\\ud800",
        b"&a",
        b"*a",
        b"!!python/name:os.system",
    ),
    *(
        b"null",
        b"true",
        b"0x1f",
        b"2024-99-99",
        b"<<",
        b"~",
        b"%",
        b"\xe2\x80\xa8",
        b"[" * 3000,
        b'{"a":' * 3000,
    ),
    *(b"text,text", b"row", b"-1", b"1.0", b"", b"\x1b[31m", "ｅ＝".encode(), b"a" * 200_000),
]


def _parquet() -> bytes:
    frame = pd.DataFrame(
        {"text": ["wheat", "anchor", "tide", "x"], "label": [1, 2, 1, 2], "id": [1.5, 2, 3, None]}
    )
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


def _examples(path: Path) -> None:
    table = load_examples(path)
    write_table(table.frame, path.with_name("copy.jsonl"))
    for ending in (".csv", ".tsv", ".parquet"):
        with suppress(InputError):  # it may hold what the format cannot
            write_table(table.frame, path.with_name(f"copy{ending}"))
            read_table(path.with_name(f"copy{ending}"))
    load_examples(path, label_column=None)
    unescape_formulas(table.frame)


def _options(path: Path) -> None:
    RunConfig.from_mapping(read_yaml(path), str(path))


def _corrections(path: Path) -> None:
    (path.with_name("table.csv")).write_text(TABLE, encoding="utf-8")
    read_corrections(path, load_examples(path.with_name("table.csv")).examples, NAMES)


TARGETS: dict[str, tuple[bytes, str, Callable[[Path], object]]] = {
    "csv": (TABLE.encode(), "t.csv", _examples),
    "tsv": (TABLE.replace(",", "\t").encode(), "t.tsv", _examples),
    "jsonl": (RECORDS.encode(), "t.jsonl", _examples),
    "parquet": (_parquet(), "t.parquet", _examples),
    "options": (OPTIONS.encode(), "run.yaml", _options),
    "corrections": (CORRECTIONS.encode(), "corrections.csv", _corrections),
    "label issues": (ISSUES.encode(), "label_issues.csv", lambda path: read_issues(path, ["a", "b"])),
    "label names": (b'["a", "b", "\\u00e4"]', "labels.json", LabelNames.load),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with one to six changes."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(content))
        to = min(len(content), at + rng.choice([1, 1, 2, 8, 40]))
        match rng.randint(0, 6):
            case 0 if content:
                content[min(at, len(content) - 1)] = rng.randrange(256)
            case 1:
                del content[at:to]
            case 2:
                content[at:at] = rng.choice(ODD)
            case 3:
                content[at:to] = rng.choice(ODD)
            case 4:
                content[at:at] = content[at:to] * rng.choice([1, 2, 50])
            case 5:
                other = rng.randint(0, len(content))
                content[at:at] = content[other : other + rng.choice([4, 30])]
            case _:
                del content[at if rng.random() < 0.2 else len(content) :]
    return bytes(content)


class _TooLongError(BaseException):
    """The limit of time is over; no `except Exception` hides it."""


def _ring(*_: object) -> None:
    raise _TooLongError


def attempt(read: Callable[[Path], object], path: Path) -> str | None:
    """What is wrong with how a file was read; None where nothing is."""
    before = {p.name for p in path.parent.iterdir()}
    signal.alarm(LIMIT)
    try:
        read(path)
    except InputError as error:
        if not str(error).strip():
            return "an empty sentence"
    except _TooLongError:
        return f"no answer in {LIMIT} seconds: {traceback.format_exc(limit=-3)}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return traceback.format_exc(limit=-6)
    finally:
        signal.alarm(0)
    left = {p.name for p in path.parent.iterdir() if p.name.endswith(".tmp")} - before
    return f"left over: {left}" if left else None


def main() -> None:
    """Mutate, read, count, and keep what broke something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    np.random.seed(options.seed)
    signal.signal(signal.SIGALRM, _ring)
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() < end:
            target = rng.choice(options.targets)
            data, name, read = TARGETS[target]
            content = mutated(data, rng)
            path = Path(scratch) / name
            path.write_bytes(content)
            counts[target] += 1
            wrong = attempt(read, path)
            if wrong is None:
                continue
            kind = f"{target}: {wrong.strip().splitlines()[-1][:160]}"
            kinds[kind] += 1
            if kinds[kind] <= 3:
                options.findings.mkdir(exist_ok=True)
                kept = options.findings / f"{sum(kinds.values())}-{name}"
                kept.write_bytes(content)
                kept.with_name(f"{kept.name}.txt").write_text(wrong, encoding="utf-8")
                print(f"{kept}: {kind}", flush=True)
    print(
        json.dumps(counts, indent=2),
        "\ninputs; findings:",
        *(f"{n} × {k}" for k, n in kinds.items()),
        sep="\n",
    )
    sys.exit(bool(kinds))


if __name__ == "__main__":
    main()
