const PLAY_SECONDS = 4; // from noise to data
const HOLD_SECONDS = 0.8; // at the end, before a loop starts again
const TRAILS = 140; // particles whose trajectories are drawn in the plane ...
const CURVES = 48; // ... and against time
const POLYGONS = 10; // particles whose solver steps are joined, over the exact curves of the same particles
const SHARES = [0.02, 0.1, 0.2, 0.4, 0.6, 0.85]; // of the highest density: where its contours are drawn
const LEVELS = SHARES.map(share => 255 * Math.sqrt(share)); // it is stored by its square root
const ON_THE_PLANE = { contours: 'Contours are a view of the plane: on the line the density is the background.' };
const STILL = 4; // pixels that a pointer may move in a click

/** A plane on which nothing flows yet, to draw on. */
const BLANK = { frames: { data: new Int16Array(0), shape: [1, 0, 2], scale: 1 }, times: [0], zoom: [1], solver_times: [] };

const LAYERS = [
  { name: 'particles', title: 'particles', buffer: 'flow', colour: 'data' },
  { name: 'trajectories', title: 'trajectories', buffer: 'flow', colour: 'data' },
  { name: 'solver', title: 'solver steps', buffer: 'flow', colour: 'solver' },
  { name: 'density', title: 'exact density', buffer: 'density', colour: 'exact' },
  { name: 'contours', title: 'contours', buffer: 'density', colour: 'exact' },
  { name: 'arrows', title: 'field', buffer: 'arrows', colour: 'field' },
  { name: 'conditional', title: 'conditional paths', buffer: 'conditional', colour: 'cond' },
  { name: 'noising', title: 'forward noising', buffer: 'noising', colour: 'noise' },
  { name: 'grid', title: 'warped grid', buffer: 'grid', colour: 'uncond' },
  { name: 'tilted', title: 'tilted density', buffer: 'tilted', colour: 'guided' },
  { name: 'errors', title: 'error of the field', buffer: 'errors', colour: 'learned' },
];
const FIRST = ['particles', 'trajectories', 'density'];
const CLASS_COLOURS = ['data', 'cond', 'guided', 'learned', 'exact', 'uncond', 'noise', 'body-text-color'];

/** What the plane tells who cannot see it. */
const SPOKEN = {
  look: 'The plane: a click, or Enter at the cross that the arrow keys move, asks for log p',
  mixture: 'The mixture: Enter chooses the next Gaussian, the arrow keys move it, plus and minus scale it, R turns it',
  draw: 'The plane to draw on, with mouse or finger',
};

const plane = find('.plane');
const canvases = Object.fromEntries(['heat', 'under', 'dots', 'over'].map(name => [name, find('canvas.' + name)]));
const under = canvases.under.getContext('2d');
const over = canvases.over.getContext('2d');
const dots = makeDots(canvases.dots);
const slider = find('.bar input');
const playButton = find('.play');
const loopButton = find('.loop');
const strip = find('.strip');

let value = {};
let flow = null; // the unpacked buffer on show
let shown = new Set(FIRST);
let position = 0; // 0 is noise, 1 is data; frames lie evenly in between
let playing = false;
let held = 0;
let lastTick = null;
let axis = 0;
let stale = { board: true, strip: true, cursor: true };
let hovered = -1;
let aim = null; // the point that was clicked, or where the keyboard's cross stands
let goal = null; // the data point of the conditional paths, if one was chosen
let asked = null; // the flow that points are asked of
let appliedShow = null;
let palette = {};
let darkPalette = null;
let ratio = 1;

const slots = Object.fromEntries(
  ['flow', 'density', 'arrows', 'conditional', 'noising', 'grid', 'tilted', 'errors', 'exact', 'line-0', 'line-1'].map(
    name => [name, bufferSlot(() => arrived(name))]));

// --- what is known -----------------------------------------------------------------------------------------

const frameCount = () => flow.frames.shape[0];
const dimension = () => value.dimension ?? 2;

/** The two frames around the position on show, and how far between them. */
function frameNow(at = position) {
  const place = at * (frameCount() - 1);
  const k = Math.min(frameCount() - 2, Math.floor(place));
  return [Math.max(0, k), frameCount() > 1 ? place - k : 0];
}

function along(values, [k, f]) {
  return mix(values[k], values[Math.min(k + 1, values.length - 1)], f);
}

const timeAt = at => along(flow.times, frameNow(at));
const zoomAt = at => along(flow.zoom, frameNow(at));
const half = () => value.box ?? 3.2; // of the plane, in units of the data

/** Where a time stands on the slider. */
function positionOf(t) {
  const [k, f] = bracket(flow.times, t);
  return (k + f) / Math.max(1, frameCount() - 1);
}

/** Coordinate `which` of particle i at frame k, in units of the data; divided by the zoom of its time, as all are. */
function coordinate({ data, shape: [, count, dim], scale }, k, i, which) {
  return which < dim ? data[(k * count + i) * dim + which] * scale : 0;
}

const pixelX = x => (x / half() + 1) / 2 * canvases.over.width;
const pixelY = y => (1 - y / half()) / 2 * canvases.over.height;

function readPalette() {
  const dark = Boolean(element.closest('.dark') ?? document.querySelector('.dark'));
  if (dark === darkPalette) return;
  darkPalette = dark;
  const style = getComputedStyle(element);
  const read = name => bytes(style.getPropertyValue('--' + name).trim() || '#7f858e');
  palette = Object.fromEntries(CLASS_COLOURS.map(name => [name, read(name)]));
  palette.text = bytes(style.color);
  palette.ground = bytes(getComputedStyle(find('.board')).backgroundColor);
  stale = { board: true, strip: true, cursor: true };
}

function colourOf(name) {
  if (name === 'solver') return palette.guided;
  if (name === 'field') return value.learned ? palette.learned : palette.text;
  return palette[name];
}

const classes = () => value.classes ?? [];

