const stepBar = find('.step');
const stepSaid = find('output');
const mean = find('.mean');
const gridBox = find('.grid');
const kindBox = find('.kind');
const sheet = find('.sheet');
const mask = find('.mask');
const about = find('.about');
const note = find('.note');
const buffer = bufferSlot(draw);
let value = {};
let rows = [];
let held = null; // the word that was clicked, as { row, token }
let hovered = null;

/**
 * The map of a token: { cells, height, width, top }, averaged over steps or of one. Steps that did not ask the prompt
 * have zeros and are not averaged over; null where none did. `top` is the strongest cell by size: a weight can make
 * attention negative.
 */
function mapOf(row, token) {
  return averaged(kindBox.value, gridBox.value, row, token, true);
}

function averaged(kind, grid, row, token, blank) {
  // Until its own have come, a run has none: an earlier one's are not laid over its pictures.
  const maps = buffer.key === value.url && !buffer.failed ? buffer.data?.[kind + ' ' + grid] : null;
  if (!maps) return null;
  const [steps, count, places, tokens] = maps.shape;
  if (token >= tokens || row >= count) return null;
  const chosen = mean.checked ? [...Array(steps).keys()] : [Math.min(Number(stepBar.value), steps) - 1];
  const cells = new Float32Array(places);
  let asked = 0;
  for (const step of chosen) {
    const start = ((step * count + row) * places) * tokens;
    const end = start + places * tokens;
    if (blank && !maps.data.subarray(start, end).some(cell => cell !== 0)) continue;
    asked += 1;
    for (let k = 0; k < places; k++) cells[k] += maps.data[start + token + k * tokens] * maps.scale;
  }
  if (!asked) return null;
  for (let k = 0; k < places; k++) cells[k] /= asked;
  const [height, width] = grid.split('x').map(Number);
  const strongest = cells.reduce((most, cell) => Math.abs(cell) > Math.abs(most) ? cell : most, 0);
  return { cells, height, width, strongest, top: Math.max(Math.abs(strongest), 1e-9) };
}

/** One map as a small canvas; strength is opacity over a picture, or grey on a sheet. */
function paint(canvas, map, over) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(map.width, map.height);
  map.cells.forEach((cell, k) => {
    const share = Math.abs(cell) / map.top;
    // A warm colour that shows on every picture, dark where nothing is attended; a cold one for negative attention.
    const [r, g, b, a] = over
      ? [255 * share, 200 * share * share, 40, 235 * (0.75 - 0.45 * share)]
      : [255 * Math.sqrt(share), 210 * share, 90 * share * share, 255];
    image.data.set(cell < 0 ? [b, g, r, a] : [r, g, b, a], 4 * k);
  });
  context.putImageData(image, 0, 0);
  counters.draws += 1;
}

/** What a token of an edited prompt reads in the steps on show. */
function reading({ reads, until }) {
  const every = value.of / value.steps;
  if (!reads || until === undefined) return reads ?? '';
  if (!mean.checked) return (Number(stepBar.value) - 1) * every < until ? reads : 'keeps its own attention in this step';
  if (!until) return 'keeps its own attention: its fraction is 0';
  return reads + (until < value.of ? ' in the first ' + until + ' of ' + value.of + ' steps' : '');
}

