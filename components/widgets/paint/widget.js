// The board has layers of the guide's own size: a base (plain, or a picture), strokes on it, and the mask. What is
// shown is what is sent: base and strokes as one picture, and the mask.

const COLOURS = {
  'black': '#22222a', 'grey': '#8c8c91', 'white': '#fafafa', 'brown': '#96582c', 'red': '#d62828',
  'orange': '#fa8c28', 'yellow': '#fadc50', 'sand': '#f0d582', 'grass': '#58a64a', 'dark green': '#2c7a34',
  'sky': '#68b2ec', 'sea': '#286ebe', 'night': '#0c0c1c', 'purple': '#8732be', 'pink': '#fa78b9', 'skin': '#f0c096',
};
const EVERY = 250; // milliseconds between two pictures of an unfinished stroke

const board = find('.board');
const view = find('.view');
const over = find('.over');
const video = find('video');
// Kept out of the graphics card, which rounds colours: what is seen is what is sent, to the last bit.
const exact = { willReadFrequently: true };
const paper = view.getContext('2d', exact);
const sheet = over.getContext('2d');
const layer = () => document.createElement('canvas').getContext('2d', exact);
const base = layer();
const strokes = layer();
const mask = layer();
const layers = [base, strokes, mask];

let width = 0;
let height = 0;
let mode = 'brush';
let colour = COLOURS.red;
let past = []; // what the layers were before each change
let last = null; // where the pen was
let sent = 0; // when a picture was last sent
let laid = null; // the second picture while it is being placed: {picture, x, y}
let stream = null;
let loaded = null;
let turn = 0;
let number = 0; // of the paintings that were sent

const say = text => { find('.said').textContent = text; };

// Layers

function resize(size) {
  [width, height] = size;
  for (const { canvas } of [...layers, paper, sheet]) Object.assign(canvas, { width, height });
  board.style.setProperty('--shape', width + ' / ' + height);
  past = [];
  // The brush keeps its share of the board, which may be that of a larger model.
  const brush = find('.width');
  const [most, before] = [Math.round(0.375 * Math.max(width, height)), Number(brush.max)];
  const now = Math.max(1, Math.round(Number(brush.value) * most / before));
  brush.max = most;
  brush.value = now;
  tellBrush();
}

function tellBrush() {
  find('.width-said').textContent = find('.width').value + ' px';
}

function remember() {
  past.push(layers.map(c => c.getImageData(0, 0, width, height)));
  // Some forty megabytes at most, whatever the model's size.
  const most = Math.max(4, Math.min(40, Math.floor(4e7 / (12 * width * height))));
  if (past.length > most) past.shift();
  find('.undo').disabled = false;
}

function plain(fill) {
  base.fillStyle = fill;
  base.fillRect(0, 0, width, height);
  strokes.clearRect(0, 0, width, height);
}

const masked = () => mask.getImageData(0, 0, width, height).data.some((value, i) => i % 4 === 3 && value > 127);

/** Stripes over what is made anew; the rest is dimmed. */
function drawOver() {
  sheet.clearRect(0, 0, width, height);
  const some = masked();
  find('.unmask-all').hidden = !some;
  find('.hint').hidden = !some;
  if (some) {
    const at = Math.max(2, Math.round(width / 32));
    sheet.fillStyle = 'rgb(255 255 255 / 0.35)';
    sheet.fillRect(0, 0, width, height);
    sheet.strokeStyle = 'rgb(201 87 181 / 0.9)';
    sheet.lineWidth = at / 3;
    for (let x = -height; x < width; x += at) {
      sheet.beginPath();
      sheet.moveTo(x, height);
      sheet.lineTo(x + height, 0);
      sheet.stroke();
    }
    sheet.globalCompositeOperation = 'destination-in';
    sheet.drawImage(mask.canvas, 0, 0);
    sheet.globalCompositeOperation = 'source-over';
  }
  if (laid) {
    const [left, top, wide, high] = patchBox();
    sheet.save();
    clipTo(sheet, left, top, wide, high);
    sheet.drawImage(laid.picture, left, top, wide, high);
    sheet.restore();
  }
}

function draw() {
  paper.drawImage(base.canvas, 0, 0);
  paper.drawImage(strokes.canvas, 0, 0);
  drawOver();
  counters.draws += 1;
}

// Telling the server

function flat() {
  const both = layer();
  Object.assign(both.canvas, { width, height });
  both.drawImage(base.canvas, 0, 0);
  both.drawImage(strokes.canvas, 0, 0);
  return both.canvas.toDataURL('image/png');
}

