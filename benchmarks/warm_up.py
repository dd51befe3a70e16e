"""What `probe.py` and `estimators.py` have in common: noisy rows, and training as the warm-up does it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from transformers import PrinterCallback, set_seed
from transformers.trainer_callback import ProgressCallback

from clear_peft.data import LabelNames, load_examples, tokenize
from clear_peft.errors import InputError
from clear_peft.noise import NoiseSpec, corrupt
from clear_peft.pipeline.models import load_classifier, load_tokenizer
from clear_peft.pipeline.packages import minilm
from clear_peft.trainer import CleaRConfig, CleaRTrainer, preset
from clear_peft.tuners import build


@dataclass(frozen=True, eq=False)
class NoisyRows:
    """Training rows with given and true labels, ready for a model."""

    tokens: object
    labels: np.ndarray
    clean: np.ndarray
    names: LabelNames

    @property
    def wrong(self) -> np.ndarray:
        """Which given labels are not the true ones, (N,) bool."""
        return self.labels != self.clean


def arguments(description: str) -> argparse.ArgumentParser:
    """Options of the data and the model."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--kind", default="symmetric")
    parser.add_argument("--rate", type=float, default=0.6)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--model", help="default: the packaged MiniLM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random-head", action="store_true", help="begin with the head as it comes")
    return parser


def noisy_rows(options: argparse.Namespace) -> NoisyRows:
    """Read the table, draw rows and noise; a column clean_label takes the place of the noise."""
    transformers.logging.set_verbosity_error()
    options.model = options.model or str(minilm())
    table = load_examples(options.data)
    marked = "clean_label" in table.frame.columns
    if marked:
        table = load_examples(options.data, clean_label_column="clean_label")
    rows = np.random.default_rng(options.seed).permutation(len(table.examples))[: options.rows]
    examples, classes = table.examples.select(np.sort(rows)), len(table.names.names)
    if marked:
        labels, clean = examples.labels, examples.clean_labels
    else:
        clean = examples.labels
        labels = corrupt(clean, classes, NoiseSpec(options.kind, options.rate), options.seed).labels
    tokens = tokenize(examples, load_tokenizer(options.model), 64)
    tokens = tokens.remove_columns("labels").add_column("labels", labels)
    print(f"{len(labels)} rows, {classes} classes, {(labels != clean).mean():.1%} wrong labels")
    return NoisyRows(tokens, labels, clean, table.names)


def trainer_of(
    data: NoisyRows, options: argparse.Namespace, seed: int, folder: str, **settings
) -> CleaRTrainer:
    """A trainer of ten epochs on the given labels: LoRA r = 8, batches of 32."""
    set_seed(seed)
    tokenizer = load_tokenizer(options.model)
    trainer = CleaRTrainer(
        model=build(load_classifier(options.model, data.names, tokenizer), "lora", options={"r": 8}),
        args=CleaRConfig(
            **{
                **preset("recommended"),
                "output_dir": folder,
                "seed": seed,
                "warm_up_epochs": 0,
                "reestimate_every_epoch": True,
                "restart": False,
                "noise_threshold": 1.0,  # estimated, and all trusted
                "probe_init": not options.random_head,
                "eval_strategy": "no",
                "save_strategy": "no",
                "load_best_model_at_end": False,
                "report_to": "none",
                "disable_tqdm": True,
                **settings,
            },
        ),
        train_dataset=data.tokens,
        processing_class=tokenizer,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def logits_of(trainer: CleaRTrainer, data: NoisyRows) -> np.ndarray:
    """What the model says of the rows now, (N, C); training goes on as if it had not been asked."""
    with torch.random.fork_rng():
        return trainer.predict(data.tokens).predictions


def begin(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run a script on what stands on its command line; bad input is a sentence, and exit status 2."""
    try:
        main(parser.parse_args())
    except InputError as error:
        parser.error(str(error))
