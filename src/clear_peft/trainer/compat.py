"""Every name of ``transformers.Trainer`` that is used here and is not documented.

All of them exist, with the same meaning, from transformers 5.5.4 to 5.24; tests/trainer/test_compat.py finds
the names that the code uses and looks for them in the version that is installed. Before 5.5.4 gradients were
divided by the accumulation steps twice.
"""

from transformers import TrainingArguments

# the setting that computes activations again in the backward: until transformers 5.23, and since
CHECKPOINTING = next(
    f"{kind}_checkpointing"
    for kind in ("activation", "gradient")
    if hasattr(TrainingArguments, f"{kind}_checkpointing")
)

# overridden
OVERRIDDEN = {
    "_get_train_sampler": "samples rows in proportion to weights",
    "_get_eval_sampler": "rows of like length together, in an order that can be undone",
    "_set_signature_columns_if_needed": "keeps the column of ids",
    "_get_grad_norm": "tells whether the gradient is finite, without another pass over it",
    "_save_checkpoint": "the averaged weights, and what the next step needs besides them",
    "_save": "bottleneck adapters, which transformers cannot write",
    "_save_rng_state": "no checkpoint is called whole before all processes have written",
    "_load_from_checkpoint": "adapters of every kind; peft's loading makes all it loads trainable",
    "_load_optimizer_and_scheduler": "DeepSpeed loads a model by itself, and does not call the one above",
    "_load_best_model": "adapters of every kind",
    "_determine_best_metric": "which epochs may be the best, and which are equal",
}
# read or called
USED = {
    "_signature_columns": "columns that the model takes",
    "_remove_unused_columns": "passes over the rows",
    "_get_collator_with_removed_columns": "passes over the rows",
    "_prepare_inputs": "passes over the rows",
    "_get_output_dir": "the folder of a checkpoint",
    "_train_batch_size": "what auto_find_batch_size has made of the batch size",
}
