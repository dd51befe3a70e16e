"""A sequence-classification model and the name of a PEFT method in, a PEFT model out."""

from clear_peft.lazy import lazy_attributes
from clear_peft.tuners.catalogue import available_methods

__all__ = [
    "AptConfig",
    "AptModel",
    "BottleneckConfig",
    "BottleneckModel",
    "available_methods",
    "build",
    "load_adapter",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "AptConfig": "clear_peft.tuners.apt",
        "AptModel": "clear_peft.tuners.apt",
        "BottleneckConfig": "clear_peft.tuners.bottleneck",
        "BottleneckModel": "clear_peft.tuners.bottleneck",
        "build": "clear_peft.tuners.presets",
        "load_adapter": "clear_peft.tuners.loading",
    },
)
