"""Clean routing (Kim, Kim & Lee, ACL 2024, arXiv 2411.00873)."""

from clear_peft.methods.method import Method

METHOD = Method(name="clear", summary="clean routing", settings={"clean_routing": True})
