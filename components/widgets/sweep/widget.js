const row = find('.tiles');
let tiles = [];

function makeTile(index) {
  const holder = make('span', { class: 'picture place' });
  const label = make('span', { class: 'label quiet numbers' });
  const node = make('button', { type: 'button', class: 'tile' }, holder, label);
  node.addEventListener('click', () => trigger('pick', { value: props.value.tiles[index].value }));
  return { node, label, slot: pictureSlot(holder) };
}

function load() {
  const { axis = '', tiles: values = [], columns = null, selected = null, caption = '', stale = false } = props.value ?? {};
  if (tiles.length !== values.length) {
    // Tiles are kept from one value to the next, so the keyboard's place in the row is kept too.
    tiles = values.map((_, i) => tiles[i] ?? makeTile(i));
    row.replaceChildren(...tiles.map(tile => tile.node));
  }
  row.style.setProperty('--tiles', columns || values.length);
  row.classList.toggle('table', Boolean(columns));
  values.forEach(({ value, label, url }, i) => {
    const tile = tiles[i];
    tile.slot.show(url, '');
    tile.label.textContent = label;
    tile.node.setAttribute('aria-pressed', String(JSON.stringify(value) === JSON.stringify(selected)));
    tile.node.setAttribute('aria-label', axis + ' ' + label);
  });
  row.setAttribute('aria-label', axis);
  row.classList.toggle('stale', stale);
  find('.caption').textContent = stale ? 'Other settings than those now: ' + caption : caption;
}
watch('value', load);
load();
