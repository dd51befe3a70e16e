"""``clear-peft scan``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clear_peft.cli.options import (
    DATA,
    ENGINE,
    JUDGE,
    OUTPUT,
    AnnotatorColumnOption,
    CpusOption,
    EmbeddingsOption,
    EncoderDeviceOption,
    EncoderOption,
    EncoderTrustOption,
    EncodingOption,
    Engine,
    EngineOption,
    FormatOption,
    GpusOption,
    GroupColumnOption,
    IdColumnOption,
    LabelColumnOption,
    LongTexts,
    LongTextsOption,
    MaxLengthOption,
    NoCacheOption,
    NormalizeLabelsOption,
    OpinionColumnOption,
    OverwriteOption,
    TextColumnsOption,
    UnlabelledOption,
    names_of,
    one_or_more,
)
from clear_peft.cli.output import Format, Output, chance, counted, shown, table_of
from clear_peft.errors import InputError

if TYPE_CHECKING:
    from clear_peft.pipeline.multilabel_scan import MultilabelScan
    from clear_peft.pipeline.scan import ScanResult
    from clear_peft.pipeline.scan_options import ScanOptions
    from clear_peft.pipeline.token_scan import TokenScan

_TOP, _PAIRS = 10, 5


def scan(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="CSV, TSV, JSON, JSONL, CoNLL, Parquet, XLSX, or hub data set NAME[:CONFIG][@SPLIT].",
            rich_help_panel=DATA,
        ),
    ],
    text_column: TextColumnsOption = ["text"],  # noqa: B006
    label_column: LabelColumnOption = "label",
    label_separator: Annotated[
        str | None,
        typer.Option(
            help="What stands between several labels of a cell, such as ';'. An empty cell is then a row "
            "without labels. Lists, as JSON has them, need no separator.",
            rich_help_panel=DATA,
        ),
    ] = None,
    label_columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Columns of 0 and 1, one for each of several labels, in place of --label-column.",
            rich_help_panel=DATA,
        ),
    ] = None,
    normalize_labels: NormalizeLabelsOption = False,
    unlabelled: UnlabelledOption = None,
    encoding: EncodingOption = None,
    id_column: IdColumnOption = None,
    group_column: GroupColumnOption = None,
    opinion_column: OpinionColumnOption = None,
    annotator_column: AnnotatorColumnOption = None,
    verified_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says which rows a person has looked at: their true label, or true where the "
            "given one is right.",
            rich_help_panel=DATA,
        ),
    ] = None,
    verified: Annotated[
        list[str] | None,
        typer.Option(
            help="corrections.csv of a review or a report, in place of that column: kept and relabelled "
            "rows are verified. May be repeated; a later file counts where both name a row.",
            rich_help_panel=DATA,
        ),
    ] = None,
    model: EncoderOption = None,
    max_length: MaxLengthOption = 128,
    long_texts: LongTextsOption = LongTexts.head,
    pred_probs: Annotated[
        str | None,
        typer.Option(
            help="Instead of a model: .npy or Parquet file of out-of-sample probabilities, a column for each "
            "class; classes by number where all labels are whole numbers, else sorted by name.",
            rich_help_panel=JUDGE,
        ),
    ] = None,
    embeddings: EmbeddingsOption = None,
    no_cache: NoCacheOption = False,
    device: EncoderDeviceOption = "auto",
    trust_remote_code: EncoderTrustOption = False,
    output: Annotated[
        str | None,
        typer.Option(
            help="Folder to write (default: scan- and the name of the data).", rich_help_panel=OUTPUT
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    engine: EngineOption = Engine.embedded,
    sample_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Rows that the judgement is fitted to, with --engine ray (default: 100000).",
            min=2,
            rich_help_panel=ENGINE,
        ),
    ] = None,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Say which labels of a table look wrong: one pass of a frozen model, no training."""
    from clear_peft.pipeline.multilabel_scan import MultilabelScan
    from clear_peft.pipeline.scan import scan as scan_table
    from clear_peft.pipeline.scan_options import ScanOptions
    from clear_peft.pipeline.token_scan import TokenScan

    out: Output = context.obj
    options = ScanOptions(
        data=data,
        text_column=one_or_more(text_column),
        label_column=label_column,
        label_separator=label_separator,
        label_columns=names_of(label_columns),
        normalize_labels=normalize_labels,
        unlabelled=names_of(unlabelled),
        encoding=encoding,
        opinion_column=opinion_column or (),
        annotator_column=annotator_column or (),
        id_column=id_column,
        group_column=group_column,
        verified_column=verified_column,
        verified=verified,
        model=model,
        pred_probs=pred_probs,
        embeddings=embeddings,
        output=output,
        max_length=max_length,
        long_texts=long_texts,
        cache=not no_cache,
        device=device,
        trust_remote_code=trust_remote_code,
        overwrite=overwrite,
    )
    if engine is Engine.ray:
        _scan_with_ray(out, options, sample_rows, cpus, gpus)
        return
    if sample_rows is not None or cpus is not None or gpus is not None:
        raise InputError("--sample-rows, --cpus and --gpus are for Ray: add --engine ray.")
    found = scan_table(options, out)
    if isinstance(found, MultilabelScan):
        _say_labels(out, found)
        return
    if isinstance(found, TokenScan):
        _say_spans(found, out)
        return
    values = result_values(found)
    out.suspicious(values, result_lines(found, values))


