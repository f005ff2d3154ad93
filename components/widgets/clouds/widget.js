const COLOURS = ['data', 'cond', 'guided', 'learned', 'exact', 'uncond'];
const row = find('.panels');
let panels = [];

function makePanel() {
  const canvas = make('canvas', { role: 'img' });
  const name = make('span', { class: 'name quiet' });
  return { canvas, name, node: make('div', { class: 'panel' }, canvas, name) };
}

function draw() {
  const { clouds = [], parts = [], behind = [], reach = 3 } = props.value ?? {};
  const style = getComputedStyle(element);
  const colours = COLOURS.map(name => style.getPropertyValue('--' + name).trim());
  clouds.forEach(({ points }, i) => {
    const { canvas } = panels[i];
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (side === 0) return; // on a tab that is not on show
    Object.assign(canvas, { width: side, height: side });
    const paper = canvas.getContext('2d');
    const at = value => (value / 1000 / reach + 1) / 2 * side;
    const dots = (flat, radius, colourOf) => {
      for (let k = 0; k < flat.length; k += 2) {
        paper.fillStyle = colourOf(k / 2);
        paper.beginPath();
        paper.arc(at(flat[k]), side - at(flat[k + 1]), radius, 0, 7);
        paper.fill();
      }
    };
    paper.globalAlpha = 0.28;
    dots(behind, side / 110, () => style.getPropertyValue('--noise'));
    paper.globalAlpha = 0.9;
    dots(points, Math.max(1.2, side / 95), k => colours[parts[k] % colours.length]);
  });
  counters.draws += 1;
}

function load() {
  const { clouds = [], names = [], caption = '' } = props.value ?? {};
  if (panels.length !== clouds.length) {
    panels = clouds.map((_, i) => panels[i] ?? makePanel());
    row.replaceChildren(...panels.map(panel => panel.node));
    row.style.setProperty('--panels', clouds.length);
  }
  clouds.forEach(({ name }, i) => {
    panels[i].name.textContent = name;
    panels[i].canvas.setAttribute('aria-label', 'Points: ' + name);
  });
  find('.legend').replaceChildren(...names.map((name, i) => {
    const dot = make('i');
    dot.style.setProperty('--own', 'var(--' + COLOURS[i % COLOURS.length] + ')');
    return make('span', {}, dot, name);
  }));
  find('.caption').textContent = caption;
  counters.loads += 1;
  draw();
}
watch('value', load);
load();
new ResizeObserver(draw).observe(row);
// The page turns dark and light by a class on its body.
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ['class'] });
