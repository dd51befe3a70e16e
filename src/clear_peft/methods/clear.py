"""Clean routing (Kim, Kim & Lee, ACL 2024)."""

from clear_peft.methods.method import Method

METHOD = Method("clear", "clean routing", adapter=True, settings={"clean_routing": True})
