// What every part of the page uses. Text from the data reaches the page as text nodes alone.

const find = (id) => document.getElementById(id);

function embedded(id) {
  const node = find(id);
  return node && JSON.parse(node.textContent);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const make = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

const drawn = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const percent = (share) => {
  const value = 100 * share;
  return `${value.toFixed(value < 0.05 || value >= 99.95 ? 0 : 1)}\u00a0%`;
};

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 4 });

// control characters by their pictures, and half surrogate pairs, which have no form
const visible = (text) =>
  text.toWellFormed().replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, (sign) => String.fromCharCode(0x2400 + sign.charCodeAt(0)));

function brief(text, length = 120) {
  const signs = text.length > length ? Array.from(text.slice(0, 2 * length)) : [];
  return visible(signs.length > length ? `${signs.slice(0, length).join("")}…` : text);
}

// Private windows and some policies forbid localStorage, even to look at it.
const memory = {
  get(key) {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
      return true;
    } catch {
      return false;
    }
  },
  works() {
    const probe = "clear-peft:probe";
    const kept = this.set(probe, "");
    if (kept) localStorage.removeItem(probe);
    return kept;
  },
};

function onWidth(node, draw) {
  let before = 0;
  new ResizeObserver(() => {
    const width = Math.floor(node.clientWidth);
    if (width > 0 && width !== before) draw((before = width));
  }).observe(node);
}

// Round numbers that cover an interval, about as many as asked for.
function ticks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted) || 1;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((size) => size >= raw * 0.999);
  const places = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) places.push(Number((i * step).toPrecision(12)));
  return places;
}

function caption(title, note) {
  return make("figcaption", {}, title, ...(note ? [make("small", {}, note)] : []));
}

function dataTable(headings, records) {
  return make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...headings.map((heading) => make("th", { scope: "col" }, heading)))),
    make(
      "tbody",
      {},
      ...records.map(([first, ...rest]) =>
        make("tr", {}, make("th", { scope: "row" }, String(first)), ...rest.map((value) => make("td", {}, String(value)))),
      ),
    ),
  );
}

function mountTheme() {
  const key = "clear-peft:theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = ["light", "dark"].find((theme) => theme === memory.get(key));
  const show = () => {
    const theme = chosen ?? (system.matches ? "dark" : "light");
    const other = theme === "dark" ? "light" : "dark";
    if (chosen) document.documentElement.dataset.theme = chosen;
    find("theme").textContent = other === "dark" ? "☾ Dark" : "☀ Light";
    find("theme").setAttribute("aria-label", `Switch to the ${other} theme`);
    return other;
  };
  find("theme").addEventListener("click", () => {
    chosen = show();
    memory.set(key, chosen);
    show();
  });
  system.addEventListener("change", show);
  show();
}
