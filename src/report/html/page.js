"use strict";
// Tables sort and filter, the table of all numbers is built, and light or dark can be chosen. Without this the page is whole but
// for that one table, whose numbers are in table.csv.
(() => {
  const make = (tag, more = {}) => Object.assign(document.createElement(tag), more);
  const lower = (text) => text.toLowerCase();

  // What a cell sorts by: its number, else its text. What has no value comes last, whichever way it runs.
  const order = (a, b, way) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    if (typeof a === "number" && typeof b === "number") return way * (a - b);
    return way * String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const key = (cell) => {
    if (!cell) return null;
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    if (text === "" || text === "–") return null;
    return /^-?[\d.,]+$/.test(text) ? Number(text.replaceAll(",", "")) : text;
  };

  // Makes a table's heads buttons; `sort` is told which column, and which way.
  const heads = (table, sort) => {
    const all = [...table.tHead.rows[0].cells];
    all.forEach((th, column) => {
      const button = make("button", { type: "button", title: "Sort by this column" });
      button.append(...th.childNodes);
      th.append(button);
      button.addEventListener("click", () => {
        const way = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        all.forEach((other) => other.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
        sort(column, way);
      });
    });
  };

  const tables = [...document.querySelectorAll("table.sorts")];
  for (const table of tables) {
    const body = table.tBodies[0];
    heads(table, (column, way) => {
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort((a, b) => order(a[0], b[0], way));
      body.append(...rows.map((r) => r[1]));
    });
  }

  // All numbers, a piece at a time.
  const kept = document.getElementById("data");
  const data = kept ? JSON.parse(kept.textContent) : { head: [], numeric: [], rows: [] };
  const PIECE = 400;
  const table = make("table", { className: "all" });
  const row = table.createTHead().insertRow();
  data.head.forEach((name) => row.append(make("th", { scope: "col", textContent: name })));
  const body = table.createTBody();
  const more = make("button", { type: "button" });
  const found = make("span", { className: "soft" });
  let rows = data.rows;
  let shown = 0;
  const text = (value) => {
    if (value === null) return "";
    if (typeof value !== "number") return value;
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-4 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(5)));
  };
  const extend = () => {
    for (const values of rows.slice(shown, shown + PIECE)) {
      const line = body.insertRow();
      values.forEach((value, i) => {
        const cell = line.insertCell();
        cell.textContent = text(value);
        if (data.numeric[i]) cell.className = "num";
      });
    }
    shown = Math.min(shown + PIECE, rows.length);
    more.textContent = `${Math.min(PIECE, rows.length - shown)} more rows`;
    more.hidden = shown === rows.length;
    found.textContent = rows.length === data.rows.length ? "" : `${rows.length} of ${data.rows.length} rows`;
  };
  const again = () => {
    body.replaceChildren();
    shown = 0;
    extend();
  };
  more.addEventListener("click", extend);
  heads(table, (column, way) => {
    rows = [...rows].sort((a, b) => order(a[column] === "" ? null : a[column], b[column] === "" ? null : b[column], way));
    again();
  });
  const wide = make("div", { className: "wide", tabIndex: 0 });
  wide.append(table);
  const tools = make("div", { className: "tools" });
  tools.append(more, found);
  if (kept) document.getElementById("all").append(wide, tools);
  again();

  // One filter for all tables: every word must stand somewhere in a row, or in what its table is called.
  const filter = make("input", { type: "search", id: "filter", placeholder: "model, recipe, task …" });
  filter.setAttribute("aria-label", "Filter rows of all tables");
  const called = (table) => {
    let at = table.closest(".wide");
    while (at && at.tagName !== "H3") at = at.previousElementSibling;
    return at ? lower(at.textContent) : "";
  };
  // A table whose rows are of all models has nothing to narrow.
  const narrow = tables.filter((table) => !table.classList.contains("fixed"));
  const names = new Map(narrow.map((table) => [table, table.classList.contains("results") ? called(table) : ""]));
  filter.addEventListener("input", () => {
    const words = lower(filter.value).split(/\s+/).filter(Boolean);
    const holds = (text) => words.every((word) => text.includes(word));
    for (const [table, name] of names) {
      for (const line of table.tBodies[0].rows) {
        line.hidden = !holds(`${name} ${lower(line.textContent)}`) && !line.classList.contains("full");
      }
    }
    // What is folded may hold what is looked for.
    if (words.length) document.querySelectorAll("section[aria-labelledby=results] > details").forEach((d) => { d.open = true; });
    rows = data.rows.filter((values) => holds(lower(`${values.slice(0, 4).join(" ")} ${values.at(-1)}`)));
    again();
  });
  const label = make("label", { textContent: "Filter rows of all tables: ", className: "tools" });
  label.append(filter, make("span", { className: "soft", textContent: "A click on a column's head sorts by it." }));
  const results = document.getElementById("results");
  if (results) results.after(label);

  // Light or dark, for this look at the page.
  const theme = make("button", { type: "button", id: "theme" });
  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  name();
  document.querySelector("header").append(theme);

  // On paper nothing is folded and it is light, and all numbers are there up to where nobody would read on; afterwards all is as
  // it was.
  const PAPER = 2000;
  let before = null;
  addEventListener("beforeprint", () => {
    const folded = [...document.querySelectorAll("details:not([open])")];
    before = { theme: document.documentElement.dataset.theme, folded };
    document.documentElement.dataset.theme = "light";
    folded.forEach((d) => { d.open = true; });
    while (shown < Math.min(rows.length, PAPER)) extend();
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    if (before.theme) document.documentElement.dataset.theme = before.theme;
    else delete document.documentElement.dataset.theme;
    before.folded.forEach((d) => { d.open = false; });
    before = null;
  });
})();
