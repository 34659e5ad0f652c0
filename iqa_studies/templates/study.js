'use strict';

// A click on a column's head sorts by it, a second one the other way round; what is no number comes last.
function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const value = parseFloat(text);
  return Number.isNaN(value) ? text : value;
}

function before(a, b) {
  if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
  return typeof a === 'number' ? a - b : a.localeCompare(b);
}

for (const head of document.querySelectorAll('table.sortable th')) {
  head.firstElementChild.addEventListener('click', () => {
    const table = head.closest('table');
    const rows = [...table.tBodies[0].rows];
    const down = head.getAttribute('aria-sort') === 'ascending';
    rows.sort((a, b) => before(key(a, head.cellIndex), key(b, head.cellIndex)) * (down ? -1 : 1));
    for (const other of table.querySelectorAll('th')) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    table.tBodies[0].append(...rows);
  });
}

// A link to a run opens it.
function open() {
  const run = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (run instanceof HTMLDetailsElement) run.open = true;
}
addEventListener('hashchange', open);
open();
