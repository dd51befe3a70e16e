"""Responses of instruction data that do not look as if they belonged to their prompts."""

import os
from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_list_like

from clear_peft.errors import InputError
from clear_peft.hardware import check_device
from clear_peft.label_quality.pairs import pair_quality
from clear_peft.pipeline.encoder import encode
from clear_peft.pipeline.feature_cache import default_folder
from clear_peft.pipeline.judge import default_model
from clear_peft.pipeline.texts_and_labels import column


def find_response_issues(
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    model: str | None = None,
    max_length: int = 256,
    long_texts: str = "head",
    cache: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """Find responses that do not belong to their prompts, without any training.

    A frozen encoder reads prompts and responses. Each pair is compared with prompts and responses of random
    other rows (``clear_peft.label_quality.pairs``). What is found is swapped, empty of content or beside the
    point. A response that is about the right thing and wrong is not.

    Args:
        prompts: N texts, of NumPy, pandas, polars, Arrow or plain Python.
        responses: N texts.
        model: Hub name or path of a pretrained encoder. Default: the packaged all-MiniLM-L6-v2 where it is
            installed, else the same from the hub.
        max_length: Tokens per text. Default 256.
        long_texts: What is read of longer texts: their ``head``, their ``tail``, or all in ``windows``.
            Default ``head``.
        cache: Whether features of texts are kept on disk for the next time. Default True.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        All rows, most suspicious first: ``row`` (position, from 0), ``prompt``, ``response``,
        ``clean_probability`` (that the response belongs to the prompt) and ``is_response_issue`` (more likely
        not).

    Raises:
        InputError: If there are fewer than 20 pairs, numbers of texts differ, a text is empty or a list, or
            the model cannot be loaded.
    """
    check_device(device)
    columns = {"prompt": column(prompts, "prompts"), "response": column(responses, "responses")}
    texts = {name: _texts(values, name) for name, values in columns.items()}
    size = len(texts["prompt"])
    if len(texts["response"]) != size:
        raise InputError(
            f"There are {size} prompts and {len(texts['response'])} responses: give one response for each."
        )
    for name, values in texts.items():
        empty = [row for row, text in enumerate(values) if not text.strip()]
        if empty:
            more = f", and so are {len(empty) - 1} more" if len(empty) > 1 else ""
            raise InputError(f"The {name} of row {empty[0]} is empty{more}: leave such rows out.")
    features = encode(
        texts["prompt"] + texts["response"],
        default_model() if model is None else os.fspath(model),
        max_length=max_length,
        long_texts=long_texts,
        cache=default_folder() if cache else None,
        device=device,
        trust_remote_code=trust_remote_code,
    )[:, -1]
    groups = {name: pd.factorize(pd.Series(values))[0] for name, values in texts.items()}
    quality = pair_quality(
        features[:size],
        features[size:],
        prompt_groups=groups["prompt"],
        response_groups=groups["response"],
    )
    p = quality.clean_probability
    frame = pd.DataFrame({"row": range(size), **texts, "clean_probability": p, "is_response_issue": p < 0.5})
    return frame.iloc[quality.score.argsort(kind="stable")].reset_index(drop=True)


def _texts(values: list[Any], name: str) -> list[str]:
    """As they are read; a missing value is no text, though str() would make one of it.

    Raises:
        InputError: If one is a list, as a chat is, of which str() would make a text, too.
    """
    for row, value in enumerate(values):
        if is_list_like(value):
            raise InputError(
                f"The {name} of row {row} is a {type(value).__name__}: give texts, such as the content of a "
                "message and of its answer."
            )
    return ["" if pd.isna(value) else str(value) for value in values]
