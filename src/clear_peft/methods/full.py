"""Full fine-tuning of all weights on the given labels."""

from clear_peft.methods.method import Method

METHOD = Method("full", "full fine-tuning", adapter=False, settings={"clean_routing": False})
