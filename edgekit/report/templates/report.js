"use strict";

// Tables: a click on a heading sorts by that column; a row of notes stays with the row above it.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.tabIndex = 0;
    const sort = () => {
      const falling = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const groups = [];
      for (const row of body.rows) {
        if (row.classList.contains("note")) groups[groups.length - 1].push(row);
        else groups.push([row]);
      }
      const key = ([row]) => {
        const cell = row.cells[column];
        if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
        const text = cell.textContent.trim();
        return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
      };
      const missing = (value) => value === "–" || value === "";
      const order = (a, b) => {
        const x = key(a), y = key(b);
        if (missing(x) || missing(y)) return missing(x) - missing(y); // what is not known stays at the end
        const found = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return falling ? -found : found;
      };
      groups.sort(order).forEach((rows) => rows.forEach((row) => body.append(row)));
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
}

// Hints: what is pointed at, tapped or focused tells its figures.
const tip = document.getElementById("tip");
function show(element) {
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  const place = element.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(6, place.left + place.width / 2 - size.width / 2), innerWidth - size.width - 6);
  const above = place.top - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : place.bottom + 8}px`;
}
const hide = () => { tip.hidden = true; };
for (const name of ["pointerover", "focusin", "click"]) {
  document.addEventListener(name, (event) => {
    const element = event.target.closest("[data-tip]");
    if (element) show(element); else hide();
  });
}
addEventListener("scroll", hide, { passive: true });

// A link to an artifact opens its details.
function openTarget() {
  const element = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (element && element.tagName === "DETAILS") element.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();
