// What was decided, as the list of everything that was done: the last entry of a row counts.

const ACTIONS = ["keep", "relabel", "drop"];

function readLog(text) {
  try {
    const log = JSON.parse(text ?? "[]");
    const valid = (entry) => Array.isArray(entry) && Number.isInteger(entry[0]) && (entry[1] === "" || ACTIONS.includes(entry[1]))
      && (entry[1] !== "relabel" || typeof entry[2] === "string");
    return Array.isArray(log) ? log.filter(valid) : [];
  } catch {
    return [];
  }
}

function makeDecisions(key) {
  let log = [];
  let kept = memory.works();
  const current = new Map();
  function apply([row, action, label]) {
    if (action) current.set(row, { action, label });
    else current.delete(row);
  }
  function load(text) {
    log = readLog(text);
    current.clear();
    log.forEach(apply);
  }
  const save = () => (kept = memory.set(key, JSON.stringify(log)));
  // nothing is written yet: at times, Chromium shows a page that it opens from a file an empty memory
  load(memory.get(key));
  return {
    of: (row) => current.get(row),
    entries: () => [...current].sort(([a], [b]) => a - b),
    isKept: () => kept,
    // action "" takes the row's decision back
    decide(row, action, label = "") {
      const entry = action === "relabel" ? [row, action, label] : [row, action];
      log.push(entry);
      apply(entry);
      save();
    },
    // the row whose last decision was undone, or null
    undo() {
      if (!log.length) return null;
      const [row] = log.pop();
      apply(log.findLast((entry) => entry[0] === row) ?? [row, ""]);
      save();
      return row;
    },
    // another window has the same report open
    follow(changed) {
      addEventListener("storage", (event) => {
        if (event.key !== key) return;
        load(event.newValue);
        changed();
      });
    },
  };
}