def _scan_with_ray(
    out: Output, options: "ScanOptions", sample_rows: int | None, cpus: float | None, gpus: float | None
) -> None:
    from clear_peft.pipeline.ray_scan import ALL_ISSUES, SAMPLE_ROWS, scan_with_ray
    from clear_peft.run_folder.layout import LABEL_ISSUES

    found = scan_with_ray(
        options, out, sample_rows=sample_rows or SAMPLE_ROWS, cpus=cpus or 1, gpus=gpus or 0
    )
    figures, top = found.summary, str(found.folder / LABEL_ISSUES)
    values = {
        **figures,
        "most_suspicious": found.top.head(_TOP).to_dict("records"),
        "label_issues": top,
        "all_rows": str(found.folder / ALL_ISSUES),
    }
    low, high = (f"{end:.1%}" for end in figures["noise_rate_interval"])
    lines = [
        f"{figures['rows']} rows in {counted(figures['files'], 'file')}, {figures['classes']} classes",
        f"Estimated share of wrong labels: {figures['noise_rate_estimate']:.1%} (95 % interval {low} to "
        f"{high}; assumes that errors depend on the true class alone)",
        f"Judged by a sample of {counted(figures['sampled'], 'row')}",
        f"Rows whose label is more likely wrong than right: {figures['listed']}",
        f"The first {counted(len(found.top), 'row')}: {top}",
        f"All rows: {values['all_rows']}",
        f"{figures['seconds']:.1f} seconds",
    ]
    out.suspicious(values, lines)


def _say_spans(found: "TokenScan", out: Output) -> None:
    """The outcome of a scan of words."""
    from clear_peft.run_folder.layout import LABEL_ISSUES

    figures, path = found.metrics, str(found.folder / LABEL_ISSUES)
    values = {**figures, "most_suspicious": found.spans.head(_TOP).to_dict("records"), "label_issues": path}
    lines = [
        f"{figures['sentences']} sentences, {figures['words']} words, {figures['classes']} different tags",
        f"Estimated share of wrong tags: {figures['noise_rate_estimate']:.1%}",
        f"Words whose tag is more likely wrong than right: {figures['listed']}",
        f"All {counted(figures['spans'], 'span')}: {path}",
        f"{figures['seconds']:.1f} seconds",
    ]
    out.suspicious_spans(values, lines)