function draw() {
  stepSaid.textContent = mean.checked ? 'all ' + (value.steps ?? 0) : stepBar.value + ' of ' + value.steps;
  stepBar.disabled = mean.checked;
  const chosen = hovered ?? held;
  rows.forEach((row, index) => {
    let map = chosen?.row === index ? mapOf(index, chosen.token) : null;
    if (!chosen && value.mask && mask.checked) map = averaged('mask', value.mask, index, 0, false);
    row.canvas.hidden = !map;
    if (map) paint(row.canvas, map, true);
    row.words.forEach((word, token) => word.setAttribute('aria-pressed', String(held?.row === index && held.token === token)));
    row.sheet.hidden = !sheet.checked;
    if (sheet.checked) {
      row.tiles.forEach((tile, token) => {
        const own = mapOf(index, token);
        if (own) paint(tile, own, false);
        else tile.width = 1; // empty
      });
    }
  });
  if (buffer.failed) {
    about.textContent = buffer.failed === GONE ? 'The maps are no longer kept: change anything to run this again.' : buffer.failed;
  } else if (chosen) {
    const token = value.rows[chosen.row].tokens[chosen.token];
    const map = mapOf(chosen.row, chosen.token);
    const strongest = map && 'strongest ' + map.strongest.toFixed(3).replace('-', '−') + ' of a place’s attention';
    const missing = buffer.key === value.url ? 'the prompt was not asked in this step' : '…';
    about.textContent = ['“' + token.text + '”: ' + (strongest ?? missing), reading(token)].filter(Boolean).join(' · ');
  } else if (value.mask && mask.checked) {
    about.textContent = 'Bright: the edit is itself. Dark: it is the source.';
  } else about.textContent = rows.length ? 'Hover, focus or click a word.' : '';
}

function makeRow({ title, url, tokens }, index) {
  const holder = make('div', { class: 'picture place' });
  const canvas = make('canvas', { 'aria-hidden': 'true' });
  canvas.hidden = true;
  const slotHolder = make('div', { class: 'place' });
  holder.append(slotHolder, canvas);
  const slot = pictureSlot(slotHolder);
  slot.show(url, title);
  const words = tokens.map(({ text, kind, fresh }, token) => {
    const word = make('button', { type: 'button', class: 'word ' + kind + (fresh ? ' new' : ''), 'aria-pressed': 'false' }, text);
    const enter = () => {
      hovered = { row: index, token };
      buffer.again();
      buffer.want(value.url, value.url);
      draw();
    };
    const leave = () => { hovered = null; draw(); };
    word.addEventListener('pointerenter', enter);
    word.addEventListener('pointerleave', leave);
    word.addEventListener('focus', enter);
    word.addEventListener('blur', leave);
    word.addEventListener('click', () => {
      held = held?.row === index && held.token === token ? null : { row: index, token };
      draw();
    });
    return word;
  });
  const tiles = tokens.map(() => make('canvas'));
  const figures = tiles.map((tile, k) => make('figure', {}, tile, make('figcaption', {}, tokens[k].text)));
  const sheetNode = make('div', { class: 'sheet-words' }, ...figures);
  sheetNode.hidden = true;
  const node = make('section', { class: 'row', 'aria-label': title }, make('p', { class: 'title' }, title), holder,
    make('div', { class: 'words', role: 'group', 'aria-label': 'Words' }, ...words), sheetNode);
  return { node, canvas, words, tiles, sheet: sheetNode };
}

function load() {
  const wanted = held && value.rows[held.row].tokens[held.token].text;
  value = props.value ?? {};
  const grid = gridBox.value;
  gridBox.replaceChildren(...(value.grids ?? []).map(name => make('option', { value: name }, name.replace('x', ' × '))));
  if ((value.grids ?? []).includes(grid)) gridBox.value = grid;
  stepBar.max = value.steps ?? 1;
  rows = (value.rows ?? []).map(makeRow);
  if (held) {
    // It follows its word, as the sliders do.
    const same = (value.rows?.[held.row]?.tokens ?? []).map((token, i) => token.text === wanted ? i : -1).filter(i => i >= 0);
    const nearest = same.toSorted((a, b) => Math.abs(a - held.token) - Math.abs(b - held.token))[0];
    held = nearest === undefined ? null : { row: held.row, token: nearest };
  }
  find('.blended').hidden = !value.mask;
  hovered = null;
  find('.rows').replaceChildren(...rows.map(row => row.node));
  note.textContent = value.note ?? '';
  note.hidden = !value.note;
  if (value.url) buffer.want(value.url, value.url);
  else buffer.drop();
  draw();
}
for (const box of [stepBar, mean, gridBox, kindBox, sheet, mask]) box.addEventListener('input', draw);
watch('value', load);
load();
