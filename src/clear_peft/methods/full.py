"""Full fine-tuning of all weights on the given labels."""

from clear_peft.methods.method import Method

METHOD = Method(name="full", summary="full fine-tuning", adapter=False)
