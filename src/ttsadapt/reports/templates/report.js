"use strict";
(() => {
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell || cell.dataset.value === undefined) return cell ? cell.textContent.trim() : "";
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null); // what was not measured stays last
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  const sort = (table, head) => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const column = head.cellIndex;
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
    rows.sort((a, b) => compare(a[0], b[0], sign));
    table.tBodies[0].append(...rows.map((pair) => pair[1]));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.querySelectorAll("[aria-sort]")) {
      head.querySelector("button").addEventListener("click", () => sort(table, head));
    }
  }

  const main = document.getElementById("main-table");
  for (const box of document.querySelectorAll(".chooser input")) {
    const show = () => {
      for (const cell of main.querySelectorAll(`.set-${CSS.escape(box.dataset.set)}`)) cell.hidden = !box.checked;
    };
    box.addEventListener("change", show);
    show();
  }

  document.addEventListener("play", (event) => { // one voice at a time
    for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();
