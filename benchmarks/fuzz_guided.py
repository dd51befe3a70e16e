"""Feed broken files to everything that reads one, guided by coverage: what reaches new code is mutated on.

Run it with `python benchmarks/fuzz_guided.py --minutes 10`, where atheris is installed (`pip install
atheris`). Readers, seeds and findings are those of fuzz.py; the first byte of an input chooses the reader.
Exits 1 where there is a finding.
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["clear_peft", "yaml"]):
    import fuzz

    KINDS = list(fuzz.TARGETS)
    with tempfile.TemporaryDirectory() as first:  # what is imported late is imported now
        for kind in KINDS:
            seed, file_name, read_seed = fuzz.TARGETS[kind]
            (Path(first) / file_name).write_bytes(seed)
            read_seed(Path(first) / file_name)


def guided(options: argparse.Namespace, scratch: Path) -> None:
    """Let libFuzzer run in this process, which it ends."""
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, kind in enumerate(KINDS):
        (corpus / str(number)).write_bytes(bytes([number]) + fuzz.TARGETS[kind][0])
    words = ["".join(f"\\x{byte:02x}" for byte in word) for word in fuzz.ODD if 0 < len(word) < 64]
    (scratch / "words").write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
    seen: dict[str, int] = {}

    def one(data: bytes) -> None:
        if not data:
            return
        signal.signal(signal.SIGALRM, fuzz._ring)  # libFuzzer has its own when it starts
        kind = KINDS[data[0] % len(KINDS)]
        _, name, read = fuzz.TARGETS[kind]
        path = scratch / "work" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data[1:])
        wrong = fuzz.attempt(read, path)
        if wrong is None:
            return
        what = f"{kind}: {wrong.strip().splitlines()[-1][:160]}"
        seen[what] = seen.get(what, 0) + 1
        if seen[what] <= 3:
            options.findings.mkdir(exist_ok=True)
            kept = options.findings / f"{hashlib.sha256(data).hexdigest()[:12]}-{name}"
            kept.write_bytes(data[1:])
            kept.with_name(f"{kept.name}.txt").write_text(wrong, encoding="utf-8")
            print(f"{kept}: {what}", flush=True)

    flags: dict[str, Any] = {
        "max_total_time": round(60 * options.minutes),
        "seed": options.seed + 1,  # 0 would be another at every call
        "dict": scratch / "words",
        "timeout": 0,  # the limit is fuzz.attempt's
        "rss_limit_mb": 0,
        "max_len": 8192,
        "len_control": 0,
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], str(corpus), *(f"-{name}={value}" for name, value in flags.items())], one)
    atheris.Fuzz()


def main() -> None:
    """Run it in a child, and look what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        process = multiprocessing.get_context("fork").Process(target=guided, args=(options, Path(scratch)))
        process.start()
        process.join()
    found = sorted(options.findings.glob("*.txt")) if options.findings.is_dir() else []
    print(f"{len(found)} findings kept, libFuzzer ended with {process.exitcode}")
    sys.exit(bool(found or process.exitcode))


if __name__ == "__main__":
    main()