function flatMask() {
  if (!masked()) return null;
  const one = layer();
  Object.assign(one.canvas, { width, height });
  one.fillStyle = 'black';
  one.fillRect(0, 0, width, height);
  one.drawImage(mask.canvas, 0, 0);
  return one.canvas.toDataURL('image/png');
}

function send(done) {
  sent = performance.now();
  number += 1;
  trigger('painted', { picture: flat(), mask: flatMask(), done, number });
}

function changed() {
  draw();
  send(true);
}

// The pen

function at(event) {
  const box = view.getBoundingClientRect();
  return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
}

function stroke(from, to, pressure) {
  const target = mode === 'mask' || mode === 'unmask' ? mask : strokes;
  target.globalCompositeOperation = mode === 'erase' || mode === 'unmask' ? 'destination-out' : 'source-over';
  target.strokeStyle = target === mask ? 'white' : colour;
  target.lineWidth = Number(find('.width').value) * pressure;
  target.lineCap = target.lineJoin = 'round';
  target.beginPath();
  target.moveTo(...from);
  target.lineTo(...to);
  target.stroke();
  target.globalCompositeOperation = 'source-over';
}

/** A pen presses, a mouse and a finger do not. */
const pressing = event => (event.pointerType === 'pen' && event.pressure > 0 ? 0.4 + 1.2 * event.pressure : 1);

let drawing = null; // the pointer that draws

view.addEventListener('pointerdown', event => {
  // A second finger, or the palm beside a pen, draws nothing.
  if (event.button !== 0 || stream || last) return;
  event.preventDefault();
  drawing = event.pointerId;
  try { view.setPointerCapture(event.pointerId); } catch { /* a pointer that has gone already */ }
  last = at(event);
  if (laid) return;
  remember();
  stroke(last, last, pressing(event));
  draw();
});
view.addEventListener('pointermove', event => {
  if (!last || event.pointerId !== drawing) return;
  for (const one of event.getCoalescedEvents?.() ?? [event]) {
    const now = at(one);
    if (laid) {
      laid.x += now[0] - last[0];
      laid.y += now[1] - last[1];
    } else {
      stroke(last, now, pressing(one));
    }
    last = now;
  }
  if (laid) {
    drawOver();
  } else {
    draw();
    if (performance.now() - sent > EVERY) send(false);
  }
});
function lift(event) {
  if (!last || event.pointerId !== drawing) return;
  last = null;
  if (!laid) changed();
}
view.addEventListener('pointerup', lift);
view.addEventListener('pointercancel', lift);

// Tools

function choose(name) {
  mode = name;
  for (const tool of element.querySelectorAll('.tool')) {
    tool.setAttribute('aria-pressed', String(tool.dataset.mode === name));
  }
}
for (const tool of element.querySelectorAll('.tool')) {
  tool.addEventListener('click', () => choose(tool.dataset.mode));
}

function take(value) {
  colour = value;
  for (const swatch of element.querySelectorAll('.swatch')) {
    swatch.setAttribute('aria-pressed', String(swatch.dataset.colour === value));
  }
  if (mode !== 'brush') choose('brush');
}
for (const [name, value] of Object.entries(COLOURS)) {
  const swatch = make('button', {
    type: 'button', class: 'swatch', 'data-colour': value, 'aria-label': name, title: name,
    'aria-pressed': String(value === colour), style: '--own:' + value,
  });
  swatch.addEventListener('click', () => take(value));
  find('.colours').append(swatch);
}
const own = make('input', { type: 'color', class: 'own', value: '#c957b5', 'aria-label': 'Another colour', title: 'another colour' });
own.addEventListener('input', () => take(own.value));
find('.colours').append(own);

find('.width').addEventListener('input', tellBrush);
find('.undo').addEventListener('click', () => {
  const before = past.pop();
  if (!before) return;
  before.forEach((pixels, i) => layers[i].putImageData(pixels, 0, 0));
  find('.undo').disabled = past.length === 0;
  changed();
});
find('.clear').addEventListener('click', () => {
  remember();
  plain('white');
  mask.clearRect(0, 0, width, height);
  changed();
});
find('.fill').addEventListener('click', () => {
  remember();
  plain(colour);
  changed();
});
find('.unmask-all').addEventListener('click', () => {
  remember();
  mask.clearRect(0, 0, width, height);
  changed();
});

// Files

