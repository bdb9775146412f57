
"use strict";
// A click on a heading sorts its table by that column, another click reverses the order. In either, words come
// after figures ("failed" is not a figure), and missing values are last.
function key(row, column, numeric) {
  const cell = row.cells[column];
  const given = cell.dataset.sort;
  if (given !== undefined) return { rank: 0, value: given === "inf" ? Infinity : Number(given) };
  return { rank: cell.classList.contains("missing") ? 2 : Number(numeric), value: cell.textContent.trim() };
}
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a === b ? 0 : a < b ? -1 : 1;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
function sort(heading) {
  const table = heading.closest("table");
  const numeric = heading.classList.contains("numeric");
  const before = heading.getAttribute("aria-sort");
  const down = before ? before === "ascending" : numeric;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = Array.from(table.tBodies[0].rows, (row) => ({ row, ...key(row, heading.cellIndex, numeric) }));
  keyed.sort((a, b) => a.rank - b.rank || (down ? compare(b.value, a.value) : compare(a.value, b.value)));
  table.tBodies[0].append(...keyed.map(({ row }) => row));
}
for (const button of document.querySelectorAll("th button")) {
  button.disabled = false;
  button.addEventListener("click", () => sort(button.closest("th")));
}
