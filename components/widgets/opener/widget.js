const LARGEST = 20 * 2 ** 20;
const input = find('input');
const open = find('.open');

const say = text => { find('.said').textContent = text; };
function rest() {
  open.classList.remove('over');
  find('.text').textContent = 'Open a saved picture, or drop it anywhere';
}

function bring(file) {
  if (!file) return;
  if (file.size > LARGEST) {
    say('This file has ' + Math.round(file.size / 2 ** 20) + ' MB; 20 are the most that is taken here.');
    return;
  }
  say('');
  const reader = new FileReader();
  reader.onload = () => trigger('dropped', { data: reader.result.slice(reader.result.indexOf(',') + 1) });
  reader.onerror = () => say('The browser could not read this file.');
  reader.readAsDataURL(file);
}
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