/** One colour for each label; without classes a particle turns from noise to data. */
function dotColours() {
  if (classes().length > 1) return CLASS_COLOURS.map(name => palette[name]);
  return [blend(palette.noise, palette.data, Math.min(1, 0.25 + position))];
}

// --- drawing the plane -------------------------------------------------------------------------------------

/** Whether a hand shapes the mixture, and everything but the particles is still that of the last shape. */
const moving = () => plane.classList.contains('moving');

/** The data of a layer that is shown, or null: what has become impossible or failed is not drawn as it was before. */
function layer(name, buffer = name) {
  if (moving() && buffer !== 'flow' && name !== 'density') return null;
  return value.url && shown.has(name) && !reasonOf(name) && !slots[buffer].failed ? slots[buffer].data : null;
}

let seen = {}; // what the maps on show were drawn with, for their scales

function drawHeat() {
  const { heat } = canvases;
  const errors = layer('errors');
  const density = layer('density');
  const source = errors || density;
  heat.hidden = !source;
  if (!source) return;
  const frames = errors ? errors.errors : density.density;
  const at = bracket(source.times, timeAt());
  const mixed = errors ? { field: framesAt(frames, at), top: errors.maximum } : densityAt(frames, density, at);
  seen[errors ? 'errors' : 'density'] = mixed.top;
  const colour = errors ? palette.learned : palette.exact;
  paintHeat(heat, mixed.field, frames.shape[2], frames.shape[1], colour, darkPalette ? 0.75 : 0.7);
}

/** Whether a field is defined at two places of its buffer: without a mask it is everywhere. */
const exists = (there, i, j) => !there || (there.data[i] !== 0 && there.data[j] !== 0);

function drawContours(name, buffer, frames, colour) {
  const [, height, width] = frames.shape;
  const { field, top } = densityAt(frames, buffer, bracket(buffer.times, timeAt()));
  seen[name] = top;
  const size = canvases.over.width;
  const place = (i, j) => [(i + 0.5) / width * size, (1 - (j + 0.5) / height) * size];
  under.strokeStyle = faded(colour, 0.8);
  under.lineWidth = ratio;
  for (const level of LEVELS) contour(under, field, width, height, level, place);
}

function drawArrows({ arrows, there, times, zoom }) {
  const [, grid] = arrows.shape;
  const [k, f] = bracket(times, timeAt());
  const block = grid * grid * 2;
  const size = canvases.over.width;
  const cell = size / grid;
  const vectors = new Float32Array(block);
  const a = k * block;
  const b = Math.min(a + block, arrows.data.length - block);
  // Sampling goes against t, so the arrows show -dx/dt: where a particle goes next.
  for (let i = 0; i < block; i += 1) vectors[i] = -mix(arrows.data[a + i], arrows.data[b + i], f);
  const lengths = Array.from({ length: grid * grid }, (_, i) =>
    (exists(there, a / 2 + i, b / 2 + i) ? Math.hypot(vectors[2 * i], vectors[2 * i + 1]) : 0));
  const sorted = lengths.filter(length => length > 0).toSorted((p, q) => p - q);
  const typical = sorted[Math.floor(0.9 * sorted.length)] || 1;
  seen.arrows = typical * arrows.scale * along(zoom ?? [1, 1], [k, f]);
  under.strokeStyle = faded(colourOf('field'), 0.75);
  under.lineWidth = 1.2 * ratio;
  under.beginPath();
  for (let j = 0; j < grid; j += 1) {
    for (let i = 0; i < grid; i += 1) {
      const at = j * grid + i;
      const reach = 0.95 * cell * Math.min(1.15, lengths[at] / typical) / (lengths[at] || 1);
      const dx = vectors[2 * at] * reach;
      const dy = -vectors[2 * at + 1] * reach;
      arrow(under, (i + 0.5) * cell - dx / 2, (grid - j - 0.5) * cell - dy / 2, dx, dy);
    }
  }
  under.stroke();
}

/** A point of tracks { frames, times } at a time in between, in pixels. */
function pointAt({ frames }, [k, f], i) {
  const next = Math.min(k + 1, frames.shape[0] - 1);
  return [
    pixelX(mix(coordinate(frames, k, i, 0), coordinate(frames, next, i, 0), f)),
    pixelY(mix(coordinate(frames, k, i, 1), coordinate(frames, next, i, 1), f))];
}

/** The way of particle i until time t, each point as it was seen then. */
function path(context, tracks, i, t) {
  const [k, f] = bracket(tracks.times, t);
  for (let frame = 0; frame <= k; frame += 1) {
    const x = pixelX(coordinate(tracks.frames, frame, i, 0));
    const y = pixelY(coordinate(tracks.frames, frame, i, 1));
    if (frame === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  }
  context.lineTo(...pointAt(tracks, [k, f], i));
}

function drawPaths(context, tracks, most, colour, alpha, ends) {
  const count = Math.min(most, tracks.frames.shape[1]);
  context.strokeStyle = faded(colour, alpha);
  context.lineWidth = 1.1 * ratio;
  context.beginPath();
  for (let i = 0; i < count; i += 1) path(context, tracks, i, timeAt());
  context.stroke();
  if (!ends) return;
  const now = bracket(tracks.times, timeAt());
  context.fillStyle = faded(colour, 0.95);
  context.beginPath();
  for (let i = 0; i < count; i += 1) {
    const [x, y] = pointAt(tracks, now, i);
    context.moveTo(x, y);
    context.arc(x, y, 2.4 * ratio, 0, 7);
  }
  context.fill();
}

function drawGrid({ grid, times }) {
  const [, rows, columns] = grid.shape;
  const frames = { data: grid.data, shape: [grid.shape[0], rows * columns, 2], scale: grid.scale };
  const now = bracket(times, timeAt());
  const point = i => pointAt({ frames }, now, i);
  under.strokeStyle = faded(palette.uncond, 0.9);
  under.lineWidth = 1.1 * ratio;
  under.beginPath();
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const here = point(row * columns + column);
      for (const [down, right] of [[0, 1], [1, 0]]) {
        if (row + down >= rows || column + right >= columns) continue;
        const there = point((row + down) * columns + column + right);
        under.moveTo(here[0], here[1]);
        under.lineTo(there[0], there[1]);
      }
    }
  }
  under.stroke();
}

