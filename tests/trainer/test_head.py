"""A head that begins as a linear probe tells the classes apart before the first step."""

import warnings

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from test_restart import RESTART, NothingFound, Weights
from test_trainer import StopAfter, equal
from torch import nn
from toy import CONV1D, Constant, is_lora, model, rows, trained, trainer, weights

from clear_peft.errors import ClearWarning, RunFailedError
from clear_peft.label_quality import LinearHead, fit_linear_head
from clear_peft.trainer import row_passes
from clear_peft.trainer.head import LinearProbeInit, find_head, head_inputs, looks_trained, set_head
from tiny_models import ARCHITECTURES, tiny


class HalfBelieved:
    """Believes the first half of the labels more than the second."""

    def __init__(self):
        self.inner = Constant(0.6)

    def estimate(self, losses, labels=None):
        estimate = self.inner.estimate(losses, labels)
        estimate.clean_probability[len(losses) // 2 :] = 0.2
        return estimate


def collate(examples):
    return {k: torch.tensor(np.array([e[k] for e in examples])) for k in examples[0]}


def dataset_of(batch):
    columns = {name: tensor.numpy().tolist() for name, tensor in batch.items()}
    return Dataset.from_dict({**columns, "clear_example_id": range(4)})


def inputs_of(head, made, data, batch_size=3):
    return head_inputs(head, made, data, collate, batch_size=batch_size, lengths=None, prepare=dict)


def features_of(made, data):
    data = data.remove_columns("labels").add_column("clear_example_id", range(len(data)))
    return inputs_of(find_head(made), made, data)


def logits_of(made, batch):
    with torch.no_grad():
        return made(**batch).logits.float()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_inputs_are_what_the_logits_come_from(architecture):
    base, batch = tiny(architecture)
    head = find_head(base)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    features = inputs_of(head, base, dataset_of(batch)).float()
    expected = logits_of(base, batch)
    scale = expected.abs().amax().item()
    torch.testing.assert_close(head(features).detach(), expected, atol=0.01 * scale, rtol=0)  # float16


@pytest.mark.filterwarnings(CONV1D)
@pytest.mark.parametrize("architecture", ["bert", "roberta", "gpt2", "llama"])
def test_the_head_of_an_adapted_model_is_the_one_that_is_trained(architecture):
    base, batch = tiny(architecture)
    made = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", r=3)).eval()
    head = find_head(made)
    assert head.weight.requires_grad
    with torch.no_grad():
        head.weight.zero_()
        if head.bias is not None:
            head.bias.zero_()
    assert not logits_of(made, batch).any()


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_a_head_that_is_set_gives_the_probes_logits(architecture):
    """Without a bias (gpt2) the mean of the inputs, here the only one, stands for it."""
    base, batch = tiny(architecture)
    head, rng = find_head(base), np.random.default_rng(0)
    assert (head.bias is None) == (architecture == "gpt2")
    batch = {name: tensor[:1] for name, tensor in batch.items()}
    data = Dataset.from_dict({**{n: t.tolist() for n, t in batch.items()}, "clear_example_id": [0]})
    features = inputs_of(head, base, data).float().numpy()
    start = LinearHead(rng.normal(size=(32, 3)), rng.normal(size=3))
    set_head(head, start, features.mean(axis=0))
    np.testing.assert_allclose(logits_of(base, batch), features @ start.weights + start.bias, atol=0.02)


def test_no_head_is_found_where_none_is_linear_or_trained():
    assert find_head(nn.Linear(2, 3)) is None
    base, _ = tiny("bert")
    base.classifier.requires_grad_(False)
    assert find_head(base) is None


def test_training_begins_as_a_probe_of_the_given_labels(tmp_path):
    callback, data = Weights(), rows(22)
    made = trained(tmp_path, callbacks=[callback], probe_init=True, train_dataset=data)
    first, start = callback.seen[0], model()
    features = features_of(start, data)
    expected = fit_linear_head(features.numpy(), np.array(data["labels"]), 3)
    head = find_head(made.model)
    name = next(n for n, p in made.model.named_parameters() if p is head.weight)
    np.testing.assert_allclose(first[name], expected.weights.T, rtol=1e-4, atol=1e-4)
    initial = weights(trainer(tmp_path))
    assert all(torch.equal(first[n], w) == (is_lora(n)) for n, w in initial.items())


def test_a_restart_begins_as_a_probe_of_the_labels_that_are_believed(tmp_path):
    callback, data = Weights(), rows(22)
    made = trained(
        tmp_path, by=HalfBelieved(), callbacks=[callback], probe_init=True, train_dataset=data, **RESTART
    )
    start = model()
    features = features_of(start, data)
    labels, belief = np.array(data["labels"]), np.repeat(np.float32([0.6, 0.2]), 11)
    expected = fit_linear_head(features.numpy(), labels, 3, clean_probability=belief)
    head = find_head(made.model)
    name = next(n for n, p in made.model.named_parameters() if p is head.weight)
    warmed_up, again = callback.seen[0], callback.seen[2]
    np.testing.assert_allclose(again[name], expected.weights.T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(again[name], warmed_up[name]), "belief counts"
    assert all(torch.equal(again[n], w) for n, w in warmed_up.items() if is_lora(n))


def test_what_the_head_is_given_where_training_begins_is_read_once(tmp_path, monkeypatch):
    passes = []
    monkeypatch.setattr(row_passes, "head_inputs", lambda *a, **k: passes.append(1) or head_inputs(*a, **k))
    made = trained(tmp_path, by=HalfBelieved(), probe_init=True, **RESTART)
    assert any("restarts" in entry for entry in made.state.log_history)
    assert len(passes) == 1


@pytest.mark.filterwarnings("ignore:The head of the model looks trained")
def test_where_training_begins_is_read_anew_and_where_it_restarts_is_not():
    base, _ = tiny("bert")
    reads, rows_read = [], np.array([0, 2, 3])

    def inputs_of(head, read):
        reads.append(read.tolist())
        return torch.randn(len(read), head.in_features, generator=torch.Generator().manual_seed(0))

    start = LinearProbeInit(inputs_of, np.array([0, 1, 2, 1]), rows_read)
    for belief in (None, None, np.ones(4, np.float32), np.ones(4, np.float32)):
        start.begin(base, belief)
    assert reads == [[0, 2, 3]] * 3, "the last belief had nothing kept, as after resuming"


def test_a_model_that_is_not_finite_is_refused(tmp_path):
    start = model()
    with torch.no_grad():
        start.base_model.model.bert.embeddings.word_embeddings.weight[50] = torch.nan  # in some batches
    data = rows(22)
    assert {50 in ids for ids in data["input_ids"]} == {True, False}
    with pytest.raises(RunFailedError, match="features on the training set are not finite"):
        trained(tmp_path, start=start, train_dataset=data, probe_init=True, per_device_eval_batch_size=1)


def test_nothing_found_is_plain_training_from_the_probe(tmp_path):
    callback = Weights()
    robust = trained(tmp_path, by=NothingFound(), callbacks=[callback], probe_init=True, **RESTART)
    start = model()
    state = start.state_dict()
    start.load_state_dict({n: callback.seen[0].get(n, w) for n, w in state.items()})
    plain = trained(tmp_path, start=start, clean_routing=False, num_train_epochs=RESTART["num_train_epochs"])
    assert equal(weights(plain), weights(robust))


@pytest.mark.parametrize("stop_at", [1, 1.3, 2, 2.6])
def test_resumed_training_ends_where_undisturbed_training_does(tmp_path, stop_at):
    saved = {"save_strategy": "steps", "save_steps": 1}
    common = {"by": HalfBelieved(), "probe_init": True, **saved, **RESTART}
    whole = trained(tmp_path / "whole", **common)
    trained(tmp_path / "cut", callbacks=[StopAfter(stop_at)], **common)
    resumed = trainer(tmp_path / "cut", **common)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))


@pytest.mark.filterwarnings(CONV1D)
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_a_head_that_looks_trained_is_replaced_with_a_warning(tmp_path, architecture):
    start = model(architecture)
    head = find_head(start)
    assert not looks_trained(head, start)
    with torch.no_grad():
        (head.weight if head.bias is None else head.bias).fill_(1.0)
    assert looks_trained(head, start)
    with pytest.warns(ClearWarning, match="probe_init=False"):
        trained(tmp_path, start=start, probe_init=True, num_train_epochs=1)


def test_a_new_head_is_replaced_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClearWarning)
        trained(tmp_path, probe_init=True, num_train_epochs=1)
