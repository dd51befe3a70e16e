// The controls around the table: filters, headings, keys.

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, name]) => make("option", { value }, name)));
}

function counted(names, column) {
  const counts = names.map(() => 0);
  for (const position of column) counts[position] += 1;
  const entries = names.map((name, i) => [i, `${brief(name, 60)} (${number(counts[i])})`]).filter(([i]) => counts[i]);
  return [[ANY, "Any"], ...entries];
}

function mountFilters(rows, initial, setFilter) {
  options(find("show"), Object.entries(SHOW_OPTIONS).filter(([name]) => name !== "proposed" || rows.proposed.length));
  options(find("decision"), Object.entries(DECISION_OPTIONS));
  options(find("given"), counted(rows.labels, rows.given));
  options(find("predicted"), counted(rows.labels, rows.predicted));
  options(find("split"), counted(rows.splits, rows.split ?? []));
  for (const [name, value] of Object.entries(initial)) find(name).value = value;
  for (const name of ["show", "given", "predicted", "split", "decision"]) {
    find(name).addEventListener("change", () => setFilter({ [name]: find(name).value, search: find("search").value }));
  }
  let waiting;
  find("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => setFilter({ search: find("search").value }), 120);
  });
  const narrow = matchMedia("(max-width: 720px)");
  const fold = () => (find("more-filters").open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    setFilter(initial);
  });
}

function mountHeadings(current, change) {
  const headings = COLUMNS.map(({ key, name }) => {
    const button = make("button", { type: "button" });
    const heading = make("th", { role: "columnheader", scope: "col", class: `c-${key}` }, button);
    const show = () => {
      const sort = current();
      const here = sort.key === key;
      heading.setAttribute("aria-sort", here ? (sort.descending ? "descending" : "ascending") : "none");
      button.textContent = here ? `${name} ${sort.descending ? "↓" : "↑"}` : name;
    };
    button.addEventListener("click", () => {
      const sort = current();
      // the most suspicious first, everything else from A to Z
      change({ key, descending: sort.key === key ? !sort.descending : key === "wrong" });
      headings.forEach((one) => one.show());
    });
    show();
    return { heading, show };
  });
  find("headings").append(...headings.map(({ heading }) => heading));
}

function mountKeys({ next, back, decide, undo, choose }) {
  const help = find("help");
  // nothing is decided on a row that is out of sight
  const seen = (act) => () => {
    const shown = find("inspector").hidden ? find("review") : find("inspector");
    const { top, bottom } = shown.getBoundingClientRect();
    if (bottom > 0 && top < innerHeight) act();
    else shown.scrollIntoView();
  };
  const keys = {
    j: next, ArrowDown: next, k: back, ArrowUp: back,
    K: seen(() => decide("keep")), r: seen(() => decide("relabel")), d: seen(() => decide("drop")),
    c: seen(choose), u: seen(undo), "/": () => find("search").focus(), "?": () => help.showModal(),
  };
  const typing = (node) => node.closest("input, select, textarea, [contenteditable]");
  // arrows belong to what scrolls or slides under them
  const arrowsTaken = (node) => node !== document.body && !find("body").contains(node);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || help.open) return;
    if (event.target.id === "search" && event.key === "Escape") {
      event.preventDefault(); // browsers would empty the field
      return find("search").blur();
    }
    if (event.target.id === "new-label" && event.key === "Enter") {
      event.preventDefault();
      if (event.repeat) return;
      find("new-label").blur();
      return decide("relabel");
    }
    if (typing(event.target) || (event.key.startsWith("Arrow") && arrowsTaken(event.target))) return;
    if (!find("keys-on").checked && !event.key.startsWith("Arrow")) return;
    // Caps Lock writes capitals without Shift
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = keys[name === "k" && event.shiftKey ? "K" : name];
    if (!act || (event.key.startsWith("Arrow") && event.target === document.body)) return;
    event.preventDefault();
    // a key that is held goes through rows, and decides on one of them
    if (!event.repeat || act === next || act === back) act();
  });
  find("help-open").addEventListener("click", () => help.showModal());
  find("help-close").addEventListener("click", () => help.close());
  const key = "clear-peft:keys";
  find("keys-on").checked = memory.get(key) !== "off";
  find("keys-on").addEventListener("change", () => memory.set(key, find("keys-on").checked ? "on" : "off"));
}
