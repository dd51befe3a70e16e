"""Examples at the end of each help page, by the words of the command."""

EXAMPLES = {
    "": (
        "clear-peft demo",
        "clear-peft scan --data tickets.csv",
        "clear-peft train --model bert-base-uncased --data tickets.csv --output runs/tickets",
    ),
    "scan": (
        "clear-peft scan --data tickets.csv",
        "clear-peft scan --data tickets.csv --text-column body --label-column team",
        "clear-peft scan --data tickets --engine ray --gpus 1",
    ),
    "review": (
        "clear-peft review --data tickets.csv",
        "clear-peft review --data tickets.csv --text-column body --label-column team",
    ),
    "train": (
        "clear-peft train --model bert-base-uncased --data tickets.csv --output runs/tickets",
        "clear-peft train --model bert-base-uncased --data ag_news@train --output runs/news --peft dora",
        "clear-peft train --config runs/tickets/config.yaml --resume",
    ),
    "audit": (
        "clear-peft audit --run runs/tickets --output suspicious.csv",
        "clear-peft audit --run runs/tickets --apply corrections.csv --output corrected.csv",
    ),
    "report": (
        "clear-peft report --run runs/tickets",
        "clear-peft report --run runs/tickets --plots plots --plot-format png",
    ),
    "predict": (
        "clear-peft predict --run runs/tickets --data new.csv --output predicted.csv",
        "clear-peft predict --run runs/tickets --data new.csv --top 3 --output predicted.csv",
    ),
    "evaluate": (
        "clear-peft evaluate --run runs/tickets --data checked.csv",
        "clear-peft evaluate --run runs/tickets --data checked.csv --format json",
    ),
    "export": (
        "clear-peft export --run runs/tickets --output model",
        "clear-peft export --run runs/tickets --output model --onnx",
    ),
    "push": ("clear-peft push --run runs/tickets --repo-id someone/tickets --private",),
    "noise": (
        "clear-peft noise --data clean.csv --kind symmetric --rate 0.4 --output noisy.csv",
        "clear-peft noise --data clean.csv --kind map --map sports=tech --rate 0.4 --output noisy.csv",
    ),
    "demo": ("clear-peft demo", "clear-peft demo --output /tmp/demo --overwrite"),
    "bench": (
        "clear-peft bench run --grid smoke --results smoke.jsonl",
        "clear-peft bench table --results smoke.jsonl",
    ),
    "bench run": ("clear-peft bench run --grid smoke --results smoke.jsonl",),
    "bench table": (
        "clear-peft bench table --results smoke.jsonl",
        "clear-peft bench table --results smoke.jsonl --method plain --method clear --output table.md",
    ),
    "bench plot": ("clear-peft bench plot --results smoke.jsonl --output plots",),
}
