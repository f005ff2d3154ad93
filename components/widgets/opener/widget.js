const input = find('input');
const open = find('.open');

const say = text => { find('.said').textContent = text; };
function rest() {
  open.classList.remove('over');
  find('.text').textContent = 'Open a saved picture, or drop it anywhere';
}

const bring = file => readFile(file, say, data => trigger('dropped', { data }));
input.addEventListener('change', () => {
  bring(input.files[0]);
  input.value = ''; // so that the same file can be chosen again
});

// What takes files itself (a board to paint on) has prevented the browser's own doing before it comes here.
const files = event => event.dataTransfer?.types.includes('Files') && !event.defaultPrevented;
addEventListener('dragover', event => {
  if (!files(event)) return;
  event.preventDefault();
  open.classList.add('over');
  find('.text').textContent = 'Let go: the picture’s experiment opens';
});
addEventListener('dragleave', event => { if (event.relatedTarget === null) rest(); });
addEventListener('drop', event => {
  rest();
  if (!files(event)) return;
  event.preventDefault();
  bring(event.dataTransfer.files[0]);
});

function load() {
  const { link, said } = props.value ?? {};
  say(said || '');
  if (typeof link === 'string' && link.startsWith('?')) location.assign(location.pathname + link);
}
watch('value', load);
load();
rest();
