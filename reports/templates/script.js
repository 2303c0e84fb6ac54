// Conveniences only: without this script the page shows the same pictures and numbers side by side.
(() => {
  'use strict';
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const picture = () => make('img', {alt: '', decoding: 'async'});
  const copy = (to, from) => {
    for (const name of ['src', 'alt', 'width', 'height', 'class']) to.setAttribute(name, from.getAttribute(name) ?? '');
  };

  // Tables: a button in each head sorts by its column, up and down; what is no number goes last.
  const number = (text, factors) => {
    const plain = text.replace(/\u2212/g, '-').replace(/(\d)[\s\u00a0\u202f](?=\d{3}(?!\d))/g, '$1');
    const found = /^\s*(×\s*)?([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\d.:-])/i.exec(plain);
    return found ? (found[1] && factors ? (found[2] - 1) * 100 : Number(found[2])) : NaN;
  };
  const words = new Intl.Collator('en', {numeric: true});
  const sort = (table, column, down) => {
    const body = table.tBodies[0];
    const texts = [...body.rows].map(row => row.cells[column]?.textContent.trim() ?? '');
    const percent = texts.some(text => text.includes('%'));
    const keys = texts.map(text => number(text, percent));
    const last = key => Number.isNaN(key);
    const order = [...keys.keys()].sort((i, j) =>
      last(keys[i]) !== last(keys[j]) ? last(keys[i]) - last(keys[j])
        : (down ? -1 : 1) * (last(keys[i]) ? words.compare(texts[i], texts[j]) : keys[i] - keys[j]));
    const rows = [...body.rows];
    body.append(...order.map(i => rows[i]));
    all('thead th', table).forEach((head, i) =>
      i === column ? head.setAttribute('aria-sort', down ? 'descending' : 'ascending') : head.removeAttribute('aria-sort'));
  };
  for (const table of all('main table:not(.steps)')) {
    if (table.tBodies[0].rows.length < 3) continue;
    all('thead th', table).forEach((head, column) => {
      const button = make('button', {type: 'button', class: 'sort'}, ...head.childNodes);
      button.addEventListener('click', () => sort(table, column, head.getAttribute('aria-sort') === 'ascending'));
      head.append(button);
    });
  }

  // Predictions of x0: one slider moves all models, the line over the energies and the numbers beside it.
  for (const scrubber of all('.scrubber')) {
    const steps = JSON.parse(scrubber.dataset.steps);
    const sources = all('.steps tbody tr', scrubber).map(row => ({
      name: row.cells[0].textContent.trim(), pictures: all('img', row), energies: JSON.parse(row.dataset.energies),
    }));
    const cursor = scrubber.querySelector('.cursor');
    const places = JSON.parse(scrubber.dataset.places);
    const id = `${scrubber.id}-step`;
    const slider = make('input', {type: 'range', id, min: 0, max: steps.length - 1, value: 0});
    const output = make('output', {for: id, 'aria-live': 'off'});
    const views = sources.map(picture);
    const shown = sources.map((source, i) => make('figure', {}, views[i], make('figcaption', {}, source.name)));
    const bands = sources[0].energies[0].map((_, k) => make('tr', {}, make('th', {scope: 'row'}, `band ${k}`),
      ...sources.map(() => make('td'))));
    const heads = ['band', ...sources.map(source => source.name)].map(name => make('th', {scope: 'col'}, name));
    const numbers = make('table', {}, make('caption', {}, 'Energy of x0 at this step, sum over channels'),
      make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...bands));
    const show = () => {
      const at = Number(slider.value);
      output.textContent = steps[at];
      slider.setAttribute('aria-valuetext', steps[at]);
      sources.forEach((source, i) => {
        copy(views[i], source.pictures[at]);
        bands.forEach((row, k) => { row.cells[i + 1].textContent = source.energies[at][k]; });
      });
      cursor.setAttribute('x1', places[at]);
      cursor.setAttribute('x2', places[at]);
    };
    slider.addEventListener('input', show);
    slider.value = Math.floor(steps.length / 2);
    scrubber.querySelector('.viewer').append(
      make('div', {class: 'control'}, make('label', {for: id}, 'Step'), slider, output),
      make('div', {class: 'pair'}, ...shown),
      make('div', {class: 'scroll', role: 'group', tabindex: 0, 'aria-label': 'Energy of x0 at this step'}, numbers));
    scrubber.classList.add('live');
    show();
  }

  // Two pictures of each row in one place, changed by hand or by a timer.
  all('.gallery').forEach((gallery, place) => {
    const rows = all('.strip', gallery).map(strip => all('img', strip));
    const labels = all('figcaption', gallery.querySelector('.strip')).map(caption => caption.textContent.trim());
    if (labels.length < 2) return;
    const choose = (letter, at) => {
      const id = `gallery-${place}-${letter}`;
      const select = make('select', {id}, ...labels.map((label, i) => make('option', {value: i}, label)));
      select.value = at;
      return [make('span', {}, make('label', {for: id}, letter), select), select];
    };
    const [labelA, a] = choose('A', Math.min(1, labels.length - 2));
    const [labelB, b] = choose('B', labels.length - 1);
    const turn = make('button', {type: 'button', 'aria-pressed': 'false'}, 'Show B');
    const flicker = make('button', {type: 'button', 'aria-pressed': 'false'}, 'Flicker');
    const views = rows.map(pictures => {
      const view = picture(), caption = make('figcaption');
      pictures[0].closest('.strip').prepend(make('figure', {class: 'ab'}, view, caption));
      return {view, caption, pictures};
    });
    let second = false, timer = 0;
    const show = () => {
      const at = Number((second ? b : a).value);
      for (const {view, caption, pictures} of views) {
        copy(view, pictures[at]);
        caption.textContent = `${second ? 'B' : 'A'}: ${labels[at]}`;
      }
      turn.setAttribute('aria-pressed', second);
    };
    const change = () => { second = !second; show(); };
    const run = on => {
      clearInterval(timer);
      timer = on ? setInterval(change, 700) : 0;
      flicker.setAttribute('aria-pressed', on);
    };
    turn.addEventListener('click', () => { run(false); change(); });
    flicker.addEventListener('click', () => run(!timer));
    for (const select of [a, b]) select.addEventListener('change', show);
    const still = matchMedia('(prefers-reduced-motion: reduce)');
    const calm = () => { flicker.hidden = still.matches; if (still.matches) run(false); };
    still.addEventListener('change', calm);
    calm();
    gallery.prepend(make('div', {class: 'toolbar', role: 'group', 'aria-label': 'Compare two pictures of each row'},
      labelA, labelB, turn, flicker));
    show();
  });

  // On paper everything that is folded is shown, also where the browser's style sheets cannot do it.
  let opened = [];
  addEventListener('beforeprint', () => {
    opened = all('details:not([open])');
    for (const fold of opened) fold.open = true;
  });
  addEventListener('afterprint', () => { for (const fold of opened) fold.open = false; });
})();
