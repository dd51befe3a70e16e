"""The matrix of (tuner × architecture): a new row is one line and earns every check."""

import copy
import tempfile
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from clear_peft.pipeline.quantization import check_installed, settings
from clear_peft.tuners import build
from clear_peft.tuners.anatomy import head_names, pooler_names
from clear_peft.tuners.catalogue import newer_peft
from clear_peft.tuners.precision import prepare_base
from tiny_models import tiny

TINY_R = {"r": 4}
TUNERS: dict[str, tuple[str, dict]] = {
    "lora": ("LoraConfig", TINY_R),
    "dora": ("LoraConfig", {"r": 4, "use_dora": True}),
    "rslora": ("LoraConfig", {"r": 4, "use_rslora": True, "lora_dropout": 0.2}),
    "lora_bias": ("LoraConfig", {"r": 4, "lora_bias": True}),
    "lora_orthogonal": ("LoraConfig", {"r": 4, "init_lora_weights": "orthogonal"}),
    "adalora": ("AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 10}),
    "ia3": ("IA3Config", {"feedforward_modules": []}),
    "loha": ("LoHaConfig", TINY_R),
    "lokr": ("LoKrConfig", TINY_R),
    "oft": ("OFTConfig", {"oft_block_size": 4}),
    "boft": ("BOFTConfig", {"boft_block_size": 4}),
    "vera": ("VeraConfig", {"r": 8}),
    "pvera": ("PveraConfig", {"r": 8}),
    "vblora": ("VBLoRAConfig", {"r": 4, "num_vectors": 8, "vector_length": 8, "topk": 2}),
    "fourierft": ("FourierFTConfig", {"n_frequency": 20}),
    "waveft": ("WaveFTConfig", {"n_frequency": 20}),
    "hra": ("HRAConfig", TINY_R),
    "miss": ("MissConfig", TINY_R),
    "miss_bat": ("MissConfig", {"r": 4, "init_weights": "bat"}),
    "randlora": ("RandLoraConfig", {"r": 4}),
    "shira": ("ShiraConfig", {"r": 2}),
    "c3a": ("C3AConfig", {"block_size": 8}),
    "ln_tuning": ("LNTuningConfig", {}),
    "osf": ("OSFConfig", {}),
    "delora": ("DeloraConfig", TINY_R),
    "gralora": ("GraloraConfig", {"r": 4, "gralora_k": 2}),
    "beft": ("BeftConfig", {}),
    "hira": ("HiraConfig", TINY_R),
    "tinylora": ("TinyLoraConfig", {}),
    "psoft": ("PsoftConfig", TINY_R),
    "peanut": ("PeanutConfig", {}),
    "adamss": ("AdamssConfig", {}),
    "frod": ("FrodConfig", {}),
    "glora": ("GloraConfig", {}),
    "unilora": ("UniLoraConfig", {}),
    "supertuning": ("SupertuningConfig", {}),
    "deft": ("DeftConfig", {}),
    "road": ("RoadConfig", {"group_size": 16}),
}
LAYER_NORMS = {"bert": ["output.LayerNorm"], "llama": ["input_layernorm", "post_attention_layernorm"]}
ARCHITECTURES_WITH_LORA = [
    "roberta",
    "distilbert",
    "electra",
    "mpnet",
    "deberta-v2",
    "modernbert",
    "gpt2",
    "qwen3",
    "opt",
    "t5",
    "vit",
]
# what prefix and apt work with, and bitfit
WITH_CACHED_KEYS = ["bert", "roberta", "electra", "gpt2", "llama", "qwen3", "opt"]
WITH_BIASES = ["bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "opt", "vit"]

# RoSA before it has chosen its support, MetaPEFT's LoRA, and the whole supernet that GLoRA searches
RELATIVES = [r for r in ("rosa", "metapeft", "glora_supernet") if newer_peft(r.split("_")[0]) is None]


def carries(relative: str, architecture: str) -> bool:
    """Whether peft can put it there: RoSA and GLoRA want plain linear layers."""
    return relative == "metapeft" or architecture != "gpt2"


KNOWN = [tuner for tuner in TUNERS if newer_peft(tuner) is None]
CASES = [
    *(f"{tuner}-{architecture}" for architecture in ("bert", "llama") for tuner in KNOWN),
    *(f"{tuner}-{a}" for tuner in ("lora", "dora") for a in ARCHITECTURES_WITH_LORA),
    *(f"{tuner}-{a}" for tuner in ("prefix", "apt") for a in WITH_CACHED_KEYS),
    *(f"{r}-{a}" for r in RELATIVES for a in ("bert", "llama", *ARCHITECTURES_WITH_LORA) if carries(r, a)),
    *(f"bitfit-{a}" for a in WITH_BIASES if "beft" in KNOWN),
    *(f"adapter-{a}" for a in ("bert", "llama", *ARCHITECTURES_WITH_LORA)),
]


@dataclass
class Case:
    """A tiny PEFT model whose adapter has been moved away from the identity, and what it came from.

    Attributes:
        name: The tuner, a hyphen, and the architecture.
        dtype: Of the base model, but for its head.
        quantization: Of the base model.
    """

    name: str
    dtype: torch.dtype = torch.float32
    quantization: str | None = None

    def __post_init__(self) -> None:
        self.tuner, self.architecture = self.name.split("-", 1)
        self.base, self.batch = self.fresh()
        self.pristine = copy.deepcopy(self.base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's remarks on tiny models
            torch.manual_seed(0)
            self.model = self._make().eval()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                # peft makes AdaLoRA's divisor trainable where it casts it
                if parameter.requires_grad and not is_head(name) and ".ranknum." not in name:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        self.plain = copy.deepcopy(self.model)

    def fresh(self) -> tuple[Any, dict[str, Tensor]]:
        """The base model, as it is loaded, and a batch."""
        model, batch = tiny(self.architecture)
        if self.quantization is None:
            model.to(self.dtype)
        else:
            check_installed()
            exact = [*head_names(model), *pooler_names(model)]
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model = AutoModelForSequenceClassification.from_pretrained(
                    folder,
                    dtype=self.dtype,
                    device_map={"": "cpu"},
                    quantization_config=settings(self.quantization, exact, "cpu"),
                ).eval()
        prepare_base(model)
        return model, batch

    def _make(self) -> nn.Module:
        if self.tuner in ("prefix", "apt", "bitfit", "adapter", *RELATIVES):
            return build(self.base, self.tuner.removesuffix("_supernet"))
        name, options = TUNERS[self.tuner]
        config_class = getattr(peft, name)
        task = {} if self.architecture == "vit" else {"task_type": "SEQ_CLS"}
        if self.architecture == "vit":
            options = {**options, "modules_to_save": ["classifier"]}
        targets = "all-linear"
        if self.tuner == "ln_tuning":
            targets = LAYER_NORMS[self.architecture]
        elif self.architecture == "distilbert":  # "all-linear" would take half of its two-layer head
            targets = ["q_lin", "v_lin", "lin1", "lin2"]
        elif self.tuner == "beft" and self.architecture == "llama":
            targets = ["v_proj", "up_proj"]
        return peft.get_peft_model(self.base, config_class(target_modules=targets, **task, **options))

    @property
    def size(self) -> int:
        return len(next(iter(self.batch.values())))

    @property
    def sequence_length(self) -> int | None:
        ids = self.batch.get("input_ids")
        return None if ids is None else ids.shape[1]

    @cached_property
    def prefix_length(self) -> int:
        return 20 if self.tuner in ("prefix", "apt") else 0

    def logits(self, model: nn.Module, rows: slice = slice(None)) -> Tensor:
        return model(**{k: v[rows] for k, v in self.batch.items()}).logits

    @torch.no_grad()
    def frozen_logits(self) -> Tensor:
        """The pretrained model's logits; with a prefix, with the positions that it shifts."""
        if not self.prefix_length:
            return self.logits(self.pristine)
        positions = shifted_positions(self.architecture, self.batch, self.prefix_length)
        return self.pristine(**self.batch, position_ids=positions).logits


def is_head(name: str) -> bool:
    return any(
        part in name
        for part in ("classifier", "score", "classification_head", "pooler.modules_to_save", "model.head.")
    )


def shifted_positions(architecture: str, batch: dict[str, Tensor], shift: int) -> Tensor:
    mask, ids = batch["attention_mask"], batch["input_ids"]
    if architecture == "roberta":  # counts from the padding index, over tokens that are not padding
        return ((mask.cumsum(1) + shift) * mask) + 1
    return torch.arange(shift, shift + ids.shape[1]).expand_as(ids)
