// The estimated confusion: a heat map that the arrow keys walk through, and the most confused pairs.

function heatMap({ classes, given, rows }, labels, showRows) {
  const names = classes.map((label) => brief(labels[label]));
  const dense = classes.length > 16;
  const longest = Math.max(...names.map((name) => name.length));
  const wrong = given.flatMap((shares, i) => shares.filter((_, j) => j !== i));
  const most = Math.max(0.02, ...wrong);
  const table = make("table", { class: `heat${dense ? " dense" : longest * classes.length > 84 ? " upright" : ""}` });
  table.append(make("thead", {}, make("tr", {}, make("td", { class: "corner" }, "truly ↓ given →"),
    ...names.map((name) => make("th", { scope: "col", class: "column", title: name }, make("bdi", {}, name))))));
  const body = make("tbody");
  const said = (i, j) => i === j
    ? `${percent(given[i][j])} of the rows that are truly “${names[i]}” were given it`
    : `${percent(given[i][j])} of the rows that are truly “${names[i]}” were given “${names[j]}” (about ${number(Math.round(rows[i][j]))} rows)`;
  const cells = names.map((name, i) => {
    const line = make("tr", {}, make("th", { scope: "row", title: name }, make("bdi", {}, name)));
    const made = names.map((_, j) => {
      const share = given[i][j];
      const cell = make("td", { title: said(i, j), "aria-label": said(i, j), ...(i === j ? { class: "own" } : {}) },
        dense ? "" : share < 0.0005 ? "·" : (100 * share).toFixed(1));
      // the power makes small shares visible; the scale ends at the largest wrong share
      const heat = Math.min(1, share / most) ** 0.7;
      if (i !== j) cell.style.setProperty("--heat", `${(100 * heat).toFixed(1)}%`);
      if (i !== j && heat > 0.62) cell.classList.add("strong");
      return cell;
    });
    line.append(...made);
    body.append(line);
    return made;
  });
  table.append(body);
  const box = find("heat");
  box.append(table);
  let here = null;
  function go(i, j) {
    if (here) cells[here[0]][here[1]].classList.remove("here");
    here = [Math.min(names.length - 1, Math.max(0, i)), Math.min(names.length - 1, Math.max(0, j))];
    const [row, column] = here;
    cells[row][column].classList.add("here");
    const see = make("button", { type: "button", class: "link" }, "See these rows");
    see.addEventListener("click", () => showRows(classes[column], classes[row]));
    find("heat-readout").replaceChildren(`${said(row, column)}. `, see);
    return cells[row][column];
  }
  box.addEventListener("keydown", (event) => {
    const [i, j] = here ?? [0, -1];
    const moves = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    go(...moves[event.key]).scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  body.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (cell) go(cell.parentNode.sectionRowIndex, cell.cellIndex - 1);
  });
  find("heat-readout").textContent = classes.length < labels.length
    ? `The ${classes.length} most confused of ${labels.length} classes. Choose a cell to read it.`
    : "Choose a cell to read it.";
}

function mountConfusion(confusion, labels, showRows) {
  heatMap(confusion, labels, showRows);
  for (const [truth, given, share, rows] of confusion.pairs) {
    const see = make("button", { type: "button", class: "link" }, make("bdi", {}, brief(labels[truth])), " given as ", make("bdi", {}, brief(labels[given])));
    see.addEventListener("click", () => showRows(given, truth));
    find("pairs").append(make("li", {}, see, make("small", {}, `about ${number(Math.round(rows))} rows, ${percent(share)} of the class`)));
  }
  if (!confusion.pairs.length) find("pairs").replaceWith(make("p", { class: "explain" }, "No pair of classes is estimated to share a wrong label."));
}
