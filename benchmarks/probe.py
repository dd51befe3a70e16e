"""What a linear probe knows of wrong labels, before any training and after every epoch on the given labels.

Run it with `python benchmarks/probe.py --data banking77/train.csv --kind symmetric --rate 0.6`, on a
table with the columns text and label; a column clean_label, if there is one, takes the place of --kind.
Trains as the warm-up of `recommended` does, on all rows (MiniLM, LoRA r = 8, batches of 32, at most 64
tokens, peak learning rate 1e-3 of a schedule over ten epochs). Prints how many true labels the model's own
head predicts, and how many the probe, for rows that it has not seen; how well the probe ranks wrong labels
(average precision); the noise rate and the kind of noise that it estimates.
"""

import argparse
import tempfile

import numpy as np
import torch
import transformers
from sklearn.metrics import average_precision_score
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.trainer_callback import ProgressCallback

from clear_peft.data import load_examples, tokenize
from clear_peft.noise import NoiseSpec, corrupt
from clear_peft.runs.models import bf16_pays, load_classifier, load_tokenizer
from clear_peft.runs.packages import minilm
from clear_peft.training import CleaRConfig, CleaRTrainer
from clear_peft.training.scoring import predict_logits
from clear_peft.tuners import build


class Epochs(TrainerCallback):
    """Prints a line for every epoch, and stops after some."""

    def __init__(self, trainer: CleaRTrainer, clean: np.ndarray, wrong: np.ndarray, last: int) -> None:
        self.trainer, self.clean, self.wrong, self.last = trainer, clean, wrong, last

    def show(self, epoch: int) -> None:
        """What head and probe make of the rows now."""
        state = self.trainer.cleanliness
        head = self.trainer._everywhere(predict_logits)[0].argmax(dim=1).numpy()
        probe = state.teacher.predicted.numpy()
        precision = average_precision_score(self.wrong, -state.clean_probability) if self.wrong.any() else 0
        right = [f"{(predicted == self.clean).mean():6.1%}" for predicted in (head, probe)]
        judged = f"{precision:9.3f}  {state.noise_rate:9.1%}  {state.parameters['noise']}"
        print(f"{epoch:5}", *right, judged, sep="  ", flush=True)

    def on_epoch_end(self, args, state, control, **_) -> None:
        """An epoch is over, and has been judged."""
        self.show(round(state.epoch))
        control.should_training_stop = state.epoch >= self.last


def main() -> None:
    """Parse, train, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--kind", default="symmetric")
    parser.add_argument("--rate", type=float, default=0.6)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--epochs", type=int, default=0, help="of the ten; 0 trains nothing")
    parser.add_argument("--random-head", action="store_true", help="begin with the head as it comes")
    parser.add_argument("--model", help="default: the packaged MiniLM")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()

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
    wrong = labels != clean
    print(f"{len(labels)} rows, {classes} classes, {wrong.mean():.1%} wrong labels")

    set_seed(options.seed)
    model = options.model or str(minilm())
    tokenizer = load_tokenizer(model)
    tokens = tokenize(examples, tokenizer, 64)
    tokens = tokens.remove_columns("labels").add_column("labels", labels)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CleaRTrainer(
            model=build(load_classifier(model, table.names, tokenizer), "lora", options={"r": 8}),
            args=CleaRConfig(
                output_dir=folder,
                num_train_epochs=10,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=64,
                learning_rate=1e-3,
                warmup_steps=0.06,
                seed=options.seed,
                bf16=bf16_pays(),
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=False,
                train_sampling_strategy="group_by_length",
                warm_up_epochs=0,
                reestimate=True,
                fresh_start=False,
                doubt_above=1.0,  # judged, and all believed
                probe_head=not options.random_head,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=tokens,
            processing_class=tokenizer,
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        epochs = Epochs(trainer, clean, wrong, options.epochs)
        trainer.add_callback(epochs)
        print("epoch    head   probe  precision  estimated  noise")
        epochs.show(0)
        if options.epochs:
            trainer.train()


if __name__ == "__main__":
    main()
