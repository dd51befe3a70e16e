// One slider over the epochs: the histogram of the losses, and who passed through the adapter.

const PARTS = {
  all: { name: "all labels", colour: "blue" },
  right: { name: "right labels", colour: "blue" },
  wrong: { name: "wrong labels", colour: "orange" },
};

function histogramChart(figure, { epoch, histogram }) {
  const title = `Losses under the given labels, epoch ${epoch}`;
  if (!histogram) return figure.replaceChildren(caption(title, "No losses were kept of this epoch."));
  const { edges, counts, curves, contradicted } = histogram;
  const parts = Object.keys(counts);
  const totals = edges.slice(1).map((_, bin) => parts.reduce((sum, part) => sum + counts[part][bin], 0));
  const notes = [histogram.of_steps
    ? "As they fell out of the epoch’s steps, each at its own moment; nothing was fitted to these."
    : "Judged in one pass after the epoch."];
  if (!histogram.of_steps && !curves) notes.push("Nothing was found to tell right labels from wrong ones by.");
  if (contradicted != null) notes.push(`The predictions contradict ${percent(contradicted)} of the labels.`);
  const swatch = (child) => drawn("svg", { "aria-hidden": "true" }, child);
  const legend = make("ul", { class: "legend" },
    ...parts.map((part) => make("li", { class: PARTS[part].colour },
      swatch(drawn("rect", { width: 26, height: 12, rx: 2, class: `bar ${part}` })), make("span", { class: "legend-name" }, PARTS[part].name))),
    ...(curves ? [["lower", "right by estimate"], ["upper", "wrong by estimate"]] : []).map(([side, name]) =>
      make("li", {}, swatch(drawn("line", { x1: 0, x2: 26, y1: 6, y2: 6, class: `curve ${side}` })), name)));
  const sum = totals.reduce((before, value) => before + value, 0);
  const said = parts.map((part) => `${number(counts[part].reduce((a, b) => a + b, 0))} ${PARTS[part].name}`).join(", ");
  const plot = make("div", { class: "plot", role: "img",
    "aria-label": `Histogram of ${number(sum)} losses: ${said}${curves ? ", with the parts that are right and wrong by estimate" : ""}; the table below has the counts` });
  const table = make("details", {}, make("summary", {}, "Counts as a table"),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Counts of losses" },
      dataTable(["from", "to", ...parts.map((part) => PARTS[part].name)],
        totals.map((_, bin) => [edges[bin].toFixed(2), edges[bin + 1].toFixed(2), ...parts.map((part) => number(counts[part][bin]))]))));
  table.open = figure.querySelector("details")?.open ?? false;
  figure.replaceChildren(caption(title, notes.join(" ")), legend, plot, table);

  const height = 300;
  const edge = { left: 50, right: 10, top: 18, bottom: 46 };
  plot.style.height = `${height}px`;
  // a component that has collapsed to a spike must not hide the rest
  const most = Math.max(1, ...totals) * 1.12;
  const [low, high] = [edges[0], edges.at(-1)];
  onWidth(plot, (width) => {
    const x = (value) => edge.left + ((value - low) / (high - low)) * (width - edge.left - edge.right);
    const y = (value) => edge.top + (1 - Math.min(value, most * 1.02) / most) * (height - edge.top - edge.bottom);
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height });
    for (const value of ticks(0, most, 4)) {
      picture.append(drawn("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value) }),
        drawn("text", { x: edge.left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value)));
    }
    const bases = totals.map(() => 0);
    for (const part of parts) {
      const bars = drawn("g", { class: PARTS[part].colour });
      counts[part].forEach((value, bin) => {
        if (!value) return;
        const top = y(bases[bin] + value);
        const span = `${edges[bin].toFixed(2)} to ${edges[bin + 1].toFixed(2)}`;
        bars.append(drawn("rect", { class: `bar ${part}`, x: x(edges[bin]) + 0.5, width: Math.max(0.5, x(edges[bin + 1]) - x(edges[bin]) - 1),
          y: top, height: y(bases[bin]) - top }, drawn("title", {}, `${span}: ${number(value)} ${PARTS[part].name}`)));
        bases[bin] += value;
      });
      picture.append(bars);
    }
    for (const side of curves ? ["lower", "upper"] : []) {
      const points = curves.x.map((value, i) => `${x(value)},${y(curves[side][i] ?? most)}`);
      picture.append(drawn("polyline", { class: `curve ${side}`, points: points.join(" ") }));
    }
    if (histogram.scale === "log_odds" && low < 0 && high > 0) {
      picture.append(drawn("line", { class: "chosen", x1: x(0), x2: x(0), y1: edge.top - 6, y2: height - edge.bottom }));
      if (width > 480) picture.append(drawn("text", { x: x(0) - 7, y: edge.top - 6, "text-anchor": "end" }, "← predictions agree"),
        drawn("text", { x: x(0) + 7, y: edge.top - 6 }, "predictions contradict →"));
    }
    picture.append(drawn("line", { class: "axis", x1: edge.left, x2: width - edge.right, y1: y(0), y2: y(0) }));
    for (const value of ticks(low, high, width / 80)) {
      picture.append(drawn("text", { x: x(value), y: height - edge.bottom + 17, "text-anchor": "middle" }, String(value).replace("-", "−")));
    }
    const scale = histogram.scale === "log_odds" ? "log-odds against the given label" : "cross entropy under the given label, nats";
    picture.append(drawn("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, scale));
    plot.replaceChildren(picture);
  });
}

