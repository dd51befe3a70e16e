// Line charts over the epochs, each a slider that reads out its values.

const SHAPES = {
  circle: (x, y) => drawn("circle", { cx: x, cy: y, r: 4, class: "mark" }),
  square: (x, y) => drawn("rect", { x: x - 3.7, y: y - 3.7, width: 7.4, height: 7.4, class: "mark" }),
  triangle: (x, y) => drawn("path", { d: `M${x} ${y - 5}l5 8.6h-10z`, class: "mark" }),
};

const ACCURACIES = [
  { key: "test_accuracy", name: "test", colour: "blue", shape: "circle", dash: "none" },
  { key: "validation_accuracy", name: "validation, labels as given", colour: "green", shape: "square", dash: "7 4" },
  { key: "memorised", name: "wrong labels repeated in the steps", colour: "orange", shape: "triangle", dash: "2 4" },
];
const LOSSES = [
  { key: "train_loss", name: "training", colour: "blue", shape: "circle", dash: "none" },
  { key: "validation_loss", name: "validation", colour: "green", shape: "square", dash: "7 4" },
];

function lineChart(figure, { epochs, selected, warm_up: warmUp }, { title, note, series, shares }) {
  const there = series.filter(({ key }) => epochs.some((epoch) => epoch.figures[key] != null));
  if (!there.length) return figure.remove();
  const said = (value) => (shares ? percent(value) : value.toFixed(3));
  const legend = make("ul", { class: "legend" }, ...there.map((line) => {
    const swatch = drawn("svg", { "aria-hidden": "true" },
      drawn("line", { x1: 0, x2: 26, y1: 6, y2: 6, class: "series", "stroke-dasharray": line.dash }), SHAPES[line.shape](13, 6));
    return make("li", { class: line.colour }, swatch, make("span", { class: "legend-name" }, line.name));
  }));
  const plot = make("div", { class: "plot", tabindex: 0, role: "slider", "aria-label": `${title}: values by epoch` });
  const readout = make("p", { class: "readout" });
  figure.append(caption(title, note), legend, plot, readout);

  const height = 250;
  const edge = { left: 46, right: 14, top: 18, bottom: 30 };
  plot.style.height = `${height}px`;
  const values = there.flatMap(({ key }) => epochs.map((epoch) => epoch.figures[key]).filter((value) => value != null));
  const low = shares ? Math.floor(Math.min(...values) * 10) / 10 : 0;
  const high = shares ? Math.ceil(Math.max(...values) * 10) / 10 : Math.max(...values) * 1.05;
  const span = high - low || 1;
  const y = (value) => edge.top + ((low + span - value) / span) * (height - edge.top - edge.bottom);
  const first = epochs[0].epoch;
  const last = epochs.at(-1).epoch;
  let x;
  let place = Math.max(0, epochs.findIndex((epoch) => epoch.epoch === selected));
  if (!epochs.some((epoch) => epoch.epoch === selected)) place = epochs.length - 1;

  const cursor = drawn("line", { class: "cursor", y1: edge.top, y2: height - edge.bottom });
  function read(position) {
    place = Math.min(epochs.length - 1, Math.max(0, position));
    const { epoch, figures } = epochs[place];
    const parts = there.filter(({ key }) => figures[key] != null).map(({ key, name }) => `${name} ${said(figures[key])}`);
    const head = `Epoch ${epoch}${epoch === selected ? " (selected)" : ""}`;
    readout.replaceChildren(make("strong", {}, head), parts.length ? `: ${parts.join("; ")}` : ": no figures");
    plot.setAttribute("aria-valuemin", 0);
    plot.setAttribute("aria-valuemax", epochs.length - 1);
    plot.setAttribute("aria-valuenow", place);
    plot.setAttribute("aria-valuetext", readout.textContent);
    if (x) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(epoch));
  }

  onWidth(plot, (width) => {
    x = (epoch) => (last === first ? (edge.left + width - edge.right) / 2
      : edge.left + 8 + ((epoch - first) / (last - first)) * (width - edge.left - edge.right - 16));
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    for (const value of ticks(low, low + span, 5)) {
      picture.append(drawn("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value) }),
        drawn("text", { x: edge.left - 8, y: y(value) + 4, "text-anchor": "end" }, shares ? `${Math.round(100 * value)} %` : number(value)));
    }
    for (const epoch of ticks(first, last, Math.min(last - first, width / 55)).filter(Number.isInteger)) {
      picture.append(drawn("text", { x: x(epoch), y: height - edge.bottom + 18, "text-anchor": "middle" }, String(epoch)));
    }
    if (warmUp != null && warmUp < last) {
      const between = x(warmUp + 0.5);
      picture.append(drawn("line", { class: "chosen", x1: between, x2: between, y1: edge.top - 6, y2: height - edge.bottom }),
        drawn("text", { x: between - 5, y: edge.top - 7, "text-anchor": "end" }, "restarted →"));
    }
    if (epochs.some(({ epoch }) => epoch === selected)) {
      const right = x(selected) > width - 80;
      picture.append(drawn("line", { class: "chosen", x1: x(selected), x2: x(selected), y1: edge.top - 6, y2: height - edge.bottom }),
        drawn("text", { x: x(selected) + (right ? -5 : 5), y: edge.top - 7, "text-anchor": right ? "end" : "start" }, "selected"));
    }
    picture.append(cursor);
    for (const { key, colour, shape, dash } of there) {
      const points = epochs.filter(({ figures }) => figures[key] != null).map(({ epoch, figures }) => [x(epoch), y(figures[key])]);
      picture.append(drawn("g", { class: colour },
        drawn("polyline", { class: "series", "stroke-dasharray": dash, points: points.map((point) => point.join()).join(" ") }),
        ...(points.length <= 40 ? points.map(([px, py]) => SHAPES[shape](px, py)) : [])));
    }
    plot.replaceChildren(picture);
    read(place);
  });
  plot.addEventListener("pointermove", (event) => {
    const at = event.clientX - plot.getBoundingClientRect().left;
    const distances = epochs.map(({ epoch }) => Math.abs(x(epoch) - at));
    read(distances.indexOf(Math.min(...distances)));
  });
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: place - 1, ArrowDown: place - 1, ArrowRight: place + 1, ArrowUp: place + 1, Home: 0, End: epochs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    read(moves[event.key]);
  });
  read(place);
}

function epochTable(epochs, selected) {
  const keys = [...new Set(epochs.flatMap(({ figures }) => Object.keys(figures)))];
  const records = epochs.map(({ epoch, figures }) => [
    epoch === selected ? `${epoch} (selected)` : epoch,
    ...keys.map((key) => (figures[key] == null ? "–" : figures[key].toFixed(4))),
  ]);
  const table = dataTable(["epoch", ...keys.map((key) => key.replaceAll("_", " "))], records);
  epochs.forEach(({ epoch }, i) => table.tBodies[0].rows[i].classList.toggle("chosen-row", epoch === selected));
  find("epoch-table").append(table);
}

function mountLines(charts) {
  lineChart(find("accuracy-chart"), charts, { title: "Accuracy", series: ACCURACIES, shares: true,
    note: "Validation labels are as doubtful as the training labels." });
  lineChart(find("loss-chart"), charts, { title: "Loss", series: LOSSES, shares: false,
    note: "Mean over the rows, in nats." });
  epochTable(charts.epochs, charts.selected);
}
