const row = find('.stages');
const edge = find('input');
const left = pictureSlot(find('.before'));
const right = pictureSlot(find('.after'));
let stages = [];
let before = null; // the stage on the left that was chosen by hand

function makeStage(index) {
  const holder = make('span', { class: 'picture place' });
  const name = make('span', { class: 'name quiet' });
  const node = make('button', { type: 'button', class: 'stage' }, holder, name);
  node.addEventListener('click', () => { before = index; load(); });
  return { node, name, slot: pictureSlot(holder) };
}

function load() {
  const { pictures = [], caption = '', before: given = 0 } = props.value ?? {};
  const last = pictures.length - 1;
  if (stages.length !== pictures.length) {
    stages = pictures.map((_, i) => stages[i] ?? makeStage(i));
    row.replaceChildren(...stages.map(stage => stage.node));
    row.style.setProperty('--stages', pictures.length);
  }
  const chosen = Math.min(before ?? given, last);
  pictures.forEach(({ name, url, help }, i) => {
    stages[i].slot.show(url, name);
    stages[i].name.textContent = name;
    stages[i].node.title = help;
    stages[i].node.setAttribute('aria-pressed', String(i === chosen));
  });
  find('.both').hidden = last < 0;
  find('.caption').textContent = caption;
  if (last < 0) return;
  left.show(pictures[chosen].url, pictures[chosen].name);
  right.show(pictures[last].url, pictures[last].name);
  find('.left').textContent = pictures[chosen].name;
  find('.right').textContent = pictures[last].name;
}

edge.addEventListener('input', () => find('.frame').style.setProperty('--at', edge.value + '%'));
watch('value', load);
load();