function barList(figure, title, note, entries) {
  const list = make("ul", { class: "bars", tabindex: 0, "aria-label": title });
  for (const [name, share] of entries) {
    const fill = make("span", { class: "fill" });
    fill.style.setProperty("--share", `${100 * (share ?? 0)}%`);
    fill.style.display = "block";
    list.append(make("li", {}, make("bdi", { class: "label", title: brief(name, 400) }, brief(name)),
      make("span", { class: "track", "aria-hidden": "true" }, fill),
      make("span", { class: "number" }, share == null ? "none" : percent(share))));
  }
  figure.replaceChildren(caption(title, note), list);
}

function epochSlider(name, epochs, selected, start, show) {
  const slider = find(`${name}-slider`);
  slider.max = epochs.length - 1;
  function go(place) {
    const { epoch } = epochs[place];
    slider.value = place;
    find(`${name}-name`).textContent = `${epoch} of ${epochs.at(-1).epoch}${epoch === selected ? " (selected)" : ""}`;
    slider.setAttribute("aria-valuetext", `epoch ${find(`${name}-name`).textContent}`);
    show(epochs[place]);
  }
  slider.addEventListener("input", () => go(slider.valueAsNumber));
  go(epochs.indexOf(start));
  return go;
}

function mountHistogram({ epochs, selected }) {
  const fitted = epochs.filter(({ histogram }) => histogram?.curves);
  const start = fitted.at(-1) ?? epochs.find(({ epoch }) => epoch === selected) ?? epochs.at(-1);
  const go = epochSlider("epoch", epochs, selected, start, (epoch) => histogramChart(find("histogram"), epoch));
  if (!fitted.length || fitted.length === epochs.length) return;
  find("epoch-jumps").append("The labels were estimated after epoch ", ...fitted.flatMap((one, i) => {
    const jump = make("button", { type: "button", class: "link" }, String(one.epoch));
    jump.addEventListener("click", () => go(epochs.indexOf(one)));
    return i ? [" ", jump] : [jump];
  }));
}

function mountRouting({ epochs, selected }, labels) {
  const routed = epochs.filter(({ gates }) => gates);
  if (!routed.length) return;
  const start = routed.find(({ epoch }) => epoch === selected) ?? routed.at(-1);
  epochSlider("routing", routed, selected, start, ({ gates }) => {
    barList(find("gates-blocks"), "By block", "Share of the examples that passed the adapter there.",
      gates.blocks.map((share, block) => [`Block ${block + 1}`, share]));
    find("gates-classes").hidden = !gates.classes;
    if (gates.classes) {
      barList(find("gates-classes"), "By given label", "A class that passes seldom is one whose labels are doubted.",
        gates.classes.map((share, label) => [labels?.[label] ?? `Class ${label}`, share]));
    }
  });
}
