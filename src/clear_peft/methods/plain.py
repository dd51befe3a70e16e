"""Plain PEFT: the given labels as they are. The same trainer with its gates off, so that the two compare."""

from clear_peft.methods.method import Method

METHOD = Method(name="plain", summary="plain PEFT")
