const chips = find('.chips');
const about = find('.about');
let note = '';

/** Runs of padding become one entry that knows its length. */
function collapse(tokens) {
  const entries = [];
  for (const [position, token] of tokens.entries()) {
    const last = entries.at(-1);
    if (token.kind === 'padding' && last?.kind === 'padding') last.count += 1;
    else entries.push({ ...token, position, count: 1 });
  }
  return entries;
}

function makeChip({ text, kind, id, position, count }) {
  const shown = kind === 'padding' ? count + ' × padding' : text;
  const where = count > 1 ? 'positions ' + position + '–' + (position + count - 1) : 'position ' + position;
  const description = shown + ': id ' + id + ', ' + where + (kind === 'word' ? '' : ', ' + kind);
  const chip = make('span', { class: 'chip ' + kind, role: 'listitem', tabindex: 0, 'aria-label': description },
    make('span', { class: 'text' }, shown));
  if (kind === 'unknown') chip.append(make('span', { class: 'mark' }, 'unknown'));
  for (const event of ['pointerenter', 'focus']) {
    chip.addEventListener(event, () => { about.textContent = description; });
  }
  for (const event of ['pointerleave', 'blur']) chip.addEventListener(event, () => { about.textContent = note; });
  return chip;
}

function load() {
  const value = props.value ?? {};
  note = value.note ?? '';
  chips.replaceChildren(...collapse(value.tokens ?? []).map(makeChip));
  about.textContent = note;
  counters.draws += 1;
}
watch('value', load);
load();
