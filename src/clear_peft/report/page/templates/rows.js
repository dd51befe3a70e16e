// Which rows are looked at, and in which order.

const ANY = "";
const NO_FILTER = { search: "", show: "all", given: ANY, predicted: ANY, split: ANY, decision: ANY };

const DECIDED = {
  open: (decision) => !decision,
  done: (decision) => Boolean(decision),
  keep: (decision) => decision?.action === "keep",
  relabel: (decision) => decision?.action === "relabel",
  drop: (decision) => decision?.action === "drop",
};

const SHOWN = {
  all: () => true,
  listed: (rows, i) => rows.issue[i] === 1,
  unlisted: (rows, i) => rows.issue[i] === 0,
  conflict: (rows, i) => rows.conflict[i] === 1,
  proposed: (rows, i) => rows.proposed.includes(i),
};

function searching(rows, words) {
  const wanted = words.trim().toLowerCase();
  if (!wanted) return null;
  if (/^#\d+$/.test(wanted)) return (i) => rows.row[i] === Number(wanted.slice(1));
  rows.searchable ??= rows.text.map((text, i) => (rows.id ? `${text}\n${rows.id[i]}` : text).toLowerCase());
  return (i) => rows.searchable[i].includes(wanted);
}

function matching(rows, filter, decisions) {
  const tests = [searching(rows, filter.search)];
  if (filter.show !== "all") tests.push((i) => SHOWN[filter.show](rows, i));
  for (const column of ["given", "predicted", "split"]) {
    if (filter[column] !== ANY) tests.push((i) => rows[column][i] === Number(filter[column]));
  }
  if (filter.decision !== ANY) tests.push((i) => DECIDED[filter.decision](decisions.of(rows.row[i])));
  const asked = tests.filter(Boolean);
  const found = [];
  for (let i = 0; i < rows.shown; i++) if (asked.every((test) => test(i))) found.push(i);
  return found;
}

const COLUMNS = [
  { key: "row", name: "Row", value: (rows, i) => rows.row[i] },
  { key: "text", name: "Text", value: (rows, i) => rows.text[i] },
  // labels are in their order, numbers by value
  { key: "given", name: "Given", value: (rows, i) => rows.given[i] },
  { key: "predicted", name: "Predicted", value: (rows, i) => rows.predicted[i] },
  // rows are ranked by this, most suspicious first
  { key: "wrong", name: "Wrong", value: (rows, i) => i },
  { key: "decision", name: "Decision", value: (rows, i, decisions) => decisions.of(rows.row[i])?.action ?? "~" },
];

function ordered(rows, found, { key, descending }, decisions) {
  if (key === "wrong") return descending ? found : found.reverse();
  const { value } = COLUMNS.find((column) => column.key === key);
  const values = new Map(found.map((i) => [i, value(rows, i, decisions)]));
  const sign = descending ? -1 : 1;
  return found.sort((a, b) => {
    const [one, other] = [values.get(a), values.get(b)];
    return one === other ? a - b : one < other ? -sign : sign;
  });
}
