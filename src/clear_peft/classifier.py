"""``CleaRClassifier``: texts and labels that may be wrong in, a scikit-learn classifier out."""

import copy
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from clear_peft.audit import audit
from clear_peft.data.examples import examples_of
from clear_peft.errors import InputError
from clear_peft.files import atomic_write, refuse_links_out, replaced_folder, write_json
from clear_peft.hardware import choose_device
from clear_peft.label_quality import as_groups
from clear_peft.pipeline.finalize import facts_of, has_found_noise
from clear_peft.pipeline.in_memory import program_left_alone, trained
from clear_peft.pipeline.inference import logits_of
from clear_peft.pipeline.judge import default_model
from clear_peft.pipeline.label_issues import listed
from clear_peft.pipeline.metrics import accuracy_and_f1
from clear_peft.pipeline.models import check_length, load_classifier, load_tokenizer
from clear_peft.pipeline.temperature import expected_calibration_error, fit_temperature, probabilities
from clear_peft.pipeline.texts_and_labels import (
    classes_of,
    column,
    counting,
    labelled,
    names_of,
    tables_of,
    type_of,
    verified_of,
    votes_of,
    weights_of,
)
from clear_peft.report import RunRecord
from clear_peft.report.card import model_card
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig
from clear_peft.surroundings import check_single_process
from clear_peft.tuners import load_adapter

_FILE = "classifier.json"
_SAVED = {_FILE, layout.ADAPTER}
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


