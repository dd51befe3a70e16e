// Working through the rows: filters, table, pages, keys.

const PER_PAGE = 50;

const SHOW_OPTIONS = { listed: "Listed rows", all: "All rows", unlisted: "Not listed", conflict: "Duplicates, other label", proposed: "To look at first" };
const DECISION_OPTIONS = { [ANY]: "Any", open: "Not looked at", done: "Looked at", keep: "Keep", relabel: "Relabel", drop: "Drop" };

function makeReview(rows, key) {
  const decisions = makeDecisions(key);
  const listed = rows.issue.reduce((sum, flag) => sum + flag, 0);
  const initial = { ...NO_FILTER, show: listed ? "listed" : "all" };
  const filter = { ...initial };
  let sort = { key: "wrong", descending: true };
  let view = [];
  let place = 0; // of the row that is looked at, in the view
  let built = ""; // which rows the table's body holds
  let version = 0;
  const inspector = makeInspector(rows, decisions, { jump });

  function choose({ reset = true } = {}) {
    view = ordered(rows, matching(rows, filter, decisions), sort, decisions);
    version += 1;
    if (reset) place = 0;
    place = Math.max(0, Math.min(place, view.length - 1));
    show();
  }

  function rowOf(i) {
    const line = make("tr", { role: "row", tabindex: -1 });
    const cell = (name, ...children) => make("td", { role: "cell", class: `c-${name}` }, ...children);
    const label = (position) => make("bdi", {}, brief(rows.labels[position]));
    const share = make("span");
    share.style.setProperty("--share", `${100 * (1 - (rows.clean[i] ?? 1))}%`);
    const text = cell("text", make("span", { class: "snippet", dir: "auto" }, brief(rows.text[i], 240)));
    if (rows.conflict[i]) text.append(make("span", { class: "chip warn" }, "duplicate, other label"));
    line.append(cell("row", `#${rows.row[i]}`), text, cell("given", label(rows.given[i])), cell("predicted", label(rows.predicted[i])),
      cell("wrong", wrongness(rows, i), make("span", { class: "meter", "aria-hidden": "true" }, share)), cell("decision"));
    return line;
  }

  function show() {
    const page = Math.floor(place / PER_PAGE);
    const start = page * PER_PAGE;
    const body = find("body");
    const within = body.contains(document.activeElement);
    if (built !== `${version}/${page}`) {
      built = `${version}/${page}`;
      const lines = view.slice(start, start + PER_PAGE).map(rowOf);
      const nothing = make("tr", { role: "row" }, make("td", { role: "cell", colspan: COLUMNS.length, class: "empty" }, "No row matches. Clear the filters to see all."));
      body.replaceChildren(...(lines.length ? lines : [nothing]));
    }
    if (view.length) {
      [...body.rows].forEach((line, offset) => {
        const decision = decisions.of(rows.row[view[start + offset]]);
        const active = start + offset === place;
        line.lastChild.replaceChildren(...(decision ? [make("span", { class: `decided ${decision.action}` }, decidedAs(decision))] : []));
        line.tabIndex = active ? 0 : -1;
        if (active) line.setAttribute("aria-current", "true");
        else line.removeAttribute("aria-current");
      });
      if (within) activeLine().focus({ preventScroll: true });
    }
    inspector.show(view[place], place, view.length);
    showPages(page);
    showProgress();
    find("count").textContent = `${number(view.length)} ${view.length === 1 ? "row" : "rows"}${view.length < rows.shown ? ` of ${number(rows.shown)}` : ""}`;
  }

  const activeLine = () => find("body").rows[place % PER_PAGE];

  function showPages(page) {
    const pages = Math.max(1, Math.ceil(view.length / PER_PAGE));
    find("page").value = page + 1;
    find("page").max = pages;
    find("pages").textContent = `of ${number(pages)}`;
    for (const id of ["first", "previous"]) find(id).disabled = page === 0;
    for (const id of ["next", "last"]) find(id).disabled = page >= pages - 1;
  }

  function showProgress() {
    const tally = { keep: 0, relabel: 0, drop: 0 };
    let looked = 0;
    let others = 0;
    rows.row.forEach((row, i) => {
      const decision = decisions.of(row);
      if (!decision) return;
      tally[decision.action] += 1;
      if (!listed || rows.issue[i]) looked += 1;
      else others += 1;
    });
    const of = listed || rows.shown;
    const known = looked + others;
    const unknown = decisions.entries().length - known;
    const done = known ? `: ${tally.keep} keep, ${tally.relabel} relabel, ${tally.drop} drop` : "";
    find("progress-text").textContent = `${number(looked)} of ${number(of)} ${listed ? "listed " : ""}rows looked at${others ? `, and ${number(others)} others` : ""}${done}`;
    find("progress").max = of;
    find("progress").value = looked;
    find("download").disabled = known === 0;
    const notes = decisions.isKept() ? [] : ["This browser keeps nothing for this page: download your corrections before you close it."];
    if (unknown) notes.push(`${number(unknown)} earlier decisions are on rows that this page leaves out; the download lacks them.`);
    find("storage-note").textContent = notes.join(" ");
  }

  function describe() {
    const i = view[place];
    return i === undefined ? "No more rows." : `Row ${rows.row[i]}: given ${brief(rows.labels[rows.given[i]])}, predicted ${brief(rows.labels[rows.predicted[i]])}.`;
  }

  function announce(text) {
    find("announcement").textContent = text;
  }

  // on a narrow screen the row is worked on above the list: stay there
  const narrow = () => matchMedia("(max-width: 980px)").matches;

  function move(to, { focus = false, scroll = !narrow() } = {}) {
    place = Math.max(0, Math.min(to, view.length - 1));
    show();
    if (!view.length) return;
    if (focus) activeLine().focus({ preventScroll: true });
    if (scroll) activeLine().scrollIntoView({ block: "nearest" });
  }

  function decide(action) {
    const i = view[place];
    if (i === undefined) return;
    const row = rows.row[i];
    const label = action === "relabel" ? inspector.newLabel() : "";
    if (label === null) {
      inspector.chooseLabel();
      return announce(`Row ${row} has no other predicted label: choose a class.`);
    }
    if (label === rows.labels[rows.given[i]]) return decide("keep");
    const before = decisions.of(row);
    if (before?.action === action && (action !== "relabel" || before.label === label)) {
      decisions.decide(row, "");
      settle(place);
      return announce(`Row ${row}: decision taken back.`);
    }
    decisions.decide(row, action, label);
    settle(place + 1);
    announce(`Row ${row}: ${action}${label ? ` to ${brief(label)}` : ""}. ${describe()}`);
  }

  // Where decisions filter or sort, the row may have left its place to the next one.
  function settle(next) {
    if (filter.decision === ANY && sort.key !== "decision") return move(next);
    const wanted = view[next];
    choose({ reset: false });
    const found = view.indexOf(wanted);
    move(found < 0 ? place : found);
  }

  function undo() {
    const row = decisions.undo();
    if (row === null) return announce("There is nothing to undo.");
    goTo(row);
    announce(`Undone. ${describe()}`);
  }

  function jump(row) {
    goTo(row);
    find("inspector-text").focus({ preventScroll: true });
    announce(describe());
  }

  function goTo(row) {
    const i = rows.row.indexOf(row);
    choose({ reset: false });
    if (i < 0) return;
    if (!view.includes(i)) setFilter({ ...NO_FILTER });
    move(view.indexOf(i));
  }

  function setFilter(values) {
    Object.assign(filter, values);
    for (const [name, value] of Object.entries(filter)) find(name).value = value;
    choose();
  }

  function showPair(given, predicted) {
    setFilter({ ...NO_FILTER, given: String(given), predicted: String(predicted) });
    find("rows").scrollIntoView();
    move(0, { focus: true, scroll: false });
    announce(`${find("count").textContent}. ${describe()}`);
  }

  mountFilters(rows, initial, setFilter);
  find("show-proposed")?.addEventListener("click", () => {
    setFilter({ ...NO_FILTER, show: "proposed" });
    move(0, { focus: true });
  });
  mountHeadings(() => sort, (chosen) => {
    sort = chosen;
    choose();
  });
  const pageOf = () => Math.floor(place / PER_PAGE);
  const turn = (page) => move(page * PER_PAGE, { scroll: true });
  find("first").addEventListener("click", () => turn(0));
  find("previous").addEventListener("click", () => turn(pageOf() - 1));
  find("next").addEventListener("click", () => turn(pageOf() + 1));
  find("last").addEventListener("click", () => turn(Math.ceil(view.length / PER_PAGE) - 1));
  find("page").addEventListener("change", () => turn(Math.min(Number(find("page").max), Math.max(1, Math.round(find("page").valueAsNumber || 1))) - 1));
  find("body").addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    if (!line || !view.length) return;
    move(pageOf() * PER_PAGE + line.sectionRowIndex, { focus: true });
    if (narrow()) find("inspector").scrollIntoView();
  });
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => decide(button.dataset.action));
  find("undo").addEventListener("click", undo);
  find("download").addEventListener("click", () => download("corrections.csv", correctionsCsv(rows, decisions)));
  decisions.follow(() => choose({ reset: false }));
  const step = (by) => move(place + by, { focus: true });
  mountKeys({ next: () => step(1), back: () => step(-1), decide, undo, choose: () => inspector.chooseLabel() });
  choose();
  return { showPair };
}
