"""What a scan by Ray costs beside its encoder: time and memory for tables of any size.

    OMP_NUM_THREADS=1 python benchmarks/ray_scan.py --rows 200000
    python benchmarks/ray_scan.py --rows 10000000 --width 384 --folder /scratch/table

Needs the extra ray. The table is simulated: texts of a few words in files of 250,000 rows, 20 classes, and
20 % of the labels wrong. The encoder is a stub: it draws features around a centre for each class, three
layers of ``--width`` numbers, as all-MiniLM-L6-v2 has for 384. Prints seconds, the peak memory (resident) of
the process that started the scan and of the largest of the others, and how near the estimate came. A table
that is there already is scanned again.
"""

import argparse
import resource
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.ray_scan import SAMPLE_ROWS, scan_with_ray
from clear_peft.pipeline.scan_options import ScanOptions

_FILE_ROWS, _CLASSES, _LAYERS = 250_000, 20, 3
_NOISE, _SPREAD = 0.2, 3.0
_WORDS = np.array([f"word{i}" for i in range(5000)])


class Stub:
    """Features of a text by the class that its first word names."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.centres = np.random.default_rng(0).normal(size=(_CLASSES, width)).astype(np.float32)

    def layer_means(self, texts, rows, batch_size) -> tuple[np.ndarray, np.ndarray]:
        """Drawn for all texts of a call at once; none is cut."""
        rng = np.random.default_rng(int(rows[0]))
        right = np.array([int(text.split(" ", 1)[0][1:]) for text in texts])
        shape = (len(texts), _LAYERS, self.width)
        means = _SPREAD * rng.standard_normal(shape, np.float32) + self.centres[right][:, None]
        return means, np.zeros(len(texts), bool)


def write_table(folder: Path, rows: int) -> None:
    """Files of simulated texts and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, rows, _FILE_ROWS)):
        path, size = folder / f"{number:05d}.parquet", min(_FILE_ROWS, rows - start)
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        right = rng.integers(0, _CLASSES, size)
        wrong = rng.random(size) < _NOISE
        given = np.where(wrong, (right + rng.integers(1, _CLASSES, size)) % _CLASSES, right)
        words = _WORDS[rng.integers(0, len(_WORDS), (size, 6))]
        texts = [f"c{c} {' '.join(row)}" for c, row in zip(right.tolist(), words, strict=True)]
        pd.DataFrame({"text": texts, "label": given.astype(str)}).to_parquet(path, row_group_size=50_000)


class Watch(threading.Thread):
    """The largest resident memory of a process below this one, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    def run(self) -> None:
        """Look twice a second."""
        while not self.over.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    memory = process.memory_info()
                except psutil.Error:
                    continue
                # what lies in Ray's store is shared
                self.peak = max(self.peak, memory.rss - getattr(memory, "shared", 0))


def main() -> None:
    """Simulate and scan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--sample-rows", type=int, default=SAMPLE_ROWS)
    parser.add_argument("--folder", type=Path, default=Path("ray-scan"))
    options = parser.parse_args()
    data, output = options.folder / f"table-{options.rows}", options.folder / "scan"
    write_table(data, options.rows)
    shutil.rmtree(output, ignore_errors=True)
    watch, started = Watch(), time.perf_counter()
    watch.start()
    found = scan_with_ray(
        ScanOptions(data=str(data), output=str(output), model="stub"),
        Silent(),
        sample_rows=options.sample_rows,
        load=lambda: Stub(options.width),
    )
    seconds = time.perf_counter() - started
    watch.over.set()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"rows {options.rows}, sample {found.summary['sampled']}, width {options.width}")
    print(f"seconds {seconds:.0f}")
    print(f"peak memory: this process {own / 1e9:.2f} GB, the largest other {watch.peak / 1e9:.2f} GB")
    low, high = found.summary["noise_rate_interval"]
    rate, error = found.summary["noise_rate_estimate"], found.summary["sampling_error"]
    print(f"noise rate {rate:.4f} ({low:.4f} to {high:.4f}; sampling error {error:.4f}), in truth {_NOISE}")


if __name__ == "__main__":
    main()
