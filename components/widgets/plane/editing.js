// Drawing points with mouse or finger, and shaping a mixture by its handles. Both answer the same calls:
// load(what, components), down/move/up(event) -> whether something changed, draw(context).

const SPACING = 0.06; // between two points of a stroke, in units of the data
const MOST_POINTS = 1000; // as many as a recipe keeps
const MOST_GAUSSIANS = 64;

const editing = (() => {
  const box = find('.editor');
  let mode = null;
  let stroke = [];
  let points = [];
  let label = 0;
  let components = [];
  let chosen = -1;
  let given = ''; // the components of the flow that the page has brought, as text
  let shaping = false; // whether a hand is at it
  let told = null; // the components that were told last, until a flow has them
  let grip = null; // which handle of the chosen component is held: 'mean', 'x' or 'y'

  /** A hand may leave the plane; what it draws stays there. */
  function within({ x, y }) {
    const limit = half();
    return { x: Math.max(-limit, Math.min(limit, x)), y: Math.max(-limit, Math.min(limit, y)) };
  }

  const round = v => Math.round(1000 * v) / 1000;

  function button(text, act, attributes = {}) {
    const node = make('button', { type: 'button', ...attributes }, text);
    node.addEventListener('click', act);
    return node;
  }

  function labels(current, choose) {
    return [0, 1, 2].map(i => {
      const node = button('', () => choose(i), { class: 'swatch', 'aria-label': 'class ' + i,
        'aria-pressed': String(current === i) });
      const swatch = make('i');
      swatch.style.setProperty('--chip', 'var(--' + CLASS_COLOURS[i] + ')');
      node.append(swatch);
      return node;
    });
  }

  function tools() {
    box.hidden = mode === null;
    if (mode === 'draw') {
      box.replaceChildren(
        make('span', { class: 'quiet' }, 'Draw on the plane. Class of the stroke:'),
        ...labels(label, i => { label = i; tools(); }),
        button('Clear', () => { points = []; tell(); tools(); }),
        make('span', { class: 'quiet' }, points.length >= MOST_POINTS
          ? 'There are ' + MOST_POINTS + ' points: no more are taken.' : points.length + ' points'));
    } else if (mode === 'mixture') {
      const c = components[chosen];
      const nodes = [
        button('+ Gaussian', add, components.length < MOST_GAUSSIANS ? {} : { disabled: '' }),
        button('Delete', remove, c && components.length > 1 ? {} : { disabled: '' })];
      if (c) {
        const weight = make('input', { type: 'range', min: 0.05, max: 3, step: 0.05, 'aria-label': 'Weight' });
        weight.value = c[5];
        weight.addEventListener('input', () => { c[5] = Number(weight.value); shape(false); });
        weight.addEventListener('change', () => shape(true));
        nodes.push(make('label', {}, 'weight', weight), make('span', { class: 'quiet' }, 'class'),
          ...labels(c[6], i => { c[6] = i; shape(true); tools(); }));
      } else {
        nodes.push(make('span', { class: 'quiet' }, 'Choose a Gaussian: drag its centre, scale and turn it by its handles. ' +
          'On the keyboard: Enter, the arrow keys, + and −, R.'));
      }
      box.replaceChildren(...nodes);
    }
  }

  let number = 0; // of the messages that were sent: they may arrive in another order
  const tell = () =>
    trigger('drawn', { points: points.map(([x, y, l]) => [round(x), round(y), l]), number: ++number });

  /** A moving hand gets its flows straight from the server; the page hears of the shape that it leaves. */
  function shape(done) {
    const mine = components.map(c => c.map(round));
    shaping = !done;
    if (done && JSON.stringify(mine) === given) { // only chosen, or put back where it was
      told = null;
      plane.classList.remove('moving');
      want();
      return;
    }
    // After the last move as well, until the page has brought the flow of this shape.
    plane.classList.add('moving');
    if (!done) {
      liveFlow(mine);
      return;
    }
    told = JSON.stringify(mine);
    trigger('shaped', { components: mine, number: ++number });
  }

  /** Whether components that a flow brings are from before the ones told last: those are on their way. */
  function older() {
    if (told === null) return false;
    if (given !== told) return true;
    told = null;
    return false;
  }

  /** Whether points that a flow brings are those from before the last strokes: the others are on their way. */
  function earlier(brought) {
    if (brought.length === 0 || brought.length >= points.length) return false;
    return brought.every((p, i) => p.every((v, k) => v === round(points[i][k])));
  }

  function add() {
    components.push([0, 0, 0.4, 0.4, 0, 1, 0]);
    chosen = components.length - 1;
    shape(true);
    tools();
  }

  function remove() {
    components.splice(chosen, 1);
    chosen = -1;
    shape(true);
    tools();
  }

  /** A component's handles: its mean, and the ends of its axes at two standard deviations. */
  function handles([x, y, sx, sy, angle]) {
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    return { mean: [x, y], x: [x + 2 * sx * cos, y + 2 * sx * sin], y: [x - 2 * sy * sin, y + 2 * sy * cos] };
  }

  function grab({ x, y }) {
    const near = half() * zoomAt() * 0.045;
    if (chosen >= 0) {
      for (const [name, [hx, hy]] of Object.entries(handles(components[chosen]))) {
        if (Math.hypot(hx - x, hy - y) < near) return [chosen, name];
      }
    }
    const index = components.findIndex(([cx, cy]) => Math.hypot(cx - x, cy - y) < 2 * near);
    return index < 0 ? [-1, null] : [index, 'mean'];
  }

  function drag({ x, y }) {
    const c = components[chosen];
    const limit = half();
    if (grip === 'mean') {
      [c[0], c[1]] = [x, y].map(v => Math.max(-limit, Math.min(limit, v)));
      return;
    }
    const [dx, dy] = [x - c[0], y - c[1]];
    const scale = Math.max(0.05, Math.min(2, Math.hypot(dx, dy) / 2));
    if (grip === 'x') c[2] = scale;
    else c[3] = scale;
    c[4] = Math.atan2(dy, dx) - (grip === 'y' ? Math.PI / 2 : 0);
  }

  return {
    get active() { return mode !== null; },
    get empty() { return points.length + stroke.length === 0; },

    /** Whether the flow that comes is that of the shape which the hand has left. */
    get settled() { return told === null && !shaping; },

    load(what, brought) {
      const changed = what !== mode;
      mode = what;
      given = JSON.stringify(brought.map(c => c.map(round)));
      if (mode === null) delete plane.dataset.edit;
      else plane.dataset.edit = mode;
      if (changed) {
        told = null;
        plane.classList.remove('moving');
      }
      if (mode === 'mixture' && grip === null && !older()) {
        components = brought.map(c => [...c]);
        if (chosen >= components.length) chosen = -1;
      }
      const before = points.length;
      if (mode === 'draw' && stroke.length === 0 && (changed || !earlier(brought))) points = brought.map(p => [...p]);
      if (changed || points.length !== before) tools();
    },

    down(event) {
      if (event.button !== 0 || !event.isPrimary) return false;
      if (mode === 'draw') {
        if (points.length >= MOST_POINTS) return false;
        const { x, y } = within(pointed(event));
        stroke = [[x, y, label]];
        return true;
      }
      if (mode === 'mixture') {
        [chosen, grip] = grab(pointed(event));
        tools();
        return true;
      }
      return false;
    },

    move(event) {
      if (!event.isPrimary) return false;
      if (!(event.buttons & 1)) return this.up(); // it was let go where nobody heard of it
      if (stroke.length > 0) {
        for (const part of event.getCoalescedEvents?.() ?? [event]) {
          const { x, y } = within(pointed(part));
          const [lastX, lastY] = stroke.at(-1);
          const far = Math.hypot(x - lastX, y - lastY);
          const many = Math.min(200, Math.floor(far / SPACING));
          for (let i = 1; i <= many; i += 1) {
            if (points.length + stroke.length >= MOST_POINTS) break;
            stroke.push([mix(lastX, x, i / many), mix(lastY, y, i / many), label]);
          }
        }
        return true;
      }
      if (grip === null) return false;
      drag(pointed(event));
      shape(false);
      return true;
    },

    /** The mixture without a mouse; whether the key meant something. */
    key(event) {
      if (mode !== 'mixture' || event.ctrlKey || event.metaKey || event.altKey) return false;
      const c = components[chosen];
      const step = event.shiftKey ? 0.01 : 0.1;
      const by = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowDown: [1, -step], ArrowUp: [1, step] }[event.key];
      const scale = { '+': 1.1, '-': 1 / 1.1 }[event.key];
      if (event.key === 'Enter') chosen = (chosen + 1) % components.length;
      else if (!c) return false;
      else if (by) c[by[0]] = Math.max(-half(), Math.min(half(), c[by[0]] + by[1]));
      else if (scale) for (const side of [2, 3]) c[side] = Math.max(0.05, Math.min(2, c[side] * scale));
      else if (event.key === 'r' || event.key === 'R') c[4] += event.shiftKey ? -0.1 : 0.1;
      else return false;
      tools();
      if (event.key !== 'Enter') shape(true);
      return true;
    },

    up() {
      if (stroke.length > 0) {
        points = [...points, ...stroke].slice(0, MOST_POINTS);
        stroke = [];
        tell();
        tools();
        return true;
      }
      if (grip === null) return false;
      grip = null;
      shape(true);
      return true;
    },

    draw(context) {
      const zoom = zoomAt();
      if (mode === 'draw') {
        for (const [x, y, l] of [...points, ...stroke]) {
          context.fillStyle = faded(palette[CLASS_COLOURS[l % 8]], 0.9);
          context.beginPath();
          context.arc(pixelX(x / zoom), pixelY(y / zoom), 2.4 * ratio, 0, 7);
          context.fill();
        }
      }
      if (mode !== 'mixture') return;
      components.forEach((c, i) => {
        const [x, y, sx, sy, angle] = c;
        const unit = canvases.over.width / (2 * half() * zoom);
        context.strokeStyle = faded(palette[CLASS_COLOURS[c[6] % 8]], 1);
        context.lineWidth = (i === chosen ? 2.4 : 1.4) * ratio;
        context.beginPath();
        context.ellipse(pixelX(x / zoom), pixelY(y / zoom), 2 * sx * unit, 2 * sy * unit, -angle, 0, 7);
        context.stroke();
        const shownHandles = i === chosen ? Object.values(handles(c)) : [[x, y]];
        for (const [hx, hy] of shownHandles) {
          context.fillStyle = faded(palette[CLASS_COLOURS[c[6] % 8]], 1);
          context.beginPath();
          context.arc(pixelX(hx / zoom), pixelY(hy / zoom), 5.5 * ratio, 0, 7);
          context.fill();
        }
      });
    },
  };
})();
