'use strict';
const images = document.getElementById('images');
const cards = [...images.children];
const field = name => document.getElementById(name);

// A picture is decoded when it comes near the window.
const near = new IntersectionObserver(entries => {
  for (const entry of entries.filter(entry => entry.isIntersecting)) {
    near.unobserve(entry.target);
    for (const picture of entry.target.querySelectorAll('img[data-src]')) {
      picture.src = picture.dataset.src;
      picture.removeAttribute('data-src');
    }
  }
}, {rootMargin: '600px'});
cards.forEach(card => near.observe(card));

function shown() {
  return cards.filter(card => !card.hidden);
}

function filter() {
  const low = field('low').value === '' ? -Infinity : Number(field('low').value);
  const high = field('high').value === '' ? Infinity : Number(field('high').value);
  const text = field('text').value.toLowerCase();
  for (const card of cards) {
    const score = Number(card.dataset.score);
    card.hidden = score < low || score > high || !card.dataset.name.toLowerCase().includes(text);
  }
  field('count').textContent = `${shown().length} shown`;
}

function quoted(value) {
  return /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

// As iqa_runtime/names.py has it: no spreadsheet takes a name for a formula.
function named(name) {
  return /^[=+\-@＝＋－＠]./.test(name) ? `./${name}` : name;
}

function table() {
  const columns = ['name', 'score', 'raw', 'percentile', 'outside', 'uncertainty', 'mos'].filter(
    name => cards.length && name in cards[0].dataset);
  const cell = (card, name) => quoted(name === 'name' ? named(card.dataset.name) : card.dataset[name]);
  return [columns, ...shown().map(card => columns.map(name => cell(card, name)))]
    .map(row => row.join(',') + '\n').join('');
}

for (const name of ['low', 'high', 'text']) field(name).addEventListener('input', filter);
field('order').addEventListener('click', () => {
  cards.reverse();
  images.append(...cards);
});
field('download').addEventListener('click', () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([table()], {type: 'text/csv'}));
  link.download = 'scores.csv';
  link.click();
  URL.revokeObjectURL(link.href);
});