def result_values(found: "ScanResult") -> dict[str, Any]:
    """The scan for a program."""
    from clear_peft.audit import confused_pairs
    from clear_peft.run_folder.layout import LABEL_ISSUES, REPORT, TABLE_ISSUES, UNLABELLED

    issues = found.audit.issues
    pairs = confused_pairs(found.audit.joint, found.audit.labels, len(issues), limit=_PAIRS)
    return {
        **found.metrics,
        "confused": pairs.to_dict("records"),
        "most_suspicious": issues.head(_TOP).to_dict("records"),
        "label_issues": str(found.folder / LABEL_ISSUES),
        "other_issues": str(found.folder / TABLE_ISSUES),
        **({"next": str(found.folder / UNLABELLED)} if found.metrics["unlabelled"] else {}),
        "report": str(found.folder / REPORT),
    }


def result_lines(found: "ScanResult", values: dict[str, Any]) -> list[str]:
    """The scan for a person."""
    lines = [
        f"{values['rows']} rows, {values['classes']} classes",
        f"Estimated share of wrong labels: {found.audit.noise_rate:.1%} "
        f"({found.audit.said_interval('{:.1%}'.format)})",
        f"Rows whose label is more likely wrong than right: {values['listed']}",
    ]
    if values["unlabelled"]:
        lines.append(f"Rows without a label: {values['unlabelled']}, the least sure first: {values['next']}")
    if values["verified"]:
        lines.append(f"Verified rows: {values['verified']}; the others are judged by them")
    if "sources" in values:
        shares = (f"{shown(name)} {share:.1%}" for name, share in values["sources"].items())
        lines.append(f"Labels that are right, by what all sources say: {', '.join(shares)}")
    if values["confused"]:
        lines.append("Classes most often taken for each other:")
        lines += [
            f"  {shown(pair['true'])} labelled {shown(pair['given'])}: about {counted(pair['rows'], 'row')}"
            for pair in values["confused"]
        ]
    return [
        *lines,
        f"All rows: {values['label_issues']}",
        _other_issues(values),
        f"Report: {values['report']}",
        f"{values['seconds']:.1f} seconds",
    ]


def _other_issues(values: dict[str, Any]) -> str:
    from clear_peft.audit import said_issues

    return f"Other issues: {said_issues(values['table_issues']) or 'none'}: {values['other_issues']}"


def _say_labels(out: Output, found: "MultilabelScan") -> None:
    """What a scan of several labels a row has found."""
    from rich.table import Column

    from clear_peft.run_folder.layout import LABEL_ISSUES, TABLE_ISSUES

    values = {
        **found.metrics,
        "most_suspicious": found.issues.head(_TOP).to_dict("records"),
        "label_issues": str(found.folder / LABEL_ISSUES),
        "other_issues": str(found.folder / TABLE_ISSUES),
    }
    lines = [
        f"{values['rows']} rows, {values['classes']} labels, given {values['given_labels']} times",
        f"Estimated share of given labels that are wrong: {values['wrong_estimate']:.1%}",
        f"Estimated share of right labels that are missing: {values['missing_estimate']:.1%}",
        f"More likely wrong than right: {counted(values['listed_given'], 'given label')}, "
        f"{counted(values['listed_missing'], 'missing label')}",
    ]
    if values["confused"]:
        lines.append("Labels most often given in place of another:")
        lines += [
            f"  {shown(pair['given'])} in place of {shown(pair['true'])}: "
            f"about {counted(pair['rows'], 'row')}"
            for pair in values["confused"]
        ]
    lines += [
        f"All labels: {values['label_issues']}",
        _other_issues(values),
        f"{values['seconds']:.1f} seconds",
    ]
    rows = [
        (
            str(row["row"]),
            shown(row["label"]),
            "given" if row["given"] else "missing",
            chance(row["clean_probability"]),
            shown(row["text"]),
        )
        for row in values["most_suspicious"]
    ]
    headings = ("row", "label", "is", "right with", Column("text", no_wrap=True, ratio=1))
    out.tables(values, [table_of("Most suspicious labels", headings, rows)], lines)
