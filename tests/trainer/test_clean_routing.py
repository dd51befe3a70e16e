"""Gates in transformers' own trainer, and in TRL's."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from clear_peft import CleanRouting
from clear_peft.errors import InputError
from tiny_models import CONFIGS

ROWS, LENGTH = 24, 6


class Routed(CleanRouting, Trainer):
    pass


def causal(architecture="llama", **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **CONFIGS[architecture])
        lora = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, **options)
        return get_peft_model(AutoModelForCausalLM.from_config(config), lora)


def rows(p=None):
    tokens = np.random.default_rng(0).integers(3, 99, size=(ROWS, LENGTH)).tolist()
    columns = {"input_ids": tokens, "labels": tokens}
    return Dataset.from_dict(columns if p is None else columns | {"clean_probability": p})


def trained(kind, folder, data, model=causal, **more):
    settings = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 0.01, **more}
    arguments = TrainingArguments(
        str(folder), report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, **settings
    )
    made = kind(model(), arguments, train_dataset=data, eval_dataset=rows())
    made.train()
    return made


def adapter(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if "lora_" in name}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_rows_that_are_surely_clean_train_as_ever(tmp_path):
    plain, routed = trained(Trainer, tmp_path, rows()), trained(Routed, tmp_path, rows([1.0] * ROWS))
    assert same(adapter(plain), adapter(routed))
    assert plain.evaluate()["eval_loss"] == routed.evaluate()["eval_loss"]


def test_rows_that_are_surely_wrong_teach_nothing(tmp_path):
    start = {name: p.detach().clone() for name, p in causal().named_parameters() if "lora_" in name}
    assert same(start, adapter(trained(Routed, tmp_path, rows([0.0] * ROWS), weight_decay=0.0)))


def test_layers_that_see_all_tokens_of_a_batch_in_a_row_are_gated(tmp_path):
    opt = partial(causal, "opt", target_modules="all-linear")  # its feed-forward does
    start = adapter(SimpleNamespace(model=opt()))
    plain = trained(Trainer, tmp_path, rows(), opt)
    assert same(adapter(plain), adapter(trained(Routed, tmp_path, rows([1.0] * ROWS), opt)))
    assert same(start, adapter(trained(Routed, tmp_path, rows([0.0] * ROWS), opt, weight_decay=0.0)))
    assert not same(start, adapter(plain))


def test_each_row_goes_by_its_own_probability(tmp_path):
    wrong = np.arange(ROWS) % 2 == 0
    tokens = rows()
    made = trained(Routed, tmp_path, rows(np.where(wrong, 0.0, 1.0).tolist()), gradient_accumulation_steps=2)
    # the same but for what the wrong rows say: nothing changes
    changed = rows(np.where(wrong, 0.0, 1.0).tolist()).to_dict()
    for row in np.flatnonzero(wrong):
        changed["labels"][row] = [5] * LENGTH
    other = trained(Routed, tmp_path, Dataset.from_dict(changed), gradient_accumulation_steps=2)
    assert same(adapter(made), adapter(other))
    assert tokens["labels"] != changed["labels"]


def test_what_is_saved_is_an_ordinary_adapter(tmp_path):
    made = trained(Routed, tmp_path / "run", rows([0.5] * ROWS))
    made.save_model(str(tmp_path / "saved"))
    loaded = causal()
    loaded.load_adapter(str(tmp_path / "saved"), "default")
    ids = torch.tensor(rows()["input_ids"][:3])
    made.model.eval()
    made.router.detach()
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, made.model(ids).logits)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "There is no train_dataset"),
        ([1, 2], "a train_dataset of type list"),
        (rows([1.0] * ROWS).to_iterable_dataset(), "a train_dataset of type IterableDataset"),
        (rows(), "no column clean_probability"),
        (rows([1.5] * ROWS), "holds more than numbers from 0 to 1"),
        (rows([float("nan")] * ROWS), "holds more than numbers from 0 to 1"),
    ],
)
def test_bad_data_is_refused(tmp_path, data, sentence):
    with pytest.raises(InputError, match=sentence):
        Routed(causal(), TrainingArguments(str(tmp_path), report_to="none"), train_dataset=data)


def test_packed_rows_are_refused(tmp_path):
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    arguments.packing = True
    with pytest.raises(InputError, match="set packing=False"):
        Routed(causal(), arguments, train_dataset=rows([1.0] * ROWS))
