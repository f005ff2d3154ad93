const filter = find('input');
const list = find('.groups');
let groups = [];

function makeButton(event, text) {
  const button = make('button', { type: 'button' }, text);
  button.addEventListener('click', () => trigger(event, { text }));
  return button;
}

function makeGroup({ name, words }) {
  const buttons = words.map(word => makeButton('word', word));
  const node = make('section', { 'aria-label': name },
    make('p', { class: 'name' }, name), make('div', { class: 'words' }, ...buttons));
  return { node, buttons };
}

function sift() {
  const wanted = filter.value.trim().toLowerCase();
  for (const { node, buttons } of groups) {
    for (const button of buttons) button.hidden = !button.textContent.toLowerCase().includes(wanted);
    node.hidden = buttons.every(button => button.hidden);
  }
  find('.none').hidden = groups.some(({ node }) => !node.hidden);
}
filter.addEventListener('input', sift);

function load() {
  const value = props.value ?? {};
  groups = (value.groups ?? []).map(makeGroup);
  const count = groups.reduce((sum, { buttons }) => sum + buttons.length, 0);
  find('.examples').replaceChildren(...(value.examples ?? []).map(text => makeButton('example', text)));
  find('summary').textContent = 'All ' + count + ' words';
  find('details').hidden = count === 0;
  list.replaceChildren(...groups.map(({ node }) => node));
  sift();
  counters.draws += 1;
}
watch('value', load);
load();
