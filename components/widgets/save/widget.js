const line = find('.line');
const said = find('.said');
let buttons = [];
let turn = 0; // what is on show has changed since, or not

function say(text, wrong = false) {
  said.textContent = text;
  said.classList.toggle('wrong', wrong);
}

async function save({ label, url, name }) {
  const mine = turn;
  for (const button of buttons) button.disabled = true;
  say('Making the ' + label + ' file …');
  counters.loads += 1;
  try {
    const query = new URLSearchParams(location.hash ? { look: location.hash.slice(1) } : {});
    const answer = await fetch(url + (url.includes('?') ? '&' : '?') + query);
    if (!answer.ok) throw new Error(await answer.text());
    const link = make('a', { href: URL.createObjectURL(await answer.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    if (mine === turn) say('');
  } catch (problem) {
    // A network error has the browser's own words, which say nothing of what to do.
    const ours = problem instanceof TypeError ? 'The server could not be reached.' : problem.message;
    if (mine === turn) say(ours, true);
  }
  if (mine === turn) for (const button of buttons) button.disabled = false;
}

function load() {
  const { files = [], note = '', unfinished = false } = props.value ?? {};
  turn += 1;
  if (unfinished) { // of the run before, which is no longer what is on show
    for (const button of buttons) button.disabled = true;
    say(buttons.length ? 'Files are made of finished runs.' : '');
    return;
  }
  buttons = files.map(file => {
    const button = make('button', { type: 'button', title: file.help, 'aria-label': 'Save as ' + file.label + ': ' + file.help },
      file.label);
    button.addEventListener('click', () => save(file));
    return button;
  });
  line.replaceChildren(line.firstElementChild, ...buttons);
  line.hidden = files.length === 0;
  say('');
  find('.note').textContent = note;
}
watch('value', load);
load();
