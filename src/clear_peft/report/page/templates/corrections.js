// corrections.csv, as `clear-peft audit --apply` reads it.

const TEXT_SHOWN = 200;
// the same three as in clear_peft/data/formulas.py
const RISKY = /^'*[=+\-@\t\r\n＝＋－＠]/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

const escapeFormula = (cell) => (RISKY.test(cell) && !NUMBER.test(cell) ? `'${cell}` : cell);
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
// CSV can hold neither NUL nor half a surrogate pair
const holdable = (text) => text.toWellFormed().replaceAll("\0", "\ufffd");

function correctionsCsv(rows, decisions) {
  const position = new Map(rows.row.map((row, i) => [row, i]));
  const lines = [["row", "action", "label", "given_label", "text"]];
  for (const [row, { action, label }] of decisions.entries()) {
    const i = position.get(row);
    if (i === undefined) continue;
    const text = Array.from(rows.text[i].slice(0, 2 * TEXT_SHOWN)).slice(0, TEXT_SHOWN).join("");
    lines.push([String(row), action, label ?? "", rows.labels[rows.given[i]], text]);
  }
  return lines.map((line) => `${line.map((cell) => quoted(escapeFormula(holdable(cell)))).join(",")}\n`).join("");
}

function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
