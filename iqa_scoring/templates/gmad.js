'use strict';
const pairs = [...document.querySelectorAll('fieldset')];

function choice(pair) {
  return pair.querySelector('input:checked')?.value;
}

function quoted(value) {
  return /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

function table() {
  const rows = pairs.filter(choice).map(pair => [quoted(pair.dataset.first), quoted(pair.dataset.second), choice(pair)]);
  return [['first', 'second', 'preference'], ...rows].map(row => row.join(',') + '\n').join('');
}

document.getElementById('form').addEventListener('change', () => {
  document.getElementById('count').textContent = `${pairs.filter(choice).length} of ${pairs.length} chosen`;
});
document.getElementById('save').addEventListener('click', () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([table()], {type: 'text/csv'}));
  link.download = 'choices.csv';
  link.click();
  URL.revokeObjectURL(link.href);
});