const bring = (file, use) => readFile(file, say, data => trigger('brought', { data, use }));
for (const [name, use] of [['.guide-file', 'guide'], ['.patch-file', 'patch']]) {
  const input = find(name);
  input.addEventListener('change', () => {
    bring(input.files[0], use);
    input.value = ''; // so that the same file can be brought again
  });
}
board.addEventListener('dragover', event => event.preventDefault());
board.addEventListener('drop', event => {
  event.preventDefault();
  bring(event.dataTransfer.files[0], 'guide');
});

// A second picture on the first

/** Left, top, width and height of the second picture. */
function patchBox() {
  const wide = width * Number(find('.scale').value) / 100;
  const high = wide * laid.picture.naturalHeight / laid.picture.naturalWidth;
  return [laid.x - wide / 2, laid.y - high / 2, wide, high];
}

function clipTo(context, left, top, wide, high) {
  context.beginPath();
  if (find('.oval').checked) context.ellipse(left + wide / 2, top + high / 2, wide / 2, high / 2, 0, 0, 2 * Math.PI);
  else context.rect(left, top, wide, high);
  context.clip();
}

function startPlacing(picture) {
  laid = picture && { picture, x: width / 2, y: height / 2 };
  board.classList.toggle('placing', Boolean(laid));
  find('.placing.row').hidden = !laid;
  if (laid) say('Drag the second picture to its place.');
  drawOver();
}
find('.scale').addEventListener('input', drawOver);
find('.oval').addEventListener('change', drawOver);
find('.cancel').addEventListener('click', () => { say(''); startPlacing(null); });
find('.place').addEventListener('click', () => {
  const [left, top, wide, high] = patchBox();
  remember();
  strokes.save();
  clipTo(strokes, left, top, wide, high);
  strokes.drawImage(laid.picture, left, top, wide, high);
  strokes.restore();
  // The mark is a sixth larger on each side: there the two have to be joined.
  mask.save();
  clipTo(mask, left - wide / 6, top - high / 6, wide * 4 / 3, high * 4 / 3);
  mask.fillStyle = 'white';
  mask.fillRect(0, 0, width, height);
  mask.restore();
  startPlacing(null);
  say('The marked region is made anew, so that the two pictures are joined.');
  changed();
});

// The camera

// Browsers give it to pages from this machine or by https only.
find('.camera').hidden = !navigator.mediaDevices?.getUserMedia;

function endCamera() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  video.srcObject = null;
  video.hidden = true;
  find('.filming').hidden = true;
}
find('.camera').addEventListener('click', async () => {
  endCamera();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
    video.srcObject = stream;
    await video.play();
    video.hidden = false;
    find('.filming').hidden = false;
    say('');
  } catch {
    endCamera();
    say('There is no camera here, or the browser did not allow it.');
  }
});
find('.stop-camera').addEventListener('click', endCamera);
find('.shoot').addEventListener('click', () => {
  const { videoWidth, videoHeight } = video;
  const scale = Math.max(width / videoWidth, height / videoHeight);
  const [wide, high] = [Math.round(width / scale), Math.round(height / scale)];
  remember();
  plain('white');
  mask.clearRect(0, 0, width, height);
  base.imageSmoothingQuality = 'high';
  base.drawImage(video, (videoWidth - wide) / 2, (videoHeight - high) / 2, wide, high, 0, 0, width, height);
  endCamera();
  say('The picture was ' + videoWidth + ' × ' + videoHeight + ' cut to its middle ' + wide + ' × ' + high +
    ' and scaled to ' + width + ' × ' + height + '.');
  changed();
});

// Values

let patch = null;

async function load() {
  const value = props.value ?? {};
  if (value.patch && value.patch.id !== patch) {
    patch = value.patch.id;
    decode(value.patch.url).then(startPlacing, () => say('The second picture could not be shown.'));
  }
  if (!value.size || value.id === loaded) return;
  loaded = value.id;
  const mine = ++turn;
  const [picture, marked] = await Promise.all([value.picture, value.mask].map(
    url => (url ? decode(url).catch(() => null) : null)));
  if (mine !== turn) return;
  if (value.size[0] !== width || value.size[1] !== height) resize(value.size);
  else remember();
  plain('white');
  if (picture) base.drawImage(picture, 0, 0, width, height);
  mask.clearRect(0, 0, width, height);
  if (marked) {
    // White on black becomes white on nothing.
    mask.drawImage(marked, 0, 0, width, height);
    const pixels = mask.getImageData(0, 0, width, height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i] > 127 ? 255 : 0;
    mask.putImageData(pixels, 0, 0);
  }
  startPlacing(null);
  draw();
}
watch('value', load);
load();