function drawDots() {
  const { data, shape: [, count, dim], scale } = flow.frames;
  const [k, f] = frameNow();
  dots.clear();
  if (shown.has('particles') && dim === 2) {
    const labels = flow.labels?.data;
    const colours = dotColours();
    const size = canvases.dots.width;
    const unit = scale * size / (2 * half());
    const step = frameCount() > 1 ? 2 * count : 0;
    const radius = Math.max(1.15, Math.min(2.4, 88 / Math.sqrt(count))) * ratio * Math.min(1, size / ratio / 420);
    for (let i = 0; i < count; i += 1) {
      const a = 2 * (k * count + i);
      const x = size / 2 + unit * mix(data[a], data[a + step], f);
      const y = size / 2 - unit * mix(data[a + 1], data[a + step + 1], f);
      dots.add(x - 0.5, y - 0.5, colours[labels && colours.length > 1 ? labels[i] % colours.length : 0], radius, 0.85);
    }
  }
  dots.show();
}

/** The exact solution from where the particles start, as tracks, or null: there may be none. */
function exactCurves() {
  if (moving()) return null;
  const { data, failed } = slots.exact;
  return data && !failed && !value.reasons?.exact ? { frames: data.exact, times: data.times } : null;
}

/** The states that the solver really visited, joined for each particle. */
function drawStates(context, most) {
  const { states } = flow;
  const taken = flow.solver_times.filter(t => t >= timeAt() - 1e-9).length;
  const colour = colourOf('solver');
  const points = [];
  for (let i = 0; i < Math.min(most, states.shape[1]); i += 1) {
    for (let s = 0; s < taken; s += 1) {
      points.push([s, pixelX(coordinate(states, s, i, 0)), pixelY(coordinate(states, s, i, 1))]);
    }
  }
  context.strokeStyle = faded(colour, 0.55);
  context.lineWidth = 1.2 * ratio;
  context.beginPath();
  for (const [s, x, y] of points) s === 0 ? context.moveTo(x, y) : context.lineTo(x, y);
  context.stroke();
  context.fillStyle = faded(colour, 0.9);
  context.beginPath();
  for (const [, x, y] of points) {
    context.moveTo(x, y);
    context.arc(x, y, 2.2 * ratio, 0, 7);
  }
  context.fill();
}

function drawCross(x, y) {
  const [px, py] = [pixelX(x / zoomAt()), pixelY(y / zoomAt())];
  over.strokeStyle = faded(palette.text, 0.9);
  over.lineWidth = 1.5 * ratio;
  over.beginPath();
  over.arc(px, py, 6 * ratio, 0, 7);
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    over.moveTo(px + 4 * dx * ratio, py + 4 * dy * ratio);
    over.lineTo(px + 10 * dx * ratio, py + 10 * dy * ratio);
  }
  over.stroke();
}

