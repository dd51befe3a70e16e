"""BitFit (Ben Zaken et al. 2022, arXiv:2106.10199) as an ordinary PEFT adapter.

peft has no BitFit. Its BEFT adds a trained vector to a linear layer's output, which is the same as training
the layer's bias. Biases of LayerNorms have no such type; those layers go into `modules_to_save` and only the
bias of the copy trains. So the frozen model is kept, and plain peft loads what is saved.

Trained are the biases of every linear layer and LayerNorm inside the transformer blocks, the classification
head and, where there is one, the pooler. Biases outside the blocks (the embeddings' LayerNorm, a final
LayerNorm) stay frozen, as in CleaR. Not covered, with an `InputError`: GPT-2's `Conv1D`, other layers with a
bias of their own, and models whose blocks have no biases (Llama, Qwen3, T5, ModernBERT).
"""

from peft import PeftModel, get_peft_model
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.anatomy import block_modules
from clear_peft.tuners.internals import ModulesToSaveWrapper


def build_bitfit(model: PreTrainedModel, trained: list[str], task_type: str | None) -> PeftModel:
    """Make every bias in the blocks of a model trainable.

    Args:
        model: A transformers classification model, changed in place.
        trained: Names of the modules that are trained and saved as a whole (head, pooler).
        task_type: peft's task type.

    Returns:
        A model of PEFT type BEFT. Loaded with plain `PeftModel.from_pretrained` it computes the same; loaded
        there with `is_trainable=True` it would train the LayerNorms' weights as well.

    Raises:
        InputError: The blocks have no biases, or biases that cannot be trained so.
    """
    from peft import BeftConfig  # since 0.20; before, there is no BitFit among the available methods

    linears, norms = _biased(model)
    config = BeftConfig(task_type=task_type, target_modules=linears, modules_to_save=[*trained, *norms])
    peft_model = get_peft_model(model, config)
    for name in norms:
        _freeze_weight(peft_model.get_base_model().get_submodule(name))
    return peft_model


def _biased(model: PreTrainedModel) -> tuple[list[str], list[str]]:
    """Find the linear layers and the LayerNorms with a bias, by their full names."""
    linears, norms = [], []
    for name, module in block_modules(model).items():
        if module._parameters.get("bias") is None:
            continue
        if isinstance(module, nn.Linear):
            linears.append(name)
        elif isinstance(module, nn.LayerNorm):
            norms.append(name)
        else:
            raise InputError(
                f"bitfit cannot train the bias of {name} in {type(model).__name__}, a "
                f"{type(module).__name__}: use lora or adapter."
            )
    if not linears:
        raise InputError(
            f"The blocks of {type(model).__name__} have no biases for bitfit: use lora or adapter."
        )
    return linears, norms


def _freeze_weight(wrapper: ModulesToSaveWrapper) -> None:
    """Turn the weight of a trained LayerNorm into a buffer.

    `requires_grad_(False)` would not last: leaving `disable_adapter()`, peft makes every parameter of the
    copy trainable again. A buffer keeps its name in the state dict, so the saved adapter is the same.
    """
    norm = wrapper.modules_to_save["default"]
    weight = norm.weight.detach()
    del norm.weight
    norm.register_buffer("weight", weight)
