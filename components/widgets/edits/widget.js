const panel = find('.panel');
const weight = find('.weight');
const has = find('.has');
const fraction = find('.fraction');
const blend = find('.blend');
const hint = find('.quiet');
let value = {};
let chosen = null; // { prompt, word, text }
let buttons = []; // per prompt, those of its words
let laid = ''; // of which words they are

const same = ([prompt, word]) => chosen && prompt === chosen.prompt && word === chosen.word;
const entry = list => (value[list] ?? []).find(same);

/** The lists with the chosen word's entry put in, or taken out where it says nothing. */
function put(list, amount) {
  const others = (value[list] ?? []).filter(e => !same(e));
  value = { ...value, [list]: amount === null ? others : [...others, [chosen.prompt, chosen.word, ...amount]] };
}

let due = null;
let number = 0;

/** Tells the page of the newest lists, at most sixteen times a second. */
function tell() {
  due ??= setTimeout(() => {
    due = null;
    number += 1;
    const { weights = [], fractions = [], blend = [] } = value;
    trigger('edited', { weights, fractions, blend, number });
  }, 60);
}

/** Words that are new read nothing of the source, whatever their fraction. */
const isFresh = (prompt, word) => (value.prompts[prompt].fresh ?? []).includes(word);

function badge(prompt, word) {
  const mine = list => (value[list] ?? []).find(([p, w]) => p === prompt && w === word);
  const parts = [];
  if (mine('weights')) parts.push('× ' + mine('weights')[2]);
  if (mine('fractions') && !isFresh(prompt, word)) parts.push('≤ ' + Math.round(100 * mine('fractions')[2]) + ' %');
  if (mine('blend')) parts.push('blend');
  return parts.join(' · ');
}

/** A button for every word. They stay while the words do, so the keyboard's place among them stays too. */
function lay() {
  const prompts = value.prompts ?? [];
  const told = JSON.stringify(prompts.map(({ title, words }) => [title, words]));
  if (told === laid) return;
  laid = told;
  buttons = prompts.map(({ words }, prompt) => words.map((text, word) => {
    const button = make('button', { type: 'button', class: 'word' }, text, make('span', { class: 'badge' }));
    button.addEventListener('click', () => {
      chosen = same([prompt, word]) ? null : { prompt, word, text };
      draw();
    });
    return button;
  }));
  find('.prompts').replaceChildren(...prompts.map(({ title }, prompt) => make('section', {},
    make('p', { class: 'title' }, title),
    make('div', { class: 'words', role: 'group', 'aria-label': title }, ...buttons[prompt]))));
}

function draw() {
  lay();
  buttons.forEach((own, prompt) => own.forEach((button, word) => {
    button.setAttribute('aria-pressed', String(Boolean(same([prompt, word]))));
    button.lastElementChild.textContent = badge(prompt, word);
  }));
  panel.hidden = !chosen;
  hint.hidden = Boolean(chosen);
  if (chosen) {
    find('.chosen').textContent = '“' + value.prompts[chosen.prompt].words[chosen.word] + '”';
    weight.value = entry('weights')?.[2] ?? 1;
    weight.nextElementSibling.textContent = Number(weight.value).toFixed(1);
    const fresh = isFresh(chosen.prompt, chosen.word);
    has.disabled = fresh;
    find('.fresh').hidden = !fresh;
    has.checked = Boolean(entry('fractions')) && !fresh;
    fraction.disabled = !has.checked;
    fraction.value = entry('fractions')?.[2] ?? 0.3;
    fraction.nextElementSibling.textContent = has.checked ? Number(fraction.value).toFixed(2) : 'like the others';
    for (const line of element.querySelectorAll('.own')) line.hidden = chosen.prompt === 0;
    blend.checked = Boolean(entry('blend'));
  }
  counters.draws += 1;
}

function badges() {
  // While a slider is held its own node must stay: only what is written beside it changes.
  weight.nextElementSibling.textContent = Number(weight.value).toFixed(1);
  fraction.nextElementSibling.textContent = has.checked ? Number(fraction.value).toFixed(2) : 'like the others';
}

let dragged = false;
weight.addEventListener('pointerdown', () => { dragged = true; });
for (const end of ['pointerup', 'pointercancel', 'keydown']) weight.addEventListener(end, () => { dragged = false; });
weight.addEventListener('input', () => {
  // The notch at 1 holds a dragging hand; the arrow keys walk through it.
  if (dragged && Math.abs(weight.value - 1) < 0.25) weight.value = 1;
  put('weights', Number(weight.value) === 1 ? null : [Number(weight.value)]);
  badges();
  tell();
});
fraction.addEventListener('input', () => { put('fractions', [Number(fraction.value)]); badges(); tell(); });
has.addEventListener('input', () => { put('fractions', has.checked ? [Number(fraction.value)] : null); draw(); tell(); });
blend.addEventListener('input', () => { put('blend', blend.checked ? [] : null); draw(); tell(); });
for (const bar of [weight, fraction]) bar.addEventListener('change', draw);

function load() {
  value = props.value ?? {};
  if (chosen) {
    // The panel follows its word when others are typed before it.
    const words = value.prompts?.[chosen.prompt]?.words ?? [];
    const places = [...words.keys()].filter(i => words[i] === chosen.text);
    const [word] = places.sort((a, b) => Math.abs(a - chosen.word) - Math.abs(b - chosen.word));
    chosen = word === undefined ? null : { ...chosen, word };
  }
  if (document.activeElement !== weight && document.activeElement !== fraction) draw();
}
watch('value', load);
load();