/** Text that can be read on whatever has been drawn. */
function write(context, text, x, y) {
  context.lineWidth = 3 * ratio;
  context.strokeStyle = faded(palette.ground, 0.75);
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

/** Numbers along the lower and the left edge, in units of the data. */
function drawAxes(context) {
  const { width, height } = canvases.over;
  const zoom = zoomAt();
  context.font = 11 * ratio + 'px system-ui, sans-serif';
  context.fillStyle = context.strokeStyle = faded(palette.text, 0.8);
  context.lineWidth = ratio;
  context.beginPath();
  const ticks = ticksTo(half() * zoom);
  for (const at of ticks.map(tick => tick / zoom)) {
    context.moveTo(pixelX(at), height);
    context.lineTo(pixelX(at), height - 5 * ratio);
    context.moveTo(0, pixelY(at));
    context.lineTo(5 * ratio, pixelY(at));
  }
  context.stroke();
  for (const tick of ticks) {
    const [x, y] = [pixelX(tick / zoom), pixelY(tick / zoom)];
    context.textAlign = 'center';
    context.textBaseline = 'alphabetic';
    if (x > 40 * ratio) write(context, signed(tick), x, height - 7 * ratio);
    context.textAlign = 'left';
    context.textBaseline = 'middle';
    if (y < height - 22 * ratio) write(context, signed(tick), 8 * ratio, y);
  }
  write(context, 'y', 24 * ratio, 12 * ratio);
  context.textAlign = 'right';
  write(context, 'x', width - 5 * ratio, height - 22 * ratio);
}

function drawBoard() {
  const { width, height } = canvases.over;
  seen = {};
  find('.hint').hidden = flow !== BLANK || !editing.empty;
  under.clearRect(0, 0, width, height);
  over.clearRect(0, 0, width, height);
  drawHeat();
  const density = layer('contours', 'density');
  if (density) drawContours('contours', density, density.density, palette.exact);
  const tilted = layer('tilted');
  if (tilted) drawContours('tilted', tilted, tilted.tilted, palette.guided);
  if (layer('grid')) drawGrid(layer('grid'));
  if (layer('arrows')) drawArrows(layer('arrows'));
  if (shown.has('trajectories')) {
    const colour = blend(palette.data, palette.text, 0.25);
    drawPaths(under, flow, TRAILS, colour, darkPalette ? 0.3 : 0.22, false);
  }
  drawDots();
  for (const [name, colour] of [['noising', palette.noise], ['conditional', palette.cond]]) {
    const data = layer(name);
    if (!data) continue;
    drawPaths(over, { frames: data[name], times: data.times }, data[name].shape[1], colour, 0.55, true);
    if (data.point) drawCross(...data.point);
  }
  if (shown.has('solver') && flow.states) {
    const exact = exactCurves();
    if (exact) drawPaths(over, exact, POLYGONS, palette.text, 0.6, false);
    drawStates(over, POLYGONS);
  }
  if (hovered >= 0) {
    over.setLineDash([3 * ratio, 3 * ratio]);
    over.strokeStyle = faded(palette.text, 0.6);
    over.lineWidth = 1.2 * ratio;
    over.beginPath();
    path(over, flow, hovered, flow.times.at(-1));
    over.stroke();
    over.setLineDash([]);
    over.strokeStyle = faded(palette.text, 1);
    over.lineWidth = 2 * ratio;
    over.beginPath();
    path(over, flow, hovered, timeAt());
    over.stroke();
  }
  if (aim && !editing.active) drawCross(aim.x, aim.y);
  editing.draw(over);
  drawAxes(over);
}

// --- drawing value against time ----------------------------------------------------------------------------

function stripContext(name) {
  const canvas = find('.strip canvas.' + name);
  canvas.width = Math.max(1, Math.round(strip.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(strip.clientHeight * ratio));
  return canvas.getContext('2d');
}

const stripY = (v, height) => (1 - v / half()) / 2 * height;

/** Coordinate `axis` of particle i of tracks { frames, times } against time. */
function curve(context, { frames, times }, i) {
  const { width, height } = context.canvas;
  for (let k = 0; k < times.length; k += 1) {
    const x = positionOf(times[k]) * width;
    const y = stripY(coordinate(frames, k, i, axis), height);
    if (k === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  }
}

/** The density over time, or, on the line, the error of a learned field. */
function drawGround() {
  const { data: line, failed } = slots['line-' + axis];
  const errors = dimension() === 1 ? layer('errors') : null;
  const density = failed || (dimension() === 1 && !shown.has('density')) ? null : line;
  const source = errors || density;
  const ground = find('canvas.ground');
  ground.hidden = !source;
  if (ground.hidden) return;
  const { data, shape: [count, size] } = errors ? errors.errors : density.line;
  const columns = 2 * frameCount();
  const turned = new Float32Array(size * columns);
  const rows = { data, shape: [count, 1, size], scale: 1 };
  for (let c = 0; c < columns; c += 1) {
    const at = bracket(source.times, timeAt((c + 0.5) / columns));
    const field = errors ? framesAt(rows, at) : densityAt(rows, density, at, 1).field;
    for (let i = 0; i < size; i += 1) turned[i * columns + c] = field[i];
  }
  paintHeat(ground, turned, columns, size, errors ? palette.learned : palette.exact, darkPalette ? 0.75 : 0.7);
}

/** On the line, the field as slopes: which way, and how steeply, a particle goes on from there. */
function drawSlopes(context, { arrows, there, times }) {
  const { width, height } = context.canvas;
  const [, rows] = arrows.shape;
  const columns = 32;
  const [cell, step] = [width / columns, 0.5 / columns];
  context.strokeStyle = faded(colourOf('field'), 0.75);
  context.lineWidth = 1.2 * ratio;
  context.beginPath();
  for (let c = 0; c < columns; c += 1) {
    const at = (c + 0.5) / columns;
    const [k, f] = bracket(times, timeAt(at));
    const next = Math.min(k + 1, times.length - 1);
    for (let i = 0; i < rows; i += 1) {
      if (!exists(there, k * rows + i, next * rows + i)) continue;
      const x = half() * (2 * (i + 0.5) / rows - 1);
      const speed = mix(arrows.data[k * rows + i], arrows.data[next * rows + i], f) * arrows.scale;
      // Both are divided by the zoom of their time, which is not the same a step later.
      const later = (x + speed * (timeAt(at + step) - timeAt(at))) * zoomAt(at) / zoomAt(at + step);
      const [dx, dy] = [step * width, stripY(later, height) - stripY(x, height)];
      const reach = 0.8 * Math.min(cell, height / rows) / Math.hypot(dx, dy);
      arrow(context, at * width - dx * reach / 2, stripY(x, height) - dy * reach / 2, dx * reach, dy * reach);
    }
  }
  context.stroke();
}

/** On the line, paths of the conditional flow, of forward noising, or of a regular grid of noise. */
function drawTracks(context, tracks, colour, opacity) {
  context.strokeStyle = faded(colour, opacity);
  context.lineWidth = 1.1 * ratio;
  context.beginPath();
  for (let i = 0; i < tracks.frames.shape[1]; i += 1) curve(context, tracks, i);
  context.stroke();
}

/** On the line, the tilted density over time as contours: at each time shares of its highest value then. */
function drawTilt(context) {
  const tilted = layer('tilted');
  if (!tilted || dimension() === 2) return;
  const { width, height } = context.canvas;
  const [, size] = tilted.tilted.shape;
  const columns = frameCount();
  const rows = { data: tilted.tilted.data, shape: [tilted.tilted.shape[0], 1, size] };
  const turned = new Float32Array(size * columns);
  for (let c = 0; c < columns; c += 1) {
    const { field } = densityAt(rows, tilted, bracket(tilted.times, timeAt(c / (columns - 1))), 1);
    for (let i = 0; i < size; i += 1) turned[i * columns + c] = field[i];
  }
  const place = (i, j) => [i / (columns - 1) * width, (1 - (j + 0.5) / size) * height];
  context.strokeStyle = faded(palette.guided, 0.85);
  context.lineWidth = 1.2 * ratio;
  for (const level of LEVELS) contour(context, turned, columns, size, level, place);
}

function drawStripAxis(context) {
  const { height } = context.canvas;
  context.font = 11 * ratio + 'px system-ui, sans-serif';
  context.fillStyle = faded(palette.text, 0.75);
  context.textBaseline = 'middle';
  for (const tick of ticksTo(half())) write(context, signed(tick), 4 * ratio, stripY(tick, height));
}

function drawStrip() {
  drawGround();
  const context = stripContext('paths');
  const { width, height } = context.canvas;
  drawTilt(context);
  if (dimension() === 1) {
    if (layer('arrows')) drawSlopes(context, layer('arrows'));
    for (const [name, colour] of [['grid', palette.uncond], ['noising', palette.noise], ['conditional', palette.cond]]) {
      const data = layer(name);
      if (data) drawTracks(context, { frames: data[name], times: data.times }, colour, 0.5);
    }
  }
  const labels = flow.labels?.data;
  const colours = CLASS_COLOURS.map(name => palette[name]);
  if (shown.has('trajectories')) {
    for (let i = 0; i < Math.min(CURVES, flow.frames.shape[1]); i += 1) {
      const colour = classes().length > 1 && labels ? colours[labels[i] % colours.length] : palette.data;
      context.strokeStyle = faded(blend(colour, palette.text, 0.2), 0.55);
      context.lineWidth = 1.1 * ratio;
      context.beginPath();
      curve(context, flow, i);
      context.stroke();
    }
  }
  if (shown.has('solver') && flow.states) {
    const exact = exactCurves();
    if (exact) {
      context.strokeStyle = faded(palette.text, 0.8);
      context.lineWidth = 1.4 * ratio;
      context.beginPath();
      for (let i = 0; i < Math.min(POLYGONS, exact.frames.shape[1]); i += 1) curve(context, exact, i);
      context.stroke();
    }
    const colour = colourOf('solver');
    for (let i = 0; i < Math.min(POLYGONS, flow.states.shape[1]); i += 1) {
      const points = flow.solver_times.map(
        (t, s) => [positionOf(t) * width, stripY(coordinate(flow.states, s, i, axis), height)]);
      context.strokeStyle = faded(colour, 0.85);
      context.fillStyle = faded(colour, 1);
      context.lineWidth = 1.4 * ratio;
      context.beginPath();
      points.forEach(([x, y], s) => (s ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
      context.beginPath();
      points.forEach(([x, y]) => { context.moveTo(x, y); context.arc(x, y, 2.4 * ratio, 0, 7); });
      context.fill();
    }
  }
  drawStripAxis(context);
  // Where x_t grows with its noise the strip follows it, as the plane does.
  find('.against .what').textContent = 'value against time' + (flow.zoom[0] > 1.005 ? ', divided by √(1 + σ²)' : '');
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(at => {
    const t = timeAt(at);
    const node = make('span', {}, (at === 0 ? 't = ' : '') + (t < 0.1 && t > 0.0005 ? t.toPrecision(2) : t.toFixed(2)));
    node.style.left = 100 * at + '%';
    return node;
  });
  find('.ticks').replaceChildren(...ticks);
}

function drawCursor() {
  const context = stripContext('cursor');
  const { width, height } = context.canvas;
  const x = position * width;
  context.strokeStyle = faded(palette.text, 0.7);
  context.lineWidth = 1.2 * ratio;
  context.setLineDash([4 * ratio, 3 * ratio]);
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, height);
  context.stroke();
  context.setLineDash([]);
  const [k, f] = frameNow();
  const next = Math.min(k + 1, frameCount() - 1);
  const labels = flow.labels?.data;
  const several = classes().length > 1 && labels;
  const colours = dotColours();
  const most = dimension() === 2 ? 2 * CURVES : shown.has('particles') ? 400 : 0;
  const count = Math.min(most, flow.frames.shape[1]);
  for (let i = 0; i < count; i += 1) {
    const v = mix(coordinate(flow.frames, k, i, axis), coordinate(flow.frames, next, i, axis), f);
    context.fillStyle = faded(colours[several ? labels[i] % colours.length : 0], 0.85);
    context.beginPath();
    context.arc(x, stripY(v, height), 2.3 * ratio, 0, 7);
    context.fill();
  }
  if (hovered >= 0) {
    context.strokeStyle = faded(palette.text, 1);
    context.lineWidth = 2 * ratio;
    context.beginPath();
    curve(context, flow, hovered);
    context.stroke();
  }
  if (aim && dimension() === 1) {
    const [px, py] = [aim.at * width, stripY(aim.x / zoomAt(aim.at), height)];
    context.strokeStyle = faded(palette.text, 1);
    context.beginPath();
    context.arc(px, py, 6 * ratio, 0, 7);
    context.stroke();
  }
}

// --- time --------------------------------------------------------------------------------------------------

const decimals = number => number.toFixed(3).replace('-', '−');

function tellTime() {
  const t = timeAt();
  slider.value = position;
  const text = 't = ' + decimals(t) + ' (diffusion)  ·  ' + decimals(1 - t) + ' (flow matching)';
  find('.time').textContent = text;
  slider.setAttribute('aria-valuetext', text);
  const zoom = zoomAt();
  find('.zoom').hidden = zoom < 1.005;
  find('.zoom').textContent = 'zoomed out ' + zoom.toPrecision(3) + ' times';
}

function seek(at) {
  position = Math.max(0, Math.min(1, at));
  stale.board = stale.cursor = true;
  remember();
}

function setPlaying(now) {
  playing = now;
  held = 0;
  lastTick = null;
  if (now && position >= 1) position = 0;
  playButton.textContent = now ? '❚❚' : '▶';
  playButton.setAttribute('aria-label', now ? 'Pause' : 'Play');
  stale.board = stale.cursor = true;
  if (!now) remember();
}

function tick(now) {
  if (!element.isConnected) return;
  requestAnimationFrame(tick);
  if (plane.offsetParent === null || !flow) {
    lastTick = null;
    return;
  }
  readPalette();
  if (playing) {
    const passed = lastTick === null ? 0 : Math.min(0.1, (now - lastTick) / 1000);
    lastTick = now;
    if (position < 1) {
      position = Math.min(1, position + passed / PLAY_SECONDS);
    } else if ((held += passed) > HOLD_SECONDS || loopButton.getAttribute('aria-pressed') === 'false') {
      if (loopButton.getAttribute('aria-pressed') === 'true') position = held = 0;
      else setPlaying(false);
    }
    stale.board = stale.cursor = true;
  }
  if (!stale.board && !stale.strip && !stale.cursor) return;
  const began = performance.now();
  tellTime();
  if (stale.board && dimension() === 2) drawBoard();
  if (stale.strip) drawStrip();
  if (stale.cursor || stale.strip) drawCursor();
  tellScales();
  stale = { board: false, strip: false, cursor: false };
  counters.draws += 1;
  counters.milliseconds = performance.now() - began;
}

// --- pointing ----------------------------------------------------------------------------------------------

/** Where an event happened, in units of the data. */
function pointed(event) {
  const box = canvases.over.getBoundingClientRect();
  const zoom = zoomAt();
  return {
    x: ((event.clientX - box.left) / box.width * 2 - 1) * half() * zoom,
    y: (1 - (event.clientY - box.top) / box.height * 2) * half() * zoom,
  };
}

function nearest({ x, y }) {
  const { data, shape: [, count, dim], scale } = flow.frames;
  const [k, f] = frameNow();
  const step = frameCount() > 1 ? dim * count : 0;
  let best = -1;
  const zoom = zoomAt();
  let least = (half() * 0.03) ** 2;
  for (let i = 0; i < count; i += 1) {
    const a = dim * (k * count + i);
    const square = (mix(data[a], data[a + step], f) * scale - x / zoom) ** 2
      + (mix(data[a + 1], data[a + step + 1], f) * scale - y / zoom) ** 2;
    if (square < least) [best, least] = [i, square];
  }
  return best;
}

function hover(index) {
  if (index === hovered) return;
  hovered = index;
  stale.board = stale.cursor = true;
}

function ask(point) {
  if (value.alone) return; // in a file there is nobody to ask
  aim = goal = point;
  stale.board = stale.cursor = true;
  if (shown.has('conditional')) wantConditional();
  trigger('point', { x: point.x, y: point.y, t: timeAt() });
}

canvases.over.addEventListener('pointermove', event => {
  if (!flow) return;
  if (editing.move(event)) stale.board = true;
  else if (event.pointerType === 'mouse' && !editing.active) hover(nearest(pointed(event)));
});
canvases.over.addEventListener('pointerdown', event => {
  if (flow && editing.down(event)) {
    canvases.over.setPointerCapture(event.pointerId);
    stale.board = true;
  }
});
canvases.over.addEventListener('pointerup', event => { if (flow && editing.up(event)) stale.board = true; });
canvases.over.addEventListener('pointercancel', event => { if (flow && editing.up(event)) stale.board = true; });
canvases.over.addEventListener('pointerleave', () => hover(-1));
canvases.over.addEventListener('click', event => { if (flow && !editing.active) ask(pointed(event)); });
canvases.over.addEventListener('keydown', event => {
  if (!flow || value.alone) return; // in a file there is nobody to ask
  if (editing.active) {
    if (editing.key(event)) {
      event.preventDefault();
      stale.board = true;
    }
    return;
  }
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (by) {
    const step = (event.shiftKey ? 0.01 : 0.1) * zoomAt();
    aim = { x: (aim?.x ?? 0) + by[0] * step, y: (aim?.y ?? 0) + by[1] * step };
    stale.board = true;
    event.preventDefault();
  } else if (event.key === 'Enter') {
    ask(aim ?? { x: 0, y: 0 });
  }
});

/** Where an event happened on the strip: the place in time, and the value there in units of the data. */
function stripPointed(event) {
  const box = strip.getBoundingClientRect();
  const at = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  return { at, x: (1 - (event.clientY - box.top) / box.height * 2) * half() * zoomAt(at) };
}

/** The particle whose curve passes nearest to a place on the strip; -1 when none is near. */
function nearestCurve({ at, x }) {
  const [k, f] = frameNow(at);
  const next = Math.min(k + 1, frameCount() - 1);
  const value = x / zoomAt(at);
  let best = -1;
  let least = half() * 0.04;
  for (let i = 0; i < flow.frames.shape[1]; i += 1) {
    const gap = Math.abs(mix(coordinate(flow.frames, k, i, axis), coordinate(flow.frames, next, i, axis), f) - value);
    if (gap < least) [best, least] = [i, gap];
  }
  return best;
}

let pressed = null; // where the pointer went down on the strip, until it has moved: then it scrubs

function scrub(event) {
  if (!flow || !(event.buttons & 1)) return;
  if (pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > STILL) pressed = null;
  setPlaying(false);
  seek(stripPointed(event).at);
}
strip.addEventListener('pointerdown', event => {
  strip.setPointerCapture(event.pointerId);
  pressed = { x: event.clientX, y: event.clientY };
  scrub(event);
});
strip.addEventListener('pointermove', event => {
  if (flow && event.pointerType === 'mouse' && !event.buttons) hover(nearestCurve(stripPointed(event)));
  else scrub(event);
});
strip.addEventListener('pointerup', event => {
  if (flow && pressed && dimension() === 1) ask({ ...stripPointed(event), y: 0 });
  pressed = null;
});
strip.addEventListener('pointercancel', () => { pressed = null; });
strip.addEventListener('pointerleave', () => hover(-1));
strip.addEventListener('keydown', event => {
  if (!flow || value.alone || dimension() === 2) return;
  const by = { ArrowUp: 0.1, ArrowDown: -0.1 }[event.key];
  if (by) aim = { x: (aim?.x ?? 0) + by * zoomAt(), y: 0, at: position };
  else if (event.key === 'Enter') ask({ x: aim?.x ?? 0, y: 0, at: position });
  else return;
  stale.cursor = true;
  event.preventDefault();
});
slider.addEventListener('input', () => {
  if (playing) setPlaying(false);
  seek(Number(slider.value));
});
slider.addEventListener('keydown', event => {
  const by = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02 }[event.key];
  if (!by) return;
  setPlaying(false);
  seek(position + by);
  event.preventDefault();
});
playButton.addEventListener('click', () => setPlaying(!playing));
loopButton.addEventListener('click', () => {
  loopButton.setAttribute('aria-pressed', String(loopButton.getAttribute('aria-pressed') === 'false'));
});
[...find('.axes').children].forEach((button, which) => button.addEventListener('click', () => {
  axis = which;
  [...find('.axes').children].forEach((b, i) => b.setAttribute('aria-pressed', String(i === which)));
  want();
  stale.strip = true;
}));

// --- layers ------------------------------------------------------------------------------------------------

let refusedLayer = null; // the one that was asked for last, if it cannot be shown

/** Why a layer cannot be shown, in one sentence, or nothing. */
const reasonOf = name => value.reasons?.[name] ?? (dimension() === 1 ? ON_THE_PLANE[name] : '') ?? '';

const chips = Object.fromEntries(LAYERS.map(({ name, title }) => {
  const node = make('button', { type: 'button' }, make('i'), title);
  // What cannot be shown says why to whoever asks for it, with a mouse, a finger or the keyboard.
  node.addEventListener('click', () => {
    refusedLayer = reasonOf(name) ? name : null;
    if (!refusedLayer) toggle(name, !shown.has(name));
    tellChips();
  });
  return [name, node];
}));
find('.chips').append(...Object.values(chips));

function toggle(name, on) {
  if (on) slots[LAYERS.find(l => l.name === name).buffer].again();
  if (on) shown.add(name);
  else shown.delete(name);
  want();
  tellChips();
  remember();
  stale.board = stale.strip = true;
}

function tellChips() {
  for (const { name, title, buffer, colour } of LAYERS) {
    const reason = reasonOf(name);
    const why = reason || slots[buffer].failed;
    const chip = chips[name];
    chip.setAttribute('aria-disabled', String(reason !== ''));
    chip.title = why;
    chip.classList.toggle('failed', why !== '' && reason === '');
    chip.setAttribute('aria-label', why ? title + ': ' + why : title);
    chip.setAttribute('aria-pressed', String(shown.has(name) && !reason));
    if (darkPalette !== null) chip.style.setProperty('--chip', faded(colourOf(colour), 1));
  }
  if (refusedLayer && !reasonOf(refusedLayer)) refusedLayer = null;
  const refused = refusedLayer ? reasonOf(refusedLayer) : '';
  find('.refused').hidden = !refused;
  find('.refused').textContent = refused;
}

/** Asks for what is on show and has changed. */
function want() {
  if (!value.url) return;
  const wanted = new Set(['flow', 'line-' + axis]);
  for (const { name, buffer } of LAYERS) {
    if (shown.has(name) && !reasonOf(name) && (dimension() === 2 || buffer !== 'density')) wanted.add(buffer);
  }
  if (shown.has('solver') && !value.reasons?.exact) wanted.add('exact');
  for (const name of wanted) {
    if (name === 'conditional') wantConditional();
    else slots[name].want(value.keys?.[name] ?? value.url, value.url + name + '.bin');
  }
}

function wantConditional() {
  const at = goal ? '_' + goal.x.toFixed(3) + '_' + goal.y.toFixed(3) : '';
  const key = (value.keys?.conditional ?? value.url) + at;
  slots.conditional.want(key, value.url + 'conditional' + at + '.bin');
}

/** The flow of a mixture that is being shaped: no more than one on its way, and always the newest next. */
function liveFlow(components) {
  if (!value.url) return;
  const name = 'live:' + JSON.stringify(components);
  slots.flow.want(value.url + name, value.url + encodeURIComponent(name) + '.bin');
}

function arrived(name) {
  tellChips();
  if (name === 'flow' && slots.flow.data && !slots.flow.failed) {
    flow = slots.flow.data;
    hovered = -1;
    find('.empty').hidden = true;
    find('.main').hidden = dimension() === 1;
    for (const part of ['.bar', '.ends', '.against', '.chips']) find(part).hidden = false;
    counters.particles = flow.frames.shape[1];
    counters.frames = frameCount();
    counters.flows = (counters.flows ?? 0) + 1;
    if (editing.settled) plane.classList.remove('moving');
    fit();
  }
  stale = { board: true, strip: true, cursor: true };
}

const inWords = numbers => numbers.slice(0, -1).join(', ') + ' and ' + numbers.at(-1);
const precise = number => signed(Number(number.toPrecision(3)));
const blended = ({ times }) => 'computed at ' + times.length + ' times, blended between them';

/** What the maps on show mean, with their units; and what could not be shown, and why. */
function scales() {
  const rows = [];
  const density = layer('density');
  if (dimension() === 2 && seen.density && density) {
    rows.push({ bar: palette.exact, ends: ['0', precise(seen.density)],
      text: 'pₜ per unit of area, the square root of it as colour; ' + blended(density) });
  }
  if (dimension() === 2 && seen.contours) {
    rows.push({ chip: palette.exact, text: 'contours of pₜ at ' + inWords(SHARES.map(s => 100 * s)) +
      ' % of its highest value, ' + precise(seen.contours) });
  }
  const tilted = layer('tilted');
  if (tilted) {
    rows.push({ chip: palette.guided, text: 'pₜ(x) pₜ(c|x)ʷ at the time on show, contours at the same shares of ' +
      'its highest value; at t = 0 it is the tilted density. Earlier it is what guidance climbs, and no marginal' });
  }
  if (dimension() === 2 && seen.arrows && layer('arrows')) {
    rows.push({ chip: colourOf('field'), text: 'arrows are −dx/dt: one as long as its cell is ' +
      precise(seen.arrows / 0.95) + ' units per unit of t; ' + blended(slots.arrows.data) });
    if (value.remarks?.arrows) rows.push({ text: value.remarks.arrows });
  }
  const errors = layer('errors');
  if (errors) {
    rows.push({ bar: palette.learned, ends: ['0', precise(errors.maximum)],
      text: '|learned − exact| of dx/dt, units per unit of t; ' + blended(errors) +
        (dimension() === 2 && timeAt() < errors.times.at(-1) ? ', this one at t = ' + precise(errors.times.at(-1)) : '') });
    if (value.remarks?.errors) rows.push({ text: value.remarks.errors });
  }
  if (shown.has('solver')) {
    const why = value.reasons?.exact;
    if (why) rows.push({ text: why });
    else if (exactCurves()) rows.push({ chip: palette.text, text: 'the exact solution from the same starts' });
  }
  if (dimension() === 1 && layer('arrows')) {
    rows.push({ chip: colourOf('field'), text: 'arrows have the slope of a particle’s way there, all of one length; ' +
      blended(slots.arrows.data) });
    if (value.remarks?.arrows) rows.push({ text: value.remarks.arrows });
  }
  if (dimension() === 1 && slots['line-0'].data && shown.has('density') && !errors) {
    rows.push({ bar: palette.exact, ends: ['0', 'highest'],
      text: 'pₜ, the square root of it as colour, at each time by its highest value then; ' +
        blended(slots['line-0'].data) });
  }
  const told = new Set();
  const wanted = [...LAYERS.filter(({ name }) => shown.has(name)), { title: 'exact solution', buffer: 'exact' },
    { title: 'value against time', buffer: 'line-' + axis }];
  for (const { title, buffer } of wanted) {
    const why = value.url && !value.reasons?.[buffer] && slots[buffer].failed;
    if (why && !told.has(buffer)) rows.push({ failed: true, text: title + ': ' + why });
    told.add(buffer);
  }
  return rows;
}

let toldScales = '';

function tellScales() {
  const rows = flow === BLANK ? [] : scales();
  const text = JSON.stringify(rows);
  if (text === toldScales) return;
  toldScales = text;
  find('.scales').replaceChildren(...rows.map(({ bar, chip, ends, text, failed }) => {
    const mark = make('i', bar ? { class: 'ramp' } : {});
    if (bar || chip) mark.style.setProperty('--chip', faded(bar ?? chip, bar ? 0.75 : 1));
    const nodes = bar ? [make('span', {}, ends[0]), mark, make('span', {}, ends[1])] : chip ? [mark] : [];
    return make('div', failed ? { class: 'failed', role: 'alert' } : {}, ...nodes, make('span', {}, text));
  }));
}

function legend() {
  const names = classes().length > 1 ? classes() : [];
  readPalette();
  find('.legend').replaceChildren(...names.map((text, i) => {
    const swatch = make('i');
    const label = Number(text.match(/\d+$/)?.[0] ?? i);  // as the dots are coloured: classes may leave numbers out
    swatch.style.setProperty('--chip', 'var(--' + CLASS_COLOURS[label % CLASS_COLOURS.length] + ')');
    return make('span', {}, swatch, text);
  }));
}

// --- the address -------------------------------------------------------------------------------------------

let remembering = null;

/** Time and layers go into the address a moment after they have changed, so that a link shows the same. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const text = [position.toFixed(3), ...LAYERS.map(({ name }) => name).filter(name => shown.has(name))].join(',');
    const url = new URL(location.href);
    url.hash = 'plane=' + text;
    try {
      history.replaceState(history.state, '', url);
    } catch { /* a saved page in a frame may have no address of its own */ }
  }, 300);
}

