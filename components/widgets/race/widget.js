const FRAMES_PER_SECOND = 4;
const bar = find('.bar');
const at = find('.at');
const said = find('output');
const sort = find('.sort');
const button = find('.play');
const table = find('.table');

let value = {};
let cells = [];
let frames = new Map(); // evaluation -> picture, or the promise of one
let timer = null;
let earlier = new AbortController();
let newest = null; // the last strip of a run on its way, on show until the first frame of its result is here

/** The picture of all rows after some evaluations; null while it is on its way. */
function frame(evaluation) {
  const kept = frames.get(evaluation);
  if (kept) return kept instanceof Promise ? null : kept;
  const { signal } = earlier;
  const asked = decode(value.url + evaluation + '.png', signal).then(picture => {
    if (signal.aborted) return;
    frames.set(evaluation, picture);
    draw();
    ahead();
  }, () => {
    if (signal.aborted) return;
    frames.delete(evaluation);
    find('.note').textContent = 'These pictures are no longer kept: compare once more.';
    stop();
  });
  frames.set(evaluation, asked);
  return null;
}

/** Fetches what is missing, one after the other, so that scrubbing finds it here. */
function ahead() {
  if (!value.url || element.offsetParent === null) return;
  for (const kept of frames.values()) if (kept instanceof Promise) return;
  for (let k = 1; k <= value.frames; k++) if (!frames.has(k)) { frame(k); return; }
}

function draw() {
  const evaluation = value.live ? value.step : Number(at.value);
  const last = evaluation === value.frames;
  said.textContent = last ? 'all have arrived' : 'after ' + evaluation + (evaluation === 1 ? ' evaluation' : ' evaluations');
  const kept = value.url ? frame(evaluation) : null;
  if (kept) newest = null;
  const picture = kept ?? newest;
  const side = picture?.naturalHeight;
  for (const { node, canvas, text, row, evaluations } of cells) {
    const arrived = evaluation >= evaluations;
    node.classList.toggle('running', !arrived);
    node.querySelector('.said').textContent = arrived ? text : evaluation + ' of ' + evaluations;
    if (picture) {
      canvas.width = canvas.height = side;
      canvas.getContext('2d').drawImage(picture, row * side, 0, side, side, 0, 0, side, side);
      sharpen(canvas, canvas.clientWidth, side);
    }
  }
  counters.draws += 1;
}

function tick() {
  if (!element.isConnected || element.offsetParent === null || Number(at.value) === value.frames) stop();
  else if (frames.get(Number(at.value)) instanceof Image) {
    at.value = Number(at.value) + 1;
    draw();
  }
}

function play() {
  if (Number(at.value) === value.frames) at.value = 1;
  timer = setInterval(tick, 1000 / FRAMES_PER_SECOND);
  button.textContent = '❚❚';
  button.setAttribute('aria-label', 'Pause');
  draw();
}

function stop() {
  clearInterval(timer);
  timer = null;
  button.textContent = '▶';
  button.setAttribute('aria-label', 'Play');
}

/** The solvers' numbers in the chosen order; those without an error come last. */
function order() {
  const numbers = (value.solvers ?? []).map((_, i) => i);
  if (sort.value === 'name') return numbers.sort((a, b) => value.solvers[a].title.localeCompare(value.solvers[b].title));
  if (sort.value === '') return numbers;
  const errors = numbers.map(i => value.cells.find(c => c.solver === i && c.budget === Number(sort.value))?.error ?? Infinity);
  return numbers.sort((a, b) => errors[a] - errors[b]);
}

function lay() {
  cells = [];
  const nodes = [make('span'), ...value.budgets.map(text => make('span', { class: 'head numbers' }, text))];
  for (const solver of order()) {
    const { title, about } = value.solvers[solver];
    nodes.push(make('div', { class: 'solver' }, make('b', {}, title), make('span', { class: 'quiet' }, about)));
    value.budgets.forEach((_, budget) => {
      const cell = value.cells.find(c => c.solver === solver && c.budget === budget);
      if (!cell || cell.row === null) {
        nodes.push(make('span', { class: 'none quiet' }, cell?.text ?? ''));
        return;
      }
      const canvas = make('canvas');
      const label = title + ', ' + cell.text;
      const said = make('span', { class: 'said quiet numbers' });
      const node = value.alone
        ? make('div', { class: 'cell', role: 'img', 'aria-label': label }, canvas, said)
        : make('button', { type: 'button', class: 'cell', 'aria-label': label,
          'aria-pressed': String(cell.row === value.selected) }, canvas, said);
      if (!value.alone) node.addEventListener('click', () => {
        for (const other of cells) other.node.setAttribute('aria-pressed', String(other.node === node));
        value.selected = cell.row;
        trigger('pick', { row: cell.row });
      });
      nodes.push(node);
      cells.push({ ...cell, node, canvas });
    });
  }
  table.style.setProperty('--budgets', value.budgets.length);
  table.replaceChildren(...nodes);
}

/** A strip of a run on its way: it came with the value, and asks the server for nothing. */
function show(live) {
  const picture = new Image();
  picture.src = live;
  picture.decode().then(() => {
    if (value.live !== live) return;
    newest = picture;
    draw();
  }, () => {});
}

/** What decides about the cells and where they stand. */
function layout() {
  return JSON.stringify([value.solvers, value.budgets, value.cells, value.url]);
}

function load() {
  const before = value;
  const laid = layout();
  value = { budgets: [], solvers: [], cells: [], frames: 0, note: '', ...props.value };
  const same = Boolean(value.url) && value.url === before.url; // new numbers for the pictures that are here
  if (value.live && before.live && layout() === laid) { // the same cells, a moment later
    show(value.live);
    return;
  }
  if (!same) {
    stop();
    earlier.abort();
    earlier = new AbortController();
    frames = new Map();
    if (value.live) show(value.live);
    else if (!value.url) newest = null;
  }
  const sorted = sort.value;
  sort.replaceChildren(make('option', { value: '' }, 'as chosen'), make('option', { value: 'name' }, 'by name'),
    ...value.budgets.map((text, i) => make('option', { value: String(i) }, 'by error at ' + text)));
  sort.value = [...sort.options].some(o => o.value === sorted) ? sorted : '';
  bar.hidden = !value.url;
  at.max = value.frames || 1;
  if (!same) at.value = value.frames || 1;
  else value.selected ??= before.selected;
  find('.note').textContent = value.note;
  lay();
  draw();
  ahead();
}

at.addEventListener('input', () => { stop(); draw(); });
button.addEventListener('click', () => (timer === null ? play() : stop()));
sort.addEventListener('input', () => { lay(); draw(); });
watch('value', load);
load();
