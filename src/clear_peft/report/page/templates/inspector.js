// The row that is being looked at: whole text, evidence, and the buttons to decide.

const WORDS = { keep: () => "✓\u00a0keep", relabel: (label) => `→\u00a0${brief(label)}`, drop: () => "✕\u00a0drop" };

const decidedAs = ({ action, label }) => WORDS[action](label);

// A mixture of two Gaussians is surer than anybody should be.
function wrongness(rows, i) {
  if (rows.clean[i] == null) return "unknown";
  return rows.clean[i] < 0.005 ? ">\u00a099\u00a0%" : percent(1 - rows.clean[i]);
}

function makeInspector(rows, decisions, { jump }) {
  const select = find("new-label");
  select.append(make("option", { value: "" }, "choose a class"),
    ...rows.labels.map((label, i) => make("option", { value: i }, brief(label))));
  let groups;
  function twins(i) {
    if (rows.group[i] < 0) return [];
    groups ??= Map.groupBy(rows.group.keys(), (position) => rows.group[position]);
    return groups.get(rows.group[i]).filter((other) => other !== i);
  }
  function showTwins(i) {
    const others = twins(i);
    const entries = others.slice(0, 5).map((other) => {
      const link = make("button", { type: "button", class: "link" }, `Row ${rows.row[other]}`);
      link.addEventListener("click", () => jump(rows.row[other]));
      return make("li", {}, link, ": ", make("bdi", {}, brief(rows.labels[rows.given[other]])));
    });
    const more = others.length > 5 ? [make("p", {}, `and ${number(others.length - 5)} more`)] : [];
    find("inspector-twins").replaceChildren(...(others.length ? ["Near duplicates, and their given labels:", make("ul", {}, ...entries), ...more] : []));
  }
  function marks(i, decision) {
    const chips = rows.split ? [make("span", { class: "chip" }, brief(rows.splits[rows.split[i]]))] : [];
    if (rows.id) chips.push(make("span", { class: "chip" }, "id ", make("bdi", {}, brief(rows.id[i]))));
    if (!rows.issue[i]) chips.push(make("span", { class: "chip" }, "not on the list"));
    if (rows.conflict[i]) chips.push(make("span", { class: "chip warn" }, "near duplicate with another label"));
    if (decision) chips.push(make("span", { class: `chip decided ${decision.action}` }, decidedAs(decision)));
    return chips;
  }
  return {
    show(i, place, total) {
      find("inspector").hidden = i === undefined;
      if (i === undefined) return;
      const decision = decisions.of(rows.row[i]);
      find("inspector-title").textContent = `Row ${rows.row[i]}`;
      find("inspector-place").textContent = `${number(place + 1)} of ${number(total)}`;
      find("inspector-chips").replaceChildren(...marks(i, decision));
      const length = rows.lengths[i];
      find("inspector-text").replaceChildren(visible(rows.text[i]), ...(length
        ? [make("span", { class: "more" }, ` … (cut here; the text has ${number(length)} characters)`)] : []));
      find("inspector-text").scrollTop = 0;
      find("inspector-given").textContent = brief(rows.labels[rows.given[i]]);
      find("inspector-predicted").textContent = brief(rows.labels[rows.predicted[i]]);
      find("inspector-wrong").textContent = wrongness(rows, i);
      find("inspector-quality").textContent = rows.quality[i] == null ? "unknown" : rows.quality[i].toFixed(3);
      showTwins(i);
      const target = decision?.action === "relabel" ? rows.labels.indexOf(decision.label) : rows.predicted[i];
      // the given label is no correction
      select.value = target < 0 || target === rows.given[i] ? "" : target;
      for (const button of document.querySelectorAll("[data-action]")) {
        button.setAttribute("aria-pressed", button.dataset.action === decision?.action);
      }
    },
    newLabel: () => (select.value === "" ? null : rows.labels[Number(select.value)]),
    chooseLabel: () => select.focus(),
  };
}
