const input = find('input');
const open = find('.open');

function say(text, wrong = true) {
  find('.said').textContent = text;
  find('.said').classList.toggle('wrong', wrong);
}
function rest() {
  open.classList.remove('over');
  find('.text').textContent = 'Open a saved file, or drop it anywhere';
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
  find('.text').textContent = 'Let go: the file’s experiment opens';
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
  if (typeof link === 'string' && link.startsWith('?')) {
    leave(said || '');
    location.assign(location.pathname + link);
  } else {
    say(said || '');
  }
}

// What was changed on the way from the file to the link is told on the page that the link opens.
const KEPT = 'dp-opened';
function leave(text) {
  try {
    sessionStorage.setItem(KEPT, text);
  } catch { /* the browser keeps nothing: then it is not told */ }
}
function taken() {
  try {
    const text = sessionStorage.getItem(KEPT) ?? '';
    sessionStorage.removeItem(KEPT);
    return text;
  } catch {
    return '';
  }
}
watch('value', load);
load();
rest();
const told = taken();
if (told) say('Opened the file. ' + told, false);