class CleaRClassifier(ClassifierMixin, BaseEstimator):
    """Classifies texts by a PEFT model that is trained on labels of which some may be wrong.

    ``fit`` is what ``clear-peft train`` does, for what is in memory: a part of the rows is held out, which
    labels look wrong is estimated on the way, and the best epoch is kept. It works wherever scikit-learn
    takes a classifier: ``Pipeline``, ``GridSearchCV``, ``cross_val_predict``, and in cleanlab's
    ``CleanLearning``, which needs classes numbered from 0 and X as an array or a Series.

    ``score`` is scikit-learn's, accuracy. Where classes are uneven, look at ``sklearn.metrics.f1_score`` with
    ``average="macro"`` too, search by ``scoring="f1_macro"``, and choose the epoch by
    ``select_by="weighted_macro_f1"``.

    A fitted classifier is kept by ``save`` and ``load``, not by pickling or copying.

    Args:
        model: Hub name or path of the pretrained model. Default: the one of ``find_label_issues``.
        peft: PEFT method, out of ``clear_peft.tuners.available_methods()``.
        peft_options: Its further options by name. Default: none.
        target_modules: Layers to adapt, by name. Default: those that the PEFT method adapts.
        preset: ``recommended``, or ``paper`` for the recipe of the CleaR paper.
        epochs: Passes over the training rows.
        batch_size: Rows per training step.
        learning_rate: Peak of a linear schedule. Default: 1e-3.
        max_length: Tokens per text; longer texts are cut.
        long_texts: Which tokens of longer texts are kept, ``head`` or ``tail``.
        validation_fraction: Share of the rows held out, above 0 and below 1: by them an epoch is chosen and
            the probabilities are calibrated.
        select_by: Figure of the held-out rows by which an epoch is chosen: ``accuracy``, ``macro_f1``,
            ``loss``, or ``weighted_accuracy`` or ``weighted_macro_f1``, which count each row by the
            probability that its label is right. Default: as the preset says.
        class_weights: ``balanced``: until noise is found, and where none is, the loss is weighed so that all
            classes count alike; ``none``.
        device: Where to train and predict: ``auto``, a CUDA GPU if there is one, else the CPU; ``cpu``,
            ``cuda``, ``mps`` or ``xpu``.
        dtype: Precision of the weights of the base model: ``float32``, ``bfloat16``, ``float16``, or
            ``auto``, as in the checkpoint.
        quantization: ``4bit`` or ``8bit``: the linear layers of the base model are quantized. Default: they
            are not. Needs bitsandbytes.
        gradient_checkpointing: Whether activations are computed again in the backward: slower, less memory.
        training: Further settings of ``CleaRConfig`` by name. Default: none.
        trust_remote_code: Whether code that comes with a hub model may run.
        random_state: Seed; the same gives the same classifier. Of a ``RandomState``, or None for NumPy's
            global one, each ``fit`` draws a new seed.
        verbose: Whether progress is written to standard error.

    Attributes:
        classes_: The C labels, sorted, (C,): of the type that they were given as.
        label_quality_: ``LabelQuality`` of the training rows in the order of X, the held-out ones included;
            its ``rows`` are positions in X. A loaded classifier has none.
        label_issues_: The same as ``find_label_issues`` returns it, most suspicious first.
        temperature_: What logits are divided by: fitted to the held-out rows, each of which counts by the
            probability that its label is right; 1 where none counts.
        calibration_error_: Expected calibration error on these rows, weighted alike, ``before`` and ``after``
            the temperature was fitted; NaN where none counts. They chose the epoch and the temperature too,
            so that on others it may be larger, and of few rows (some dozens) it says little.
        model_: The PEFT model.
        tokenizer_: Its tokenizer.

    Example:
        >>> clf = CleaRClassifier("bert-base-uncased", peft="lora").fit(texts, labels)
        >>> clf.predict(["Where is my parcel?"])
        array(['delivery'], dtype='<U8')
        >>> clf.label_issues_.query("is_label_issue")[["row", "given_label", "predicted_label"]]
        >>> clf.save("tickets")
        >>> clf = CleaRClassifier.load("tickets")
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        peft: str = "lora",
        peft_options: Mapping[str, Any] | None = None,
        target_modules: list[str] | None = None,
        preset: str = "recommended",
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float | None = None,
        max_length: int = 128,
        long_texts: str = "head",
        validation_fraction: float = 0.1,
        select_by: str | None = None,
        class_weights: str = "none",
        device: str = "auto",
        dtype: str = "float32",
        quantization: str | None = None,
        gradient_checkpointing: bool = False,
        training: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.peft = peft
        self.peft_options = peft_options
        self.target_modules = target_modules
        self.preset = preset
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_length = max_length
        self.long_texts = long_texts
        self.validation_fraction = validation_fraction
        self.select_by = select_by
        self.class_weights = class_weights
        self.device = device
        self.dtype = dtype
        self.quantization = quantization
        self.gradient_checkpointing = gradient_checkpointing
        self.training = training
        self.trust_remote_code = trust_remote_code
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        verified: Any = None,
        opinions: Mapping[str, Any] | None = None,
    ) -> Self:
        """Train on texts and their labels.

        Args:
            X: N texts: a list, an array, a Series, or a table of one column.
            y: Their labels, (N,): text, whole numbers or booleans.
            groups: What belongs together, such as the customer of each row, (N,): numbers or text. No row is
                judged by a model that has seen another of its group, and groups are held out as a whole.
                Default: copies and near copies of a text alone are grouped.
            sample_weight: How often rows are sampled in an epoch, in proportion, (N,); where soft labels
                sample by confidence, this is multiplied. Rows of weight 0 are left out. The loss, and what is
                estimated of the labels, do not depend on it; calibration does. Default: all alike.
            verified: The true label of each row that a person has looked at, (N,), or True where the given
                one is right; None, NaN or an empty text elsewhere. These rows are believed, and the others
                judged by what they tell of how labels go wrong. They are never held out. Default: nobody has
                looked at any.
            opinions: Other labels for the same rows by the name of their source, such as a rule, (N,) each;
                None, NaN or an empty text where it says nothing. Labels are judged by all sources. Default:
                none.

        Raises:
            InputError: A ``ValueError``; rows or parameters are not as above, or there is no such model.
        """
        check_single_process("CleaRClassifier")
        parameters = copy.deepcopy(self.get_params(deep=False)) | {"random_state": _seed(self.random_state)}
        given, classes = labelled(X, y)
        weights = weights_of(sample_weight, len(given))
        if groups is not None:
            given = replace(given, groups=as_groups(groups, len(given)))
        if verified is not None:
            assert given.labels is not None  # as they are read
            given = replace(given, verified=verified_of(verified, given.labels, classes))
        if opinions:
            assert given.labels is not None  # as they are read
            given = replace(given, votes=votes_of(opinions, given.labels, classes))
        rows, classes = counting(given, classes, weights > 0)
        with (
            tempfile.TemporaryDirectory(prefix="clear-peft-") as scratch,
            program_left_alone(quiet=not self.verbose),
        ):
            config = _config(parameters, scratch)
            tables = tables_of(config, rows, classes, len(given))
            of_training = None if sample_weight is None else weights[tables.train.rows]
            trainer, tokenizer = trained(config, tables, of_training, verbose=self.verbose)
            quality, held = trainer.label_quality, tables.validation
            logits = logits_of(trainer.model, tokenizer, held, config.max_length)
        assert held.labels is not None  # as they are read
        counts = quality.clean_probability[np.isin(quality.rows, held.rows)] * weights[held.rows]
        self.temperature_ = fit_temperature(logits, held.labels, counts)
        self.calibration_error_ = {
            when: expected_calibration_error(probabilities(logits, temperature), held.labels, counts)
            for when, temperature in (("before", 1.0), ("after", self.temperature_))
        }
        self.label_quality_ = quality
        self.label_issues_ = listed(quality, given, tables.names, classes.tolist())
        self.classes_, self.model_, self.tokenizer_ = classes, trainer.model, tokenizer
        self._parameters, self._max_length = parameters, config.max_length
        facts = {
            "test": None,
            "validation": accuracy_and_f1(logits.argmax(axis=1), held.labels),
            **facts_of(config, tables, trainer, quality),
        }
        found = audit(
            listed(quality, given, tables.names),
            quality,
            tables.names.names,
            noise_found=has_found_noise(trainer),
        )
        record = RunRecord("CleaRClassifier", {**asdict(config), "data": None}, facts["epochs"], facts, found)
        self._card = model_card(record, tables.names.names)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of texts, (N, C), in the order of ``classes_``."""
        check_is_fitted(self)
        frame = pd.DataFrame({"text": pd.Series(column(X, "X"), dtype=object)})
        if frame.empty:
            raise InputError("There are no rows: give texts.")
        examples = examples_of(frame, "X", label_column=None).examples
        with program_left_alone(quiet=not self.verbose):
            logits = logits_of(self.model_, self.tokenizer_, examples, self._max_length)
        return probabilities(logits, self.temperature_)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The likeliest label of each text, (N,), of the type of ``classes_``."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``adapter/``, as plain peft reads it, with its model card, and ``classifier.json``.

        They are written whole or not at all.

        Args:
            folder: A new or empty one, or one with a saved classifier, which is replaced.

        Raises:
            InputError: If the folder holds anything else, or cannot be written.
        """
        check_is_fitted(self)
        final = Path(os.path.realpath(folder))
        saved = {
            "classes": {"type": type_of(self.classes_), "values": self.classes_.tolist()},
            "temperature": self.temperature_,
            "calibration_error": self.calibration_error_,
            "parameters": {**self._parameters, "model": _path(self._parameters["model"])},
        }
        try:
            if final.exists() and {entry.name for entry in final.iterdir()} not in (_SAVED, set()):
                raise InputError(f"{folder} holds what is no saved classifier: give another folder.")
            with replaced_folder(final) as part:
                self.model_.save_pretrained(part / layout.ADAPTER)
                self.tokenizer_.save_pretrained(part / layout.ADAPTER)
                names_of(self.classes_).save(part / layout.ADAPTER / layout.LABELS)
                atomic_write(part / layout.ADAPTER / layout.CARD, self._card)  # over peft's own
                write_json(part / _FILE, saved)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"Cannot write {folder}: {reason}; give another folder.") from error

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] | None = None,
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> Self:
        """Read what ``save`` wrote: JSON and safetensors alone, so that a stranger's folder runs no code.

        Args:
            folder: The folder.
            model: Where the pretrained model is by now. Default: where it was.
            device: Where to predict. Default: ``auto``, wherever it was trained.
            trust_remote_code: Whether code that comes with the model may run; what was saved does not count.

        Raises:
            InputError: If the folder holds no classifier, or a damaged one, there is no such device, or the
                model cannot be loaded.
        """
        path, place = Path(folder) / _FILE, choose_device(device)
        if not path.is_file():
            raise InputError(
                f"{folder} holds no classifier (no {_FILE}): give what CleaRClassifier.save wrote."
            )
        refuse_links_out(folder)
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            given = {"device": device, "trust_remote_code": trust_remote_code}
            given |= {} if model is None else {"model": model}
            made = cls(**{**saved["parameters"], **given})
            made._parameters = {**made.get_params(deep=False), "random_state": _seed(made.random_state)}
            config = _config(made._parameters)
            kind, values = saved["classes"]["type"], saved["classes"]["values"]
            classes, temperature = classes_of(kind, values), saved["temperature"]
            errors = {when: saved["calibration_error"][when] for when in ("before", "after")}
            if type(temperature) is not float or not 0 < temperature < math.inf:
                raise ValueError("its temperature is no number above 0")
            if not all(value is None or type(value) is float for value in errors.values()):
                raise ValueError("its calibration error is no number")
            if type(made.verbose) is not bool:
                raise ValueError("verbose is neither true nor false")
        except _DAMAGE as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(f"{path} is damaged ({reason}): save the classifier again.") from error
        adapter = Path(folder) / layout.ADAPTER
        with program_left_alone(quiet=not made.verbose):
            tokenizer = load_tokenizer(str(adapter), trust_remote_code=trust_remote_code)
            names = names_of(classes)
            base = load_classifier(config.model, names, tokenizer, **config.loading, device=place)
            made.model_, made.tokenizer_ = load_adapter(base, adapter).to(place), tokenizer
        check_length(made.model_, config.max_length)
        made.classes_, made.temperature_, made._max_length = classes, temperature, config.max_length
        card = adapter / layout.CARD
        made._card = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        made.calibration_error_ = {w: math.nan if value is None else value for w, value in errors.items()}
        return made

    def __getstate__(self) -> Any:
        if "model_" in vars(self):
            raise TypeError(
                "A fitted CleaRClassifier is not pickled or copied: keep it by save(folder) and load(folder)."
            )
        return super().__getstate__()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _config(parameters: Mapping[str, Any], output: str = ".") -> RunConfig:
    """The parameters of a classifier as those of a run, which checks them."""
    # searches over grids draw NumPy's numbers
    values = {
        k: v.item() if isinstance(v, np.generic) else v for k, v in parameters.items() if k != "verbose"
    }
    model, seed = values.pop("model"), values.pop("random_state")
    return RunConfig(
        **values | {name: dict(values[name] or {}) for name in ("peft_options", "training")},
        model=default_model() if model is None else _path(model),
        data="X",
        output=output,
        seed=seed,
    )


def _seed(state: Any) -> int:
    whole = isinstance(state, int | np.integer) and not isinstance(state, bool)
    return int(state) if whole else int(check_random_state(state).randint(2**31 - 1))


def _path(model: Any) -> Any:
    return os.fspath(model) if isinstance(model, os.PathLike) else model
