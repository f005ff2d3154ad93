const FRAMES_PER_SECOND = 6;
const AT_ONCE = 2; // the server makes each picture when asked: leave it, and the browser, room for a run
const NOT_COMPUTED = 'Not computed: this step did not need it';

const film = find('.film');
const rowsBox = find('.rows');
const strip = find('.strip');
const slider = find('input');
const button = find('button');

let rows = [];
let columns = [];
let tile = 0;
let selected = 0;
let onTheWay = 0;
let timer = null;
let rowsInView = false;
let earlier = new AbortController();

// The page is the root: what is clipped by the strip, below the fold or in a closed tab is not in view.
const observer = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (target === rowsBox) rowsInView = isIntersecting;
    const column = columns.find(({ node }) => node === target);
    if (column) column.inView = isIntersecting;
  }
  pump();
});
observer.observe(rowsBox);

/** The selected step first, then what can be seen from left to right. */
function nextToLoad() {
  const current = columns[selected];
  if (current?.state === 'waiting' && (rowsInView || current.inView)) return current;
  return columns.find(({ state, inView }) => state === 'waiting' && inView);
}

function pump() {
  for (let column; onTheWay < AT_ONCE && (column = nextToLoad());) fetchColumn(column, earlier.signal);
}

async function fetchColumn(column, signal) {
  column.state = 'loading';
  onTheWay += 1;
  try {
    column.picture = await decode(column.url, signal);
    column.state = 'ready';
    if (!signal.aborted) {
      column.thumbnail.replaceChildren(column.picture, column.over);
      if (column === columns[selected]) drawRows();
    }
  } catch {
    column.state = 'failed';
    if (!signal.aborted) {
      column.thumbnail.replaceChildren(make('span', { class: 'missing' }, 'not available'));
      if (column === columns[selected]) drawRows();
    }
  }
  onTheWay -= 1;
  pump();
}

function drawRows() {
  const { picture, state, computed, reason } = columns[selected];
  rows.forEach(({ cell, canvas, why }, i) => {
    cell.classList.toggle('hatched', !computed[i] || state === 'failed');
    why.textContent = state === 'failed' ? 'Picture not available' : 'not computed';
    cell.title = computed[i] ? '' : reason || NOT_COMPUTED;
    if (!picture || !computed[i]) return;
    canvas.width = canvas.height = tile;
    canvas.getContext('2d').drawImage(picture, 0, i * tile, tile, tile, 0, 0, tile, tile);
    sharpen(canvas, cell.clientWidth, tile);
  });
  counters.draws += 1;
}

function select(index) {
  columns[selected]?.node.removeAttribute('aria-current');
  selected = Math.max(0, Math.min(columns.length - 1, index));
  const { node, step, t, level, state } = columns[selected];
  const where = 'step ' + step + ' · t = ' + t.toFixed(3) + (level ? ' · ' + level : '');
  node.setAttribute('aria-current', 'step');
  find('.where').textContent = where;
  slider.value = selected;
  slider.setAttribute('aria-valuetext', where);
  // Not scrollIntoView: that would also scroll the page.
  strip.scrollLeft = node.offsetLeft - strip.offsetLeft - (strip.clientWidth - node.offsetWidth) / 2;
  if (state === 'ready' || state === 'failed') drawRows();
  else pump();
}

function tick() {
  if (!element.isConnected || element.offsetParent === null || selected === columns.length - 1) stop();
  else if (['ready', 'failed'].includes(columns[selected].state)) select(selected + 1);
}

function play() {
  if (selected === columns.length - 1) select(0);
  timer = setInterval(tick, 1000 / FRAMES_PER_SECOND);
  button.textContent = '❚❚';
  button.setAttribute('aria-label', 'Pause');
}

function stop() {
  clearInterval(timer);
  timer = null;
  button.textContent = '▶';
  button.setAttribute('aria-label', 'Play');
}

function makeRow({ name, key, help }) {
  const canvas = make('canvas', { role: 'img', 'aria-label': name });
  const why = make('span', { class: 'quiet' });
  const cell = make('div', { class: 'cell place' }, canvas, make('div', { class: 'why' }, why));
  const title = make('div', { class: 'name' }, name);
  title.style.setProperty('--row', 'var(--' + key + ')');
  return { node: make('div', {}, cell, title, make('div', { class: 'quiet' }, help)), cell, canvas, why };
}

function makeColumn(column, index, before) {
  const reason = column.reason || NOT_COMPUTED;
  const over = make('div', { class: 'over' }, ...column.computed.map(
    computed => make('div', computed ? {} : { class: 'hatched', title: reason })));
  const thumbnail = make('div', { class: 'thumbnail place' }, over);
  thumbnail.style.aspectRatio = '1 / ' + rows.length;
  if (before) thumbnail.prepend(before); // the last film's picture, until this one's is there
  // The slider is the keyboard's way through the steps; tabbing through every column would be a long walk.
  const node = make('button', { type: 'button', class: 'column', tabindex: -1, 'aria-label': 'Step ' + column.step },
    thumbnail, make('span', { class: 'step quiet numbers' }, String(column.step)));
  node.addEventListener('click', () => { stop(); select(index); });
  return { ...column, node, thumbnail, over, state: 'waiting', inView: false, picture: null };
}

function load() {
  const value = props.value ?? {};
  const before = columns;
  stop();
  earlier.abort();
  earlier = new AbortController();
  columns.forEach(({ node }) => observer.unobserve(node));

  const names = JSON.stringify(value.rows ?? []);
  if (names !== rowsBox.dataset.names) {
    rowsBox.dataset.names = names;
    rows = (value.rows ?? []).map(makeRow);
    rowsBox.replaceChildren(...rows.map(({ node }) => node));
    rowsBox.style.setProperty('--rows', rows.length);
  }
  tile = value.tile;
  const sameLength = before.length === value.columns?.length;
  columns = (value.columns ?? []).map((column, i) => makeColumn(column, i, sameLength && before[i].picture));
  strip.replaceChildren(...columns.map(({ node }) => node));
  columns.forEach(({ node }) => observer.observe(node));

  film.hidden = columns.length === 0;
  find('.note').textContent = value.note ?? '';
  slider.max = Math.max(0, columns.length - 1);
  if (columns.length > 0) select(sameLength ? selected : columns.length - 1);
}
slider.addEventListener('input', () => { stop(); select(Number(slider.value)); });
button.addEventListener('click', () => (timer === null ? play() : stop()));
watch('value', load);
load();
