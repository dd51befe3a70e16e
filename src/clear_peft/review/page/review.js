"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  let state = null;
  let place = 0;
  let working = false;

  const made = (name, text, classes) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (classes) element.className = classes;
    return element;
  };

  async function ask(path, body) {
    const sent = body === undefined
      ? {}
      : { method: "POST", headers: { "X-Clear-Peft": "1", "Content-Type": "application/json" }, body: JSON.stringify(body) };
    let reply;
    try {
      reply = await fetch(path, sent);
    } catch {
      throw new Error("The review no longer runs: start clear-peft review again. Your answers are kept.");
    }
    const said = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(said.error || `The review refused this (${reply.status}). Load the page again.`);
    return said;
  }

  function tell(text) {
    at("notice").textContent = text;
    at("notice").hidden = false;
    at("notice").scrollIntoView({ block: "nearest" });
  }

  // the second click of two is meant for the row before
  const pressed = (button, action) => button.addEventListener("click", (event) => {
    if (event.detail < 2) action();
  });

  function key(letter) {
    const shown = made("kbd", letter);
    shown.setAttribute("aria-hidden", "true");
    return shown;
  }

  // one request at a time: answers must arrive in their order
  async function work(action) {
    if (working) return;
    working = true;
    at("notice").hidden = true;
    try {
      await action();
    } catch (error) {
      tell(error.message);
    } finally {
      working = false;
      at("busy").hidden = true;
    }
  }

  function figure(name, value, detail) {
    const item = made("li");
    item.append(made("span", name, "name"), made("span", value, "value"), made("span", detail, "detail"));
    return item;
  }

  function showFigures() {
    const one = state.summary;
    const [low, high] = one.noise_rate_interval || [null, null];
    const range = low === null ? "" : `95 % interval ${percent(low)} to ${percent(high)}, `;
    const by = one.random_rows ? `by ${one.random_rows} random rows` : "by the model; a sure estimate needs 10 random rows";
    const given = one.answered;
    const looked = given.keep + given.relabel + given.drop + given.skip;
    const precision = one.listed_precision === null ? "none is listed" : `about ${percent(one.listed_precision)} of them are wrong`;
    const changed = one.changed === null ? "no answers were judged yet" : `the last batch changed ${percent(one.changed)} of all rows`;
    at("figures").replaceChildren(
      figure("Wrong labels", percent(one.noise_rate), range + by),
      figure("Listed as wrong", String(one.listed), precision),
      figure("Answered", `${looked} of ${one.rows}`, `${given.keep} right, ${given.relabel} wrong; ${changed}`),
    );
  }

  function showList() {
    at("list").tBodies[0].replaceChildren(...state.suspicious.map((one) => {
      const line = made("tr");
      for (const cell of [String(one.row), one.text, one.given, one.predicted, percent(one.clean_probability)]) {
        const shown = made("td", cell);
        shown.dir = "auto";
        line.append(shown);
      }
      return line;
    }));
  }

  function showPatterns() {
    at("rules").hidden = !state.patterns.length;
    at("patterns").replaceChildren(...state.patterns.map((one) => {
      const item = made("li");
      const line = made("p");
      line.append("Rows with ", made("strong", `“${one.words}”`), " labelled ", made("strong", one.given, "label"),
        `: all ${one.seen} that you looked at are `, made("strong", one.true, "label"), ".");
      const examples = made("ol");
      examples.append(...one.examples.map((text) => {
        const example = made("li", text);
        example.dir = "auto";
        return example;
      }));
      const button = made("button", `Change ${one.rows} more rows to ${one.true}`);
      pressed(button, () => work(async () => {
        const { rows } = await ask("api/apply", { pattern: one.number });
        state.patterns = state.patterns.filter((other) => other !== one);
        state.undo = true;
        showPatterns();
        tell(`${rows} rows were changed to ${one.true}. Judge all rows to see what follows.`);
        place = state.batch.length;
        showRow();
      }));
      item.append(line, made("p", `${Math.min(one.examples.length, one.rows)} of the other ${one.rows}:`, "explain"), examples, button);
      return item;
    }));
  }

  function showRow() {
    const total = state.batch.length;
    const done = place >= total;
    at("asking").hidden = done;
    at("done").hidden = !done;
    at("undo").disabled = at("undo-last").disabled = !state.undo;
    at("progress").max = Math.max(total, 1);
    at("progress").value = place;
    at("progress-text").textContent = done ? "" : `${place + 1} of ${total}`;
    if (done) {
      at("done-title").textContent = total ? "The batch is done" : "There are no rows left to look at";
      at("enough").textContent = state.summary.enough
        ? "Enough: the last two batches changed almost nothing. Further answers will gain little."
        : total ? "Your answers say something of all other rows, too." : "All rows have an answer.";
      at("done-title").focus();
      return;
    }
    const one = state.batch[place];
    at("why").textContent = `Row ${one.row}: ${one.why}`;
    at("text").textContent = one.text;
    at("text").scrollTop = 0;
    at("given").textContent = one.given;
    at("copies").textContent = one.copies > 1 ? `Your answer counts for ${one.copies} rows with this text.` : "";
    const keep = made("button", `Yes, ${one.given} `, "primary");
    keep.append(key("K"));
    keep.setAttribute("aria-keyshortcuts", "K");
    pressed(keep, () => answer("keep"));
    const others = one.suggested.filter(([label]) => label !== one.given).slice(0, 4);
    const buttons = others.map(([label, share], index) => {
      const button = made("button", `No, ${label} `);
      button.append(made("span", percent(share), "share"), " ", key(String(index + 1)));
      button.setAttribute("aria-keyshortcuts", String(index + 1));
      pressed(button, () => answer("relabel", label));
      return button;
    });
    at("answers").replaceChildren(keep, ...buttons);
    at("other").value = "";
    at("row").focus({ preventScroll: true });
  }

  // the next row without an answer, also from the beginning
  function nextOpen(from) {
    const places = state.batch.flatMap((one, index) => (one.answer === null ? [index] : []));
    return places.find((index) => index >= from) ?? places[0] ?? state.batch.length;
  }

  function show() {
    at("name").textContent = state.name;
    document.title = `Review of ${state.name}`;
    at("path").textContent = at("end-path").textContent = state.summary.corrections;
    at("labels").replaceChildren(...state.labels.map((label) => {
      const option = made("option");
      option.value = label;
      return option;
    }));
    place = nextOpen(0);
    showFigures();
    showPatterns();
    showList();
    showRow();
  }

  const answer = (action, label) => work(async () => {
    if (place >= state.batch.length) return;
    await ask("api/answer", { row: state.batch[place].row, action, label });
    state.batch[place].answer = action;
    state.undo = true;
    place = nextOpen(place);
    showRow();
  });

  const undo = () => work(async () => {
    if (!state.undo) return;
    const undone = await ask("api/undo", {});
    state = undone.state;
    show();
    const before = state.batch.findIndex((one) => one.row === undone.row);
    if (before >= 0) {
      place = before;
      showRow();
    } else if (undone.rows) {
      tell(`${undone.rows} rows are as they were before.`);
    }
  });

  const judge = () => work(async () => {
    at("busy").hidden = false;
    state = await ask("api/judge", {});
    show();
  });

  const finish = () => work(async () => {
    at("busy").hidden = false;
    await ask("api/judge", {});
    await ask("api/finish", {});
    state = null;
    for (const section of document.querySelectorAll("main > *")) section.hidden = section.id !== "end";
    at("finish").hidden = true;
    at("end-title").focus();
  });

  pressed(at("skip"), () => answer("skip"));
  pressed(at("drop"), () => answer("drop"));
  pressed(at("undo"), undo);
  pressed(at("undo-last"), undo);
  pressed(at("judge"), judge);
  pressed(at("finish"), finish);
  at("other-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!state) return;
    // the field holds no line ends
    const plain = (text) => text.replace(/\s+/g, " ").trim();
    const typed = plain(at("other").value);
    const alike = state.labels.filter((one) => plain(one).toLowerCase() === typed.toLowerCase());
    const label = alike.find((one) => plain(one) === typed) ?? (alike.length === 1 ? alike[0] : undefined);
    if (label !== undefined) {
      answer("relabel", label);
    } else if (typed) {
      tell(`There is no label “${typed}”: choose one of the list.`);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (!state || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
    // a key that is held down answers one row, and one that is pressed elsewhere none
    if (event.repeat || (event.target !== document.body && !event.target.closest("#asking, #done"))) return;
    const key = event.key.toLowerCase();
    if (place >= state.batch.length) {
      if (key === "enter" && !event.target.closest("button") && state.batch.length) judge();
      else if (key === "u") undo();
      return;
    }
    const button = at("answers").children[Number(key)];
    if (key === "k") answer("keep");
    else if (key === "s") answer("skip");
    else if (key === "d") answer("drop");
    else if (key === "u") undo();
    else if (/^[1-9]$/.test(key) && button) button.click();
  });

  work(async () => {
    state = await ask("api/state");
    show();
  });
})();