function recall() {
  const [, text] = location.hash.match(/^#plane=([a-z0-9.,-]+)$/) ?? [];
  if (!text) return false;
  const [at, ...layers] = text.split(',');
  position = Math.max(0, Math.min(1, Number(at) || 0));
  shown = new Set(layers.filter(name => name in chips));
  return true;
}
const recalled = recall();

// --- values ------------------------------------------------------------------------------------------------

function fit() {
  ratio = Math.min(window.devicePixelRatio || 1, 2);
  const size = Math.max(1, Math.round(canvases.over.clientWidth * ratio));
  for (const name of ['under', 'dots', 'over']) {
    if (canvases[name].width !== size) canvases[name].width = canvases[name].height = size;
  }
  stale = { board: true, strip: true, cursor: true };
}
new ResizeObserver(fit).observe(plane);

function load() {
  value = props.value ?? {};
  const { show } = value;
  if (show && show.id !== appliedShow) {
    // The first one is the page's opening picture; a link knows better.
    if (appliedShow !== null || !recalled) {
      shown = new Set(show.layers);
      if (show.at !== undefined && show.at !== null) position = show.at;
      setPlaying(false);
    }
    appliedShow = show.id;
  }
  if (plane.dataset.dimension !== String(dimension())) {
    aim = goal = null;
    // Arrays of the other dimension have another shape; the particles stay until the new ones are here.
    for (const [name, slot] of Object.entries(slots)) if (name !== 'flow') slot.drop();
  }
  // What was asked about a point was asked of the flow on show then.
  if (value.url !== asked) {
    if (asked !== null && !value.live) aim = null;
    if (!value.live) asked = value.url;
  }
  plane.dataset.dimension = dimension();
  if (dimension() === 1) axis = 0;
  find('.axes').hidden = dimension() === 1;
  strip.tabIndex = dimension() === 1 ? 0 : -1;
  canvases.over.setAttribute('aria-label', SPOKEN[value.edit] ?? SPOKEN.look);
  if (!value.url && value.edit === 'draw') {
    Object.values(slots).forEach(slot => slot.drop());
    flow = BLANK;
    hovered = -1;
    aim = goal = null;
    counters.particles = 0;
    setPlaying(false);
    for (const part of ['.empty', '.bar', '.ends', '.against', '.chips']) find(part).hidden = true;
  }
  find('.main').hidden = !flow || dimension() === 1;
  find('.live').hidden = !value.live;
  editing.load(value.edit ?? null, value.components ?? []);
  readPalette();
  legend();
  want();
  tellChips();
  stale = { board: true, strip: true, cursor: true };
}
watch('value', load);
load();
requestAnimationFrame(tick);
