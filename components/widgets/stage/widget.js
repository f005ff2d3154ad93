const grid = find('.grid');
const dialog = find('dialog');
const large = dialog.querySelector('img');
let cells = [];
let enlarged = null;

function makeCell() {
  const button = make('button', { type: 'button', class: 'picture place' });
  const label = make('span', { class: 'label' });
  const link = make('a', {}, 'PNG');
  const node = make('div', {}, button, make('div', { class: 'line quiet' }, label, link));
  const cell = { node, button, label, link, slot: pictureSlot(button), url: null };
  button.addEventListener('click', () => enlarge(cell));
  return cell;
}

function show(cell, { url, label }, live) {
  cell.slot.show(url, label, () => {
    cell.url = url;
    cell.label.textContent = label;
    cell.label.title = label;
    cell.link.href = located(url);
    // A preview holds no experiment that a file could bring back, and a saved file may have had no room for PNG.
    cell.link.hidden = live || cell.link.href.startsWith('data:image/webp');
    cell.link.download = (label.replace(/[^A-Za-z0-9.=-]+/g, ' ').trim() || 'picture') + '.png';
    cell.link.setAttribute('aria-label', 'Save as PNG: ' + label);
    cell.button.setAttribute('aria-label', 'Enlarge: ' + label);
    if (enlarged === cell) large.src = located(url);
  });
}

function enlarge(cell) {
  if (!cell.url) return;
  enlarged = cell;
  large.src = located(cell.url);
  large.alt = cell.label.textContent;
  dialog.showModal();
  sharpen(large, large.clientWidth, cell.button.firstElementChild.naturalWidth);
}
dialog.addEventListener('click', () => dialog.close());
dialog.addEventListener('close', () => { enlarged = null; });

function load() {
  const { pictures = [], live = false, caption = '' } = props.value ?? {};
  if (cells.length !== pictures.length) {
    cells = pictures.map((_, i) => cells[i] ?? makeCell());
    grid.replaceChildren(...cells.map(cell => cell.node));
    // As few columns as make a square, so that each picture is as large as it can be.
    grid.style.setProperty('--columns', Math.ceil(Math.sqrt(pictures.length)));
  }
  pictures.forEach((picture, i) => show(cells[i], picture, live));
  find('.empty').hidden = pictures.length > 0;
  find('.live').hidden = !(live && pictures.length > 0);
  find('figcaption').textContent = caption;
}
watch('value', load);
load();
