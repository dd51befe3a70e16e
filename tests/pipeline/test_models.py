"""How long texts may be: what is allowed runs, and one token more does not."""

import pytest
import torch

from clear_peft.errors import InputError
from clear_peft.pipeline.models import check_length
from clear_peft.tuners import build
from tiny_models import tiny


@pytest.mark.parametrize(
    ("architecture", "peft", "limit"),
    [
        ("bert", "lora", 64),
        ("bert", "prefix", 44),
        ("roberta", "lora", 62),
        ("mpnet", "lora", 62),
        ("gpt2", "lora", 64),
        ("opt", "lora", 64),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_the_longest_text(architecture, peft, limit):
    model = build(tiny(architecture)[0], peft)
    check_length(model, limit)
    with pytest.raises(InputError, match=f"give at most {limit}"):
        check_length(model, limit + 1)

    def run(length):
        ids = torch.full((1, length), 5)
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    run(limit)
    with pytest.raises((IndexError, RuntimeError)):
        run(limit + 1)
